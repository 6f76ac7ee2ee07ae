"""One of each kind of object of the libraries that people use with JAX.

`LIBRARY_KINDS` lists them for the tests of all kinds in all positions.
"""

import copy
import typing

import attrs
import chex
import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import optax
import pydantic
from flax import linen, nnx
from kinds import Kind, once_for_each_array, whole, with_attributes

# One of each kind of object. See `Kind`; they are tested in all positions elsewhere.


@attrs.define
class Attrs:
    a: object
    b: object = 0


@attrs.define(slots=False)
class AttrsWithDict:
    a: object
    b: object = attrs.field(default=0, converter=lambda b: b)


@attrs.frozen(cache_hash=True)
class AttrsFrozen:
    a: object
    b: object = attrs.field(factory=tuple)


@attrs.define
class AttrsChild(Attrs):
    c: object = 0


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    a: typing.Any
    b: int = 1
    _private: typing.Any = pydantic.PrivateAttr(default=2)


class ExtraModel(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow", frozen=True)
    a: typing.Any


class Items(pydantic.RootModel[list[typing.Any]]):
    pass


@pydantic.dataclasses.dataclass
class PydanticDataclass:
    a: typing.Any
    b: int = 1


@chex.dataclass
class ChexData:
    a: typing.Any
    b: typing.Any = 0


@chex.dataclass(frozen=True, mappable_dataclass=False)
class ChexFrozen:
    a: typing.Any
    b: typing.Any = 0


class Tagged(eqx.Module):
    a: typing.Any
    tag: typing.Any = eqx.field(static=True)


class Twice(eqx.Module):
    """Uses one layer twice: as one object."""

    first: eqx.nn.Linear
    second: eqx.nn.Linear

    def __init__(self, layer):
        self.first = self.second = layer

    def __call__(self, x):
        return self.second(self.first(x))


class Cyclic(nnx.Module):
    """Refers to itself, and holds one layer in two places."""

    def __init__(self, width, rngs):
        self.layer = nnx.Linear(width, width, rngs=rngs)
        self.again = self.layer
        self.itself = self

    def __call__(self, x):
        return self.itself.again(self.layer(x))


def changed(model, x):
    """Return a model with `x[0]` added to each array."""

    def add(a):
        return a + x[0] if eqx.is_inexact_array(a) else a

    return jax.tree.map(add, model)


def remade(model):
    """Return an equal model with the same arrays."""
    return jax.tree.map(lambda a: a, model)


def eqx_parts(model):
    """Return the attributes of a module and of those in it, by name."""
    if isinstance(model, tuple):
        return tuple(map(eqx_parts, model))
    if not isinstance(model, eqx.Module):
        return model
    return {name: eqx_parts(part) for name, part in sorted(vars(model).items())}


def nnx_parts(module):
    """Return the state of a module, as far as it shows."""
    graphdef, state = nnx.split(module)
    return repr(graphdef), nnx.to_pure_dict(state)


def nnx_copy(module):
    """Return an equal module with the same arrays."""
    return nnx.merge(*nnx.split(module))


EQX_LINEAR = eqx.nn.Linear(3, 3, key=jax.random.key(0))
EQX_MLP = eqx.nn.MLP(3, 2, 4, 1, key=jax.random.key(0))
EQX_NORM, EQX_STATE = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
    3, axis_name="batch", mode="batch"
)
EQX_INDEX = eqx.nn.StateIndex(jnp.zeros(2))
DENSE = linen.Dense(3)
NNX_LINEAR = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
NNX_NORM = nnx.BatchNorm(3, rngs=nnx.Rngs(0))

eqx_linear = once_for_each_array(lambda x: changed(EQX_LINEAR, x))
eqx_index = once_for_each_array(lambda x: changed(EQX_INDEX, x))
eqx_state = once_for_each_array(lambda x: changed(EQX_STATE, x))
eqx_mlp = once_for_each_array(lambda x: changed(EQX_MLP, x))
nnx_linear = once_for_each_array(lambda x: nnx.Linear(3, 2, rngs=nnx.Rngs(int(x[0]))))
nnx_cyclic = once_for_each_array(lambda x: Cyclic(3, rngs=nnx.Rngs(int(x[0]))))
nnx_rngs = once_for_each_array(lambda x: nnx.Rngs(int(x[0]), dropout=1))


def haiku_net(x):
    return hk.nets.MLP([4, 2])(x)


def other_haiku_net(x):
    return hk.nets.MLP([4, 3])(x)


def adam_chain(rate=0.1, norm=1.0):
    return optax.chain(optax.clip_by_global_norm(norm), optax.adam(rate))


LIBRARY_KINDS = {
    "attrs": Kind(
        lambda x: Attrs(x, 1),
        lambda x: Attrs(x, 2),
        lambda x: AttrsWithDict(x, 1),
        inner="a",
    ),
    "attrs with dict": Kind(
        lambda x: with_attributes(AttrsWithDict(x), more=1),
        lambda x: AttrsWithDict(x),
        inner="a",
    ),
    "attrs with cached hash": Kind(
        lambda x: AttrsFrozen(x),
        lambda x: AttrsFrozen(x, (1,)),
        look=attrs.astuple,
        inner="a",
    ),
    "attrs subclass": Kind(
        lambda x: AttrsChild(1, 2, x), lambda x: AttrsChild(2, 1, x), inner="c"
    ),
    "pydantic": Kind(
        lambda x: Model(a=x, b=2),
        lambda x: Model(a=x, b=3),
        lambda x: with_attributes(Model(a=x, b=2), _private=3),
        # Which fields were given is part of the state.
        lambda x: Model.model_construct({"a"}, a=x, b=2),
        look=lambda m: (m.a, m.b, m._private, m.model_fields_set),
        inner="a",
    ),
    "pydantic with extra fields": Kind(
        lambda x: ExtraModel(a=1, more=x),
        lambda x: ExtraModel(a=1, other=x),
        look=lambda m: (m.a, m.model_extra),
        inner="more",
    ),
    "pydantic root model": Kind(
        lambda x: Items([x, 1]),
        lambda x: Items([x, 2]),
        look=lambda m: m.root,
        inner=lambda m: m.root[0],
    ),
    "pydantic dataclass": Kind(
        lambda x: PydanticDataclass(x),
        lambda x: PydanticDataclass(x, 2),
        look=lambda d: (d.a, d.b),
        inner="a",
    ),
    "chex": Kind(lambda x: ChexData(a=x, b=1), lambda x: ChexData(a=x, b=2), inner="a"),
    "chex frozen": Kind(
        lambda x: ChexFrozen(a=x, b=1), lambda x: ChexFrozen(a=x, b=2), inner="a"
    ),
    "Equinox module": Kind(
        lambda x: Tagged(x, "tag"), lambda x: Tagged(x, "other tag")
    ),
    "Equinox static field": Kind(
        lambda x: Tagged(1, [1, {"k": 2}]), lambda x: Tagged(1, [1, {"k": 3}])
    ),
    "Equinox Linear": Kind(
        lambda x: remade(eqx_linear(x)),
        lambda x: eqx.tree_at(lambda m: m.bias, eqx_linear(x), None),
        look=eqx_parts,
    ),
    "Equinox MLP": Kind(
        lambda x: remade(eqx_mlp(x)),
        lambda x: eqx.tree_at(lambda m: m.activation, eqx_mlp(x), jnp.tanh),
        look=eqx_parts,
    ),
    "Equinox module with a layer twice": Kind(
        lambda x: Twice(remade(eqx_linear(x))),
        lambda x: remade(Twice(eqx_linear(x))),  # To JAX, a tree has no sharing.
        look=eqx_parts,
        arrays=2,
    ),
    "Equinox Partial": Kind(
        lambda x: eqx.Partial(jnp.add, x), lambda x: eqx.Partial(jnp.subtract, x)
    ),
    "Equinox StateIndex": Kind(
        lambda x: remade(eqx_index(x)),
        lambda x: eqx.nn.StateIndex(eqx_index(x).init),
        look=lambda index: id(index.marker),
        arrays=1,
    ),
    "Equinox State": Kind(
        lambda x: remade(eqx_state(x)),
        lambda x: eqx.nn.State(EQX_MLP),
        look=jax.tree.leaves,
    ),
    "Linen": Kind(lambda x: copy.copy(DENSE), lambda x: linen.Dense(4), look=repr),
    "Linen variables": Kind(
        lambda x: {"params": {"kernel": x, "bias": x}},
        lambda x: {"params": {"bias": x, "kernel": x}},
        inner=lambda v: v["params"]["kernel"],
    ),
    "NNX Param": Kind(
        lambda x: nnx.Param(x),
        lambda x: nnx.BatchStat(x),
        lambda x: nnx.Param(x, note=1),
        look=lambda v: (v[...], v.get_metadata()),
        arrays=1,
    ),
    "NNX module": Kind(
        lambda x: nnx_copy(nnx_linear(x)), lambda x: nnx_copy(NNX_NORM), look=nnx_parts
    ),
    "NNX cyclic module": Kind(
        lambda x: nnx_copy(nnx_cyclic(x)),
        lambda x: with_attributes(nnx_copy(nnx_cyclic(x)), itself=None),
        look=nnx_parts,
    ),
    "NNX Rngs": Kind(
        lambda x: nnx_copy(nnx_rngs(x)),
        lambda x: nnx_copy(nnx_cyclic(x)),
        look=nnx_parts,
    ),
    "NNX GraphDef": Kind(
        lambda x: nnx.graphdef(NNX_LINEAR), lambda x: nnx.graphdef(NNX_NORM), look=repr
    ),
    "NNX State": Kind(
        lambda x: nnx.state(nnx_copy(nnx_linear(x))),
        lambda x: nnx.state(nnx_copy(NNX_NORM)),
        look=nnx.to_pure_dict,
    ),
    "Optax": Kind(
        lambda x: optax.adam(0.1),
        lambda x: optax.adam(0.2),
        lambda x: optax.adamw(0.1),
        look=type,
    ),
    "Optax chain": Kind(
        lambda x: adam_chain(),
        lambda x: adam_chain(rate=0.2),
        lambda x: adam_chain(norm=2.0),
        look=type,
    ),
    "Optax schedule": whole(
        lambda x: optax.cosine_decay_schedule(0.1, 10),
        lambda x: optax.cosine_decay_schedule(0.1, 20),
    ),
    "Optax multi_transform": Kind(
        lambda x: optax.multi_transform({"a": optax.sgd(0.1)}, {"w": "a"}),
        lambda x: optax.multi_transform({"a": optax.sgd(0.2)}, {"w": "a"}),
        look=type,
    ),
    "Optax inject_hyperparams": Kind(
        lambda x: optax.inject_hyperparams(optax.adam)(0.1),
        lambda x: optax.inject_hyperparams(optax.adam)(0.2),
        look=type,
    ),
    "Optax state": Kind(
        lambda x: optax.ScaleByAdamState(x, {"w": x}, {"w": x}),
        lambda x: optax.ScaleByAdamState(x, {"v": x}, {"v": x}),
        inner="count",
    ),
    "Haiku transform": Kind(
        lambda x: hk.transform(haiku_net),
        lambda x: hk.transform(other_haiku_net),
        lambda x: hk.without_apply_rng(hk.transform(haiku_net)),
        look=type,
    ),
    "Haiku transform with state": Kind(
        lambda x: hk.transform_with_state(haiku_net),
        lambda x: hk.transform_with_state(other_haiku_net),
        lambda x: hk.transform(haiku_net),
        look=type,
    ),
    "NumPyro Normal": Kind(
        lambda x: dist.Normal(x, 1.0),
        lambda x: dist.Normal(x, 2.0),
        lambda x: dist.Laplace(x, 1.0),
        look=lambda d: (d.loc, d.scale, d.batch_shape, d.event_shape),
    ),
    "NumPyro transformed": Kind(
        lambda x: dist.TransformedDistribution(
            dist.Normal(x, 1.0), [dist.transforms.AffineTransform(0.0, 1.0)]
        ),
        lambda x: dist.TransformedDistribution(
            dist.Normal(x, 1.0), [dist.transforms.AffineTransform(0.0, 2.0)]
        ),
        look=lambda d: (d.base_dist.loc, d.transforms[0].scale, d.batch_shape),
    ),
    "NumPyro independent": Kind(
        lambda x: dist.Normal(x, 1.0).to_event(1),
        lambda x: dist.Normal(x, 1.0).to_event(0),
        look=lambda d: (d.base_dist.loc, d.batch_shape, d.event_shape),
    ),
    "NumPyro constraint": Kind(
        lambda x: dist.constraints.interval(0.0, 1.0),
        lambda x: dist.constraints.interval(-0.0, 1.0),
        look=lambda c: (c.lower_bound, c.upper_bound),
    ),
}
