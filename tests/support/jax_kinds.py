"""JAX's own objects, and classes registered as pytrees in each way that JAX has.

`JAX_KINDS` lists them for the tests of all kinds in all positions.
"""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import sparse
from jax.sharding import (
    AbstractMesh,
    Mesh,
    NamedSharding,
    PartitionSpec,
    SingleDeviceSharding,
)
from kinds import Kind, Plain, add, double, once_for_each_array, triple, whole

import autojit

DEVICE = jax.devices()[0]
INDICES = jnp.asarray([[0], [2], [4]])
POINTERS = jnp.asarray([0, 1, 3])
COLUMNS = jnp.asarray([0, 1, 3])

JITTED = jax.jit(double)
DISPATCHER = autojit.jit(double)


@jax.custom_jvp
def with_jvp(x):
    return x * 2


@with_jvp.defjvp
def _with_jvp_rule(primals, tangents):
    return with_jvp(*primals), tangents[0] * 7


@jax.custom_vjp
def with_vjp(x):
    return x * 2


with_vjp.defvjp(lambda x: (with_vjp(x), None), lambda _, g: (g * 7,))


@jax.custom_gradient
def with_gradient(x):
    return x * 2, lambda g: (g * 7,)


@jax.custom_batching.custom_vmap
def with_vmap(x):
    return x * 2


@with_vmap.def_vmap
def _with_vmap_rule(axis_size, in_batched, x):
    return x * 7, in_batched[0]


# Classes that are registered as pytrees, in each way that JAX has.


class Node(Plain):
    """Has `a`, with arrays, and `b`, which is static."""

    def __init__(self, a, b):
        super().__init__(a=a, b=b)


class ByFunctions(Node):
    pass


class ByFunctionsWithKeys(Node):
    pass


@jax.tree_util.register_pytree_node_class
class ByClass(Node):
    def tree_flatten(self):
        return (self.a,), self.b

    @classmethod
    def tree_unflatten(cls, b, children):
        return cls(*children, b)


@jax.tree_util.register_pytree_with_keys_class
class ByClassWithKeys(ByClass):
    def tree_flatten_with_keys(self):
        return ((jax.tree_util.GetAttrKey("a"), self.a),), self.b


@jax.tree_util.register_dataclass
@dataclass
class ByFields:
    a: object
    b: object = field(metadata={"static": True})


@dataclass(frozen=True)
class ByNamesOfFields:
    a: object
    b: object


@jax.tree_util.register_static
class Static(Node):
    """JAX takes it for static; arrays in it are leaves here all the same."""

    def __eq__(self, other):
        return type(other) is type(self) and other.b == self.b

    def __hash__(self):
        return hash(self.b)


jax.tree_util.register_pytree_node(
    ByFunctions, lambda n: ((n.a,), n.b), lambda b, children: ByFunctions(*children, b)
)
jax.tree_util.register_pytree_with_keys(
    ByFunctionsWithKeys,
    lambda n: (((jax.tree_util.GetAttrKey("a"), n.a),), n.b),
    lambda b, children: ByFunctionsWithKeys(*children, b),
)
jax.tree_util.register_dataclass(ByNamesOfFields, ["a"], ["b"])

REGISTERED = (
    ByFunctions,
    ByFunctionsWithKeys,
    ByClass,
    ByClassWithKeys,
    ByFields,
    ByNamesOfFields,
)


def mesh(name="i"):
    return Mesh(np.array([DEVICE]), (name,))


def sparse_rows(x, shape=(2, 4)):
    return sparse.BCSR((x, COLUMNS, POINTERS), shape=shape)


make_key = once_for_each_array(lambda x: jax.random.key(int(x[0])))
make_keys = once_for_each_array(lambda x: jax.random.split(jax.random.key(int(x[0]))))

JAX_KINDS = {
    # Leaves.
    "array": Kind(
        lambda x: x, lambda x: np.asarray(x), lambda x: [x], inner=lambda x: x
    ),
    "PRNG key": Kind(
        make_key, lambda x: np.asarray(jax.random.key_data(make_key(x))), arrays=1
    ),
    "PRNG keys": Kind(make_keys, lambda x: [make_keys(x)], arrays=1),
    # By identity.
    "jitted function": whole(
        lambda x: JITTED, lambda x: jax.jit(double), lambda x: double
    ),
    "dispatcher": whole(lambda x: DISPATCHER, lambda x: autojit.jit(double)),
    "custom_jvp": whole(lambda x: with_jvp, lambda x: jax.custom_jvp(double)),
    "custom_vjp": whole(lambda x: with_vjp, lambda x: jax.custom_vjp(double)),
    "custom_gradient": whole(
        lambda x: with_gradient, lambda x: jax.custom_gradient(double)
    ),
    "function of jax.numpy": whole(
        lambda x: jnp.sin, lambda x: jnp.cos, lambda x: np.sin
    ),
    "ufunc of jax.numpy": whole(
        lambda x: jnp.add, lambda x: jnp.subtract, lambda x: np.add
    ),
    "scalar type of jax.numpy": Kind(lambda x: jnp.float32, lambda x: np.float32),
    "Device": whole(lambda x: DEVICE, lambda x: str(DEVICE)),
    # Functions by value: transformed anew for each call.
    "jax.grad": whole(
        lambda x: jax.grad(double),
        lambda x: jax.grad(triple),
        lambda x: jax.grad(double, has_aux=True),
    ),
    "jax.vmap": whole(
        lambda x: jax.vmap(double),
        lambda x: jax.vmap(triple),
        lambda x: jax.vmap(double, out_axes=1),
    ),
    "jax.checkpoint": whole(
        lambda x: jax.checkpoint(double),
        lambda x: jax.checkpoint(triple),
        lambda x: jax.checkpoint(double, static_argnums=0),
    ),
    # Where and how arrays are.
    "Mesh": Kind(
        lambda x: mesh(),
        lambda x: mesh("j"),
        lambda x: Mesh(np.array([[DEVICE]]), ("i", "j")),
        look=lambda m: (m.axis_names, m.devices.shape, list(map(str, m.devices.flat))),
    ),
    "AbstractMesh": Kind(
        lambda x: AbstractMesh((1, 2), ("i", "j")),
        lambda x: AbstractMesh((2, 1), ("i", "j")),
        look=lambda m: (m.axis_names, m.axis_sizes),
    ),
    "PartitionSpec": Kind(
        lambda x: PartitionSpec("i", None),
        lambda x: PartitionSpec(None, "i"),
        lambda x: PartitionSpec("i", "j"),
        lambda x: ("i", None),
        look=repr,
    ),
    "NamedSharding": Kind(
        lambda x: NamedSharding(mesh(), PartitionSpec("i")),
        lambda x: NamedSharding(mesh(), PartitionSpec()),
        lambda x: NamedSharding(mesh("j"), PartitionSpec("j")),
        look=repr,
    ),
    "SingleDeviceSharding": Kind(
        lambda x: SingleDeviceSharding(DEVICE),
        lambda x: NamedSharding(mesh(), PartitionSpec()),
        look=repr,
    ),
    "sharding of an array": Kind(
        lambda x: INDICES.sharding, lambda x: PartitionSpec(), look=repr
    ),
    "ShapeDtypeStruct": Kind(
        lambda x: jax.ShapeDtypeStruct((3,), jnp.float32),
        lambda x: jax.ShapeDtypeStruct((4,), jnp.float32),
        lambda x: jax.ShapeDtypeStruct((3,), jnp.int32),
        lambda x: jax.ShapeDtypeStruct((3,), jnp.float32, weak_type=True),
        lambda x: jax.ShapeDtypeStruct(
            (3,), jnp.float32, sharding=SingleDeviceSharding(DEVICE)
        ),
        look=lambda s: (s.shape, s.dtype, s.weak_type, repr(s.sharding)),
    ),
    "PRNG key type": Kind(
        lambda x: jax.random.key(0).dtype,
        lambda x: jax.random.key(0, impl="rbg").dtype,
        look=str,
    ),
    "structure of a tree": Kind(
        lambda x: jax.tree.structure([1, {"a": 2}]),
        lambda x: jax.tree.structure([1, {"b": 2}]),
        look=str,
    ),
    "path in a tree": Kind(
        lambda x: jax.tree.leaves_with_path([{"a": 1}])[0][0],
        lambda x: jax.tree.leaves_with_path([{"b": 1}])[0][0],
        look=repr,
    ),
    # Objects with arrays.
    "Partial": Kind(
        lambda x: jax.tree_util.Partial(add, x),
        lambda x: jax.tree_util.Partial(add, y=x),
        lambda x: jax.tree_util.Partial(double, x),
        inner=lambda p: p.args[0],
    ),
    "Partial with keywords": Kind(
        lambda x: jax.tree_util.Partial(add, 1, y=x),
        lambda x: jax.tree_util.Partial(add, 1.0, y=x),
        inner=lambda p: p.keywords["y"],
    ),
    "BCOO": Kind(
        lambda x: sparse.BCOO((x, INDICES), shape=(5,)),
        lambda x: sparse.BCOO((x, INDICES), shape=(6,)),
        lambda x: sparse.BCOO((x, INDICES), shape=(5,), unique_indices=True),
    ),
    "BCSR": Kind(sparse_rows, lambda x: sparse_rows(x, (2, 5))),
    **{
        f"registered {cls.__name__}": Kind(
            lambda x, cls=cls: cls(x, "b"),
            lambda x, cls=cls: cls(x, "c"),
            lambda x, cls=cls: Plain(a=x, b="b"),
            inner="a",
        )
        for cls in (*REGISTERED, Static)
    },
}
