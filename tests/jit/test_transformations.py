"""Dispatchers in JAX transformations, around them, and in one another."""

import contextlib
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graphs import walk_leaves
from jax import lax
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P
from kinds import Data, Plain, Slots

import autojit


def energy(params, x, power=2):
    """Return a scalar; `params` is an object that only autojit takes apart."""
    hidden = jnp.tanh(params.layers["w"] @ x + params.bias)
    return (hidden**power).sum() * params.scale


def make_params(w):
    return Plain(layers={"w": w, "name": "dense"}, bias=w[0], scale=0.5)


@pytest.fixture
def w():
    return jnp.linspace(-1.0, 1.0, 9).reshape(3, 3)


@pytest.fixture(params=[autojit.jit, autojit.jax_autojit], ids=["jit", "jax_autojit"])
def wrap(request):
    return request.param


def close(a, b, rtol=1e-5):
    a, b = jax.tree.leaves(a), jax.tree.leaves(b)
    assert len(a) == len(b)
    for p, q in zip(a, b, strict=True):
        np.testing.assert_allclose(p, q, rtol=rtol, atol=rtol / 10)
        assert jnp.asarray(p).dtype == jnp.asarray(q).dtype


# A function of arrays that calls `energy` with an object, whole or wrapped.


def with_object(energy):
    def f(w, x):
        return energy(make_params(w), x, power=3)

    return f


# Each transformation makes a function of arrays from a scalar function of arrays. What
# it has to wrap by itself it wraps with `wrap`: nothing in the reference, `autojit.jit`
# elsewhere. All of them call their function with shapes that they are given, so that
# they nest.


def _collapse(f):
    """Make a scalar function of one with any results, each item with its own weight."""

    def scalar(w, x):
        total = jnp.zeros(())
        for i, leaf in enumerate(jax.tree.leaves(f(w, x))):
            weights = np.cos(np.arange(leaf.size) + i).reshape(leaf.shape)
            total += (leaf * weights.astype(np.float32)).sum()
        return total

    return scalar


def _unwrapped(f):
    return f


def _shard_map(f, wrap):
    mesh = Mesh(np.array(jax.devices()[:1]), ("i",))
    return jax.shard_map(
        lambda w, x: lax.psum(f(w, x), "i"),
        mesh=mesh,
        in_specs=(P(), P("i")),
        out_specs=P(),
    )


def _scan(f, wrap):
    def g(w, x):
        def body(carry, row):
            return carry + f(w, row), carry * 2

        return lax.scan(body, x.sum() * 0, jnp.stack([x, 2 * x]))

    return g


def _while_loop(f, wrap):
    def g(w, x):
        def body(state):
            n, total = state
            return n + 1, total + f(w, x * n)

        return lax.while_loop(lambda state: state[0] < 3, body, (0, x.sum() * 0))

    return g


# The rules give other derivatives than the function has, to show that they are used.


def _custom_jvp(f, wrap):
    g = jax.custom_jvp(f)

    @g.defjvp
    def rule(primals, tangents):
        value, tangent = jax.jvp(f, primals, tangents)
        return value, tangent * 3

    return g


def _custom_vjp(f, wrap):
    g = jax.custom_vjp(f)

    def forward(w, x):
        return f(w, x), (w, x)

    def backward(primals, cotangent):
        pulled = jax.vjp(f, *primals)[1](cotangent)
        return tuple(3 * a for a in pulled)

    g.defvjp(forward, backward)
    return g


def _eval_shape(f, wrap):
    def g(w, x):
        shapes = jax.eval_shape(f, w, x)
        return jax.tree.map(lambda s: jnp.full(s.shape, 0.5, s.dtype), shapes)

    return g


def _make_jaxpr(f, wrap):
    def g(w, x):
        closed = jax.make_jaxpr(f)(w, x)
        return jax.core.eval_jaxpr(closed.jaxpr, closed.consts, w, x)

    return g


def _linearize(f, wrap):
    def g(w, x):
        value, linear = jax.linearize(f, w, x)
        return value, linear(w * 0.5, x)

    return g


def _vjp(f, wrap):
    def g(w, x):
        value, pull = jax.vjp(f, w, x)
        return value, pull(jnp.full_like(value, 0.5))

    return g


def _another_dispatcher(f, wrap):
    @wrap
    def other(box, n):
        return {"value": f(box.w, box.x) * n, "n": n}

    return lambda w, x: other(Plain(w=w, x=x), 2.0)["value"]


def _itself(f, wrap):
    @wrap
    def recursive(box, n):
        value = f(box.w, box.x)
        if n == 0:
            return value
        return value + recursive(Plain(w=box.w, x=box.x * 0.5), n - 1)

    return lambda w, x: recursive(Plain(w=w, x=x), 2)


TRANSFORMATIONS = {
    "jit": lambda f, wrap: jax.jit(f),
    "grad": lambda f, wrap: jax.grad(f, (0, 1)),
    "value_and_grad": lambda f, wrap: jax.value_and_grad(f),
    "jacfwd": lambda f, wrap: jax.jacfwd(f, 1),
    "jacrev": lambda f, wrap: jax.jacrev(f, 1),
    "vmap": lambda f, wrap: (
        lambda w, x: jax.vmap(f, (None, 0))(w, jnp.stack([x, 2 * x]))
    ),
    "shard_map": _shard_map,
    "scan": _scan,
    "cond": lambda f, wrap: (
        lambda w, x: lax.cond(x.sum() > 0, lambda: f(w, x), lambda: f(w, -x) * 2)
    ),
    "while_loop": _while_loop,
    "checkpoint": lambda f, wrap: jax.checkpoint(f),
    "custom_jvp": _custom_jvp,
    "custom_vjp": _custom_vjp,
    "eval_shape": _eval_shape,
    "make_jaxpr": _make_jaxpr,
    "linearize": _linearize,
    "vjp": _vjp,
    "jvp": lambda f, wrap: lambda w, x: jax.jvp(f, (w, x), (w * 0.5, x)),
    "dispatcher": _another_dispatcher,
    "itself": _itself,
}

# What JAX refuses, the outer one first: `while_loop` has no reverse derivative, and
# `custom_vjp` no forward one; a mesh axis can be mapped over once.
REFUSED = {
    ("grad", "while_loop"): ValueError,
    ("value_and_grad", "while_loop"): ValueError,
    ("jacrev", "while_loop"): ValueError,
    ("vjp", "while_loop"): ValueError,
    ("jacfwd", "custom_vjp"): TypeError,
    ("linearize", "custom_vjp"): TypeError,
    ("jvp", "custom_vjp"): TypeError,
    ("shard_map", "shard_map"): ValueError,
}

# One deep only: two transformations already, or much like one of the others.
MORE_TRANSFORMATIONS = {
    "jit of grad": lambda f, wrap: jax.jit(jax.grad(f)),
    "vmap of both": lambda f, wrap: (
        lambda w, x: jax.vmap(f)(jnp.stack([w, w + 1]), jnp.stack([x, x * 2]))
    ),
    "hessian": lambda f, wrap: jax.hessian(f, argnums=1),
    "grad of checkpoint": lambda f, wrap: jax.grad(jax.checkpoint(f)),
    "fori_loop": lambda f, wrap: (
        lambda w, x: lax.fori_loop(0, 3, lambda i, total: total + f(w, x * i), 0.0)
    ),
}


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """Results are compared, not how fast they are computed."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


_ONE_DEEP = TRANSFORMATIONS | MORE_TRANSFORMATIONS


@pytest.fixture(params=_ONE_DEEP)
def transformation(request):
    """Return a transformation, and its function of `w` and `x` without us."""
    return _ONE_DEEP[request.param], transformed_by_jax(request.param)


@functools.cache  # compiled once for all tests
def transformed_by_jax(name):
    return jax.jit(_ONE_DEEP[name](with_object(energy), _unwrapped))


def test_a_dispatcher_inside_of_a_transformation(transformation, wrap, w, x):
    transform, plain = transformation
    dispatcher = wrap(energy)
    for _ in range(2):
        close(transform(with_object(dispatcher), wrap)(w, x), plain(w, x))


def test_a_dispatcher_around_a_transformation(transformation, w, x):
    transform, plain = transformation
    dispatcher = autojit.jit(transform(with_object(energy), autojit.jit))
    for _ in range(2):
        close(dispatcher(w, x), plain(w, x))
    assert dispatcher.cache_info()[:3] == (1, 1, 1)


def test_a_transformation_applied_to_a_dispatcher(transformation, w, x):
    transform, plain = transformation
    dispatcher = autojit.jit(with_object(energy))
    transformed = transform(dispatcher, autojit.jit)
    for _ in range(2):
        close(transformed(w, x), plain(w, x))
    close(dispatcher(w, x), energy(make_params(w), x, power=3))


def test_dispatchers_on_both_sides_of_a_transformation(transformation, w, x):
    transform, plain = transformation
    inside = autojit.jit(with_object(autojit.jit(energy)))
    dispatcher = autojit.jit(transform(inside, autojit.jit))
    for v in (w, w + 1):
        close(dispatcher(v, x), plain(v, x))


# Two deep. The dispatchers take and return objects, wherever they stand. Where
# everything is compiled anyway, one program has several outer transformations of one
# inner one: most of the time goes into compilation. The slow tests have all pairs. In
# the others each transformation stands in two others, which are not the same for each
# place of the dispatcher.


def nest(outer, inner, f, wrap):
    transform = TRANSFORMATIONS[outer]
    return transform(_collapse(TRANSFORMATIONS[inner](f, wrap)), wrap)


def innermost(outer, inner):
    return nest(outer, inner, with_object(autojit.jit(energy)), autojit.jit)


def in_between(outer, inner):
    f = _collapse(TRANSFORMATIONS[inner](with_object(energy), autojit.jit))

    @autojit.jit
    def dispatcher(box, name):
        return {name: f(box.w, box.x)}

    def g(w, x):
        return dispatcher(Plain(w=w, x=x), "value")["value"]

    return TRANSFORMATIONS[outer](g, autojit.jit)


def outermost(outer, inner):
    f = nest(outer, inner, with_object(energy), autojit.jit)

    @autojit.jit
    def dispatcher(box, name):
        return Data(f(box.w, box.x), name)

    return lambda w, x: dispatcher(Plain(w=w, x=x), "value").a


def all_pairs(first):
    """Parametrize a test by an inner transformation and a tuple of outer ones.

    The slow tests have all that can stand around it. The others have two of these,
    beginning with that which comes `first` after the inner one.
    """
    names = list(TRANSFORMATIONS)
    few, every = [], []
    for i, inner in enumerate(names):
        outer = tuple(o for o in names if (o, inner) not in REFUSED)
        two = tuple(outer[(i + first + k) % len(outer)] for k in (0, 7))
        few.append(pytest.param(inner, two, id=inner))
        every.append(
            pytest.param(inner, outer, id=f"{inner} in all", marks=pytest.mark.slow)
        )
    return pytest.mark.parametrize(("inner", "outer"), few + every)


def of_outer(make, inner, outer):
    """Return a function with the results of several transformations of `inner`."""
    functions = {o: make(o, inner) for o in outer}

    def f(w, x):
        results = {}
        for outer, function in functions.items():
            try:
                results[outer] = function(w, x)
            except Exception as error:
                error.add_note(f"in {outer} of {inner}")
                raise
        return results

    return f


@functools.cache
def expected_of_outer(inner, outer):
    f = of_outer(
        lambda outer, inner: nest(outer, inner, with_object(energy), _unwrapped),
        inner,
        outer,
    )
    return jax.jit(f)(*two_deep_arguments())


def two_deep_arguments():
    return jnp.linspace(-1.0, 1.0, 9).reshape(3, 3), jnp.arange(3.0)


def close_by_name(results, expected):
    assert results.keys() == expected.keys()
    for outer, result in results.items():
        try:
            close(result, expected[outer], rtol=1e-4)
        except AssertionError as error:
            error.add_note(f"in {outer}")
            raise


@all_pairs(first=0)
def test_two_transformations_of_a_dispatcher(inner, outer):
    f = jax.jit(of_outer(innermost, inner, outer))
    close_by_name(f(*two_deep_arguments()), expected_of_outer(inner, outer))


@all_pairs(first=1)
def test_a_dispatcher_between_two_transformations(inner, outer):
    f = jax.jit(of_outer(in_between, inner, outer))
    close_by_name(f(*two_deep_arguments()), expected_of_outer(inner, outer))


@pytest.mark.parametrize(("outer", "inner"), REFUSED)
def test_what_jax_refuses_is_refused_in_its_words(outer, inner):
    f = jax.jit(nest(outer, inner, with_object(energy), _unwrapped))
    with pytest.raises(REFUSED[outer, inner]) as theirs:
        f(*two_deep_arguments())
    for make in (innermost, in_between, outermost):
        with pytest.raises(REFUSED[outer, inner]) as ours:
            make(outer, inner)(*two_deep_arguments())
        assert str(ours.value) == str(theirs.value), make.__name__


@all_pairs(first=2)
def test_a_dispatcher_around_two_transformations(inner, outer):
    @autojit.jit
    def dispatcher(box, name):
        f = of_outer(
            lambda outer, inner: nest(outer, inner, with_object(energy), autojit.jit),
            inner,
            outer,
        )
        return Data(f(box.w, box.x), name)

    w, x = two_deep_arguments()
    for _ in range(2):
        result = dispatcher(Plain(w=w, x=x), inner)
        assert result.b == inner
        close_by_name(result.a, expected_of_outer(inner, outer))
    assert dispatcher.cache_info()[:3] == (1, 1, 1)


@dataclasses.dataclass
class Weights:
    """A pytree of JAX's own with a static field."""

    w: jax.Array
    name: str = "dense"


jax.tree_util.register_dataclass(Weights, data_fields=["w"], meta_fields=["name"])


@pytest.mark.parametrize(
    "transform",
    [
        jax.jit,
        jax.grad,
        jax.value_and_grad,
        jax.jacfwd,
        jax.jacrev,
        lambda f: lambda p, x: jax.vmap(f, (None, 0))(p, jnp.stack([x, 2 * x])),
        lambda f: (
            lambda p, x: jax.vmap(f, (0, None))(Weights(jnp.stack([p.w, 2 * p.w])), x)
        ),
        jax.checkpoint,
        lambda f: lambda p, x: jax.jvp(f, (p, x), (p, x)),
        lambda f: lambda p, x: jax.vjp(f, p, x)[1](jnp.ones(())),
        lambda f: lambda p, x: jax.linearize(f, p, x)[1](p, x),
        lambda f: lambda p, x: lax.scan(lambda p, x: (p, f(p, x)), p, jnp.stack([x])),
        lambda f: lambda p, x: lax.cond(x.sum() > 0, f, lambda p, x: f(p, -x), p, x),
        lambda f: jax.jacfwd(jax.grad(f)),
        lambda f: jax.grad(jax.checkpoint(f)),
    ],
)
def test_a_registered_class_may_pass_through_both(transform, x):
    """The dispatcher's argument is a pytree with the transformation's tracers in it."""

    def f(params, x):
        assert type(params) is Weights
        assert params.name == "dense"
        return jnp.tanh(params.w * x).sum()

    params = Weights(jnp.linspace(0.1, 0.9, 3))
    x = x + 1
    expected = jax.jit(transform(f))(params, x)
    close(transform(autojit.jit(f))(params, x), expected)
    close(autojit.jit(transform(f))(params, x), expected)
    close(autojit.jit(transform(autojit.jit(f)))(params, x), expected)


# One at a time, where results or arguments are more than arrays.


def test_jit_may_call_a_dispatcher_that_returns_objects(w, x):
    @autojit.jit
    def make(w):
        return Plain(a=w * 2, name="made", slots=Slots(w + 1, 3))

    @jax.jit
    def f(w):
        obj = make(w)
        assert obj.name == "made"
        assert obj.slots.b == 3
        return obj.a + obj.slots.a

    close(f(w), w * 2 + w + 1)
    close(f(w + 1), (w + 1) * 2 + w + 2)


def test_the_same_dispatcher_inside_and_outside_of_jit(w, x):
    f = autojit.jit(lambda params, x: energy(params, x))  # a table of its own
    params = make_params(w)
    outside = f(params, x)
    inside = jax.jit(lambda w, x: f(make_params(w), x))(w, x)
    close(outside, energy(params, x))
    close(inside, energy(params, x))
    close(f(params, x), energy(params, x))
    assert f.cache_info().currsize == 1


def test_grad_with_auxiliary_data(w, x):
    def loss(w, x):
        value = energy(make_params(w), x)
        return value, {"name": "aux", "value": value * 2}

    inner = jax.grad(autojit.jit(loss), has_aux=True)(w, x)
    outer = autojit.jit(jax.grad(loss, has_aux=True))(w, x)
    for gradient, aux in (inner, outer):
        close(gradient, jax.grad(loss, has_aux=True)(w, x)[0])
        assert aux["name"] == "aux"
        close(aux["value"], energy(make_params(w), x) * 2)


def test_the_body_of_a_scan_may_be_a_dispatcher(x):
    def body(carry, row):
        return carry + row, {"carry": carry, "row": row * 2}

    expected = lax.scan(body, jnp.zeros(()), x)
    close(lax.scan(autojit.jit(body), jnp.zeros(()), x), expected)


def test_the_body_of_a_scan_may_use_a_static_of_a_dispatcher(x):
    @autojit.jit
    def total(x, config):
        def body(carry, row):
            return step(carry, row, config), None

        return lax.scan(body, jnp.zeros(()), x)[0]

    @autojit.jit
    def step(carry, row, config):
        return carry * config.b + row if config.a else carry - row

    close(total(x, Data(True, 2.0)), ((0 * 2 + x[0]) * 2 + x[1]) * 2 + x[2])
    close(total(x, Data(False, 2.0)), -x.sum())


def test_the_branches_of_a_cond_may_be_dispatchers(x):
    plus, minus = autojit.jit(lambda x: x + 1), autojit.jit(lambda x: x - 1)
    for jit in (lambda f: f, jax.jit, autojit.jit):
        f = jit(lambda p, x: lax.cond(p, plus, minus, x))
        close(f(jnp.asarray(True), x), x + 1)
        close(f(jnp.asarray(False), x), x - 1)


def test_switch_over_dispatchers(x):
    branches = [autojit.jit(lambda x, n=n: x * n) for n in range(3)]
    for i in range(3):
        close(lax.switch(jnp.asarray(i), branches, x), x * i)


def test_vmap_inside_sees_one_row(w):
    shapes = []

    @autojit.jit
    def f(box):
        shapes.append(box.a.shape)
        return box.a.sum()

    close(jax.vmap(lambda row: f(Plain(a=row)))(w), w.sum(1))
    assert all(shape == (3,) for shape in shapes)
    close(f(Plain(a=w)), w.sum())
    assert shapes[-1] == (3, 3)


def test_eval_shape_of_a_dispatcher(w, x):
    traces = []

    @autojit.jit
    def f(w, x):
        traces.append(1)
        return {"a": w @ x, "b": [x.astype(jnp.int32)]}

    shapes = jax.eval_shape(f, w, x)
    assert shapes == {
        "a": jax.ShapeDtypeStruct((3,), w.dtype),
        "b": [jax.ShapeDtypeStruct((3,), jnp.int32)],
    }
    spec = jax.ShapeDtypeStruct((5, 3), w.dtype)
    assert jax.eval_shape(f, spec, x)["a"].shape == (5,)
    assert len(traces) == 2
    close(f(w, x)["a"], w @ x)


def test_make_jaxpr_of_a_dispatcher(w, x):
    jaxpr = jax.make_jaxpr(autojit.jit(with_object(energy)))(w, x)
    assert [aval.shape for aval in jaxpr.in_avals] == [(3, 3), (3,)]
    assert [aval.shape for aval in jaxpr.out_avals] == [()]


def primitives(jaxpr):
    """Return the names of all operations, those of inner functions in place."""
    names = []
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in ("jit", "pjit"):
            names += primitives(eqn.params["jaxpr"].jaxpr)
        else:
            names.append(eqn.primitive.name)
    return names


def test_make_jaxpr_has_the_operations_of_the_function_alone(w, x):
    plain = jax.make_jaxpr(with_object(energy))(w, x)
    wrapped = jax.make_jaxpr(with_object(autojit.jit(energy)))(w, x)
    assert primitives(wrapped.jaxpr) == primitives(plain.jaxpr)


# disable_jit.


def test_disable_jit_runs_the_function_itself(x):
    """With the caller's own objects, and arrays that have values."""

    @autojit.jit
    def f(x, obj):
        return (x + obj.a, float(x.sum()), obj) if x.sum() > 0 else x

    obj = Plain(a=x, name="n", items=[1, x])
    with pytest.raises(jax.errors.TracerBoolConversionError):
        f(x, obj)
    with jax.disable_jit():
        for _ in range(2):
            result, total, same = f(x, obj)
            close(result, x + x)
            assert (type(total), total) == (float, 3.0)
            assert same is obj
        with pytest.raises(AttributeError, match="'a'"):
            f(x, Plain())
    assert f.cache_info().currsize == 0


def test_disable_jit_of_a_call_that_has_a_specialization(x):
    traced = []

    @autojit.jit
    def f(x, n):
        traced.append(isinstance(x, jax.core.Tracer))
        return x * n

    for disabled in (False, True, False):
        with jax.disable_jit(disabled):
            for _ in range(2):
                close(f(x, 2), x * 2)
    assert traced == [True, False, False]


def test_disable_jit_of_methods_iterators_and_wrapped_objects(x):
    class Model:
        def __init__(self, w):
            self.w = w

        @autojit.jit
        def rows(self, x):
            for row in self.w:
                yield row @ x

        def __call__(self, x):
            return self.w @ x

    model = Model(jnp.eye(3))
    with jax.disable_jit():
        assert [float(v) for v in model.rows(x)] == [0.0, 1.0, 2.0]
        close(autojit.jit(model)(x), x)


# JAX's configuration.


def enable_x64():
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64

    return enable_x64()


CONTEXTS = {
    "none": contextlib.nullcontext,
    "enable_x64": enable_x64,
    "debug_nans": lambda: jax.debug_nans(True),
    "debug_infs": lambda: jax.debug_infs(True),
    "checking_leaks": jax.checking_leaks,
    "default_device": lambda: jax.default_device(jax.devices()[0]),
    "mesh": lambda: jax.set_mesh(
        jax.make_mesh((1,), ("i",), axis_types=(AxisType.Auto,))
    ),
    "transfer_guard": lambda: jax.transfer_guard("log"),
    "precision": lambda: jax.default_matmul_precision("float32"),
    "promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "rank_promotion": lambda: jax.numpy_rank_promotion("raise"),
}


@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)
def test_a_context_retraces_exactly_when_jax_does(context, x):
    traces = []

    def flat(x):
        traces.append(1)
        return jnp.tanh(x), jnp.ones(2) * 3

    @autojit.jit
    def ours(box, name):
        return {name: jnp.tanh(box.a), "ones": jnp.ones(2) * 3}

    theirs = jax.jit(flat)
    for inside in (False, True, False, True):
        with context() if inside else contextlib.nullcontext():
            for _ in range(2):
                result = ours(Data(x), "y")
                close([result["y"], result["ones"]], theirs(x))
        if context is not jax.checking_leaks:  # under which JAX keeps no traces
            assert ours.cache_info().traces == len(traces)
    assert ours.cache_info().misses == ours.cache_info().currsize == 1


@pytest.mark.parametrize(("setting", "value"), [("nans", 0.0), ("infs", 1.0)])
def test_what_jax_finds_when_it_debugs_numbers(setting, value):
    context = getattr(jax, f"debug_{setting}")
    ours = autojit.jit(lambda box: {"y": box.a / box.b})
    theirs = jax.jit(lambda a, b: {"y": a / b})
    a, zero = jnp.full(2, value), jnp.zeros(2)
    for _ in range(2):
        with context(True):
            with pytest.raises(FloatingPointError) as expected:
                theirs(a, zero)
            with pytest.raises(FloatingPointError) as raised:
                ours(Data(a, zero))
            assert str(raised.value) == str(expected.value)
            close(ours(Data(a, zero + 1)), theirs(a, zero + 1))
        close(ours(Data(a, zero)), theirs(a, zero))
    assert ours.cache_info().currsize == 1


def test_checking_leaks_finds_none_of_ours(x):
    """One of the function is found, as test_jax_mistakes.py shows."""
    f = autojit.jit(lambda box, n: {"y": box.a * n, "box": box})
    outer = jax.jit(lambda x: f(Data(x), 2)["y"] + f(Data(x + 1), 2)["y"])
    with jax.checking_leaks():
        for _ in range(2):
            close(f(Data(x, [x]), 2)["y"], x * 2)
            close(outer(x), x * 4 + 2)
    close(f(Data(x), 2)["y"], x * 2)


def test_transfers_are_guarded(x):
    """What is no array is a constant of the program, which a guard lets pass."""
    array = np.arange(3.0, dtype=np.float32)
    ours = autojit.jit(lambda box, n: {"y": box.a * n + jnp.arange(3) + box.b})
    theirs = jax.jit(lambda a, b: a * 2 + jnp.arange(3) + b)
    expected = theirs(x, array)
    with jax.transfer_guard("disallow"):
        with pytest.raises(Exception, match="Disallowed host-to-device"):
            theirs(x, array)
        for _ in range(2):
            close(ours(Data(x, array), 2)["y"], expected)
            close(ours(Data(x, jax.device_put(array)), 2)["y"], expected)


def test_strict_promotion_is_refused_as_by_jax(x):
    n = jnp.arange(3)
    ours, theirs = autojit.jit(lambda box: box.a + box.b), jax.jit(lambda a, b: a + b)
    close(ours(Data(x, n)), theirs(x, n))
    with jax.numpy_dtype_promotion("strict"):
        with pytest.raises(Exception, match="promotion") as expected:
            theirs(x, n)
        with pytest.raises(type(expected.value), match="promotion"):
            ours(Data(x, n))
    close(ours(Data(x, n)), theirs(x, n))


def test_clear_caches_of_jax(x):
    traces = []

    def flat(x):
        traces.append(1)
        return x * 2

    ours, theirs = autojit.jit(lambda box, n: {"y": box.a * n}), jax.jit(flat)
    for _ in range(3):
        for _ in range(2):
            close(ours(Data(x), 2)["y"], theirs(x))
            close(jax.grad(lambda x: ours(Data(x), 2)["y"].sum())(x), x * 0 + 2)
            jax.grad(lambda x: theirs(x).sum())(x)
        assert ours.cache_info().traces == len(traces)
        jax.clear_caches()
    assert ours.cache_info().currsize == 1
    assert len(traces) >= 3


def test_clear_caches_of_jax_in_a_trace(x):
    @autojit.jit
    def f(box, n):
        jax.clear_caches()
        return g(box, n) + 1

    g = autojit.jit(lambda box, n: box.a * n)
    close(g(Data(x), 2), x * 2)
    for _ in range(2):
        close(f(Data(x), 2), x * 2 + 1)
        close(g(Data(x), 2), x * 2)


# Dispatchers in dispatchers.


def test_nested_dispatchers_pass_objects_to_one_another(w, x):
    @autojit.jit
    def inner(params, x, scale):
        return Data(params.layers["w"] @ x * scale, [params])

    @autojit.jit
    def outer(params, x):
        data = inner(params, x, 2.0)
        assert type(data) is Data
        assert data.b[0].layers["name"] == "dense"
        return data, inner(data.b[0], data.a, 3.0).a

    data, result = outer(make_params(w), x)
    close(data.a, w @ x * 2)
    close(data.b[0].bias, w[0])
    close(result, w @ (w @ x * 2) * 3)
    assert not any(isinstance(a, jax.core.Tracer) for a in walk_leaves(data))


def test_a_dispatcher_may_call_itself(x):
    @autojit.jit
    def power(x, n):
        return jnp.ones_like(x) if n == 0 else x * power(x, n - 1)

    for _ in range(2):
        close(power(x, 4), x**4)
        assert power.cache_info().currsize == power.cache_info().traces == 5


def test_a_dispatcher_may_be_an_argument_of_another(x):
    inner = autojit.jit(lambda x, n: x * n)
    outer = autojit.jit(lambda f, x: f(x, 2) + f(x, 3))
    for y in (x, x + 1):
        close(outer(inner, y), y * 5)
    assert outer.cache_info().traces == 1


def test_a_dispatcher_made_in_a_trace(x):
    @autojit.jit
    def outer(x, n):
        @autojit.jit
        def inner(box):
            return box.a * n

        return inner(Plain(a=x))

    close(outer(x, 3), x * 3)
    close(outer(x + 1, 3), (x + 1) * 3)
    close(outer(x, 4), x * 4)


def test_random_keys_in_objects(x):
    @autojit.jit
    def draw(state):
        state.key, key = jax.random.split(state.key)
        return jax.random.normal(key, (2,)), state

    key = jax.random.key(0)
    first, state = draw(Plain(key=key, n=1))
    second, _ = draw(state)
    new, sub = jax.random.split(key)
    close(first, jax.random.normal(sub, (2,)))
    close(second, jax.random.normal(jax.random.split(new)[1], (2,)))
