"""Arrays that a function returns untouched: the option `forward`."""

import collections
import functools
import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graphs import equal_leaves, same_graph
from jax import lax
from kinds import Data, Frozen, Plain, Point, Reduced, Slots
from numpy.testing import assert_array_equal

import autojit


def compiled_outputs(fun, *args):
    """Return how many outputs the compiled functions in a call have."""
    jaxpr = jax.make_jaxpr(lambda *args: jax.tree.leaves(fun(*args)))(*args)
    return [len(eqn.outvars) for eqn in jaxpr.eqns if "jaxpr" in eqn.params]


def equal(a, b):
    return same_graph(a, b, equal_leaves)


WITHOUT_FORWARD = pytest.mark.parametrize(
    "wrap",
    [functools.partial(autojit.jit, forward=False), autojit.jax_autojit],
    ids=["forward=False", "jax_autojit"],
)


# Functions of two arrays, and which results are which arguments.

RETURNED = {
    "itself": (lambda x, y: x, lambda r: {0: r}),
    "in a tuple": (lambda x, y: (x + 1, x), lambda r: {0: r[1]}),
    "in a list": (lambda x, y: [y, 1, x], lambda r: {1: r[0], 0: r[2]}),
    "in a dict": (lambda x, y: {"a": x, "b": x * 2}, lambda r: {0: r["a"]}),
    "in an instance": (lambda x, y: Plain(a=x, b=y * x), lambda r: {0: r.a}),
    "in a slot": (lambda x, y: Slots(x * y, y), lambda r: {1: r.b}),
    "in a dataclass": (lambda x, y: Data(x, [y]), lambda r: {0: r.a, 1: r.b[0]}),
    "in a frozen dataclass": (lambda x, y: Frozen(x, x + y), lambda r: {0: r.a}),
    "in a namedtuple": (lambda x, y: Point(y, x + y), lambda r: {1: r.a}),
    "in a reduction": (lambda x, y: Reduced(x, [y]), lambda r: {0: r.a, 1: r.b[0]}),
    "in a partial": (
        lambda x, y: functools.partial(max, x, key=y + 1),
        lambda r: {0: r.args[0]},
    ),
    "deep": (
        lambda x, y: [{"a": (Plain(b=[x, x + y]),)}, None],
        lambda r: {0: r[0]["a"][0].b[0]},
    ),
    "in a deque": (lambda x, y: collections.deque([x + y, y]), lambda r: {1: r[1]}),
    "in an iterator": (lambda x, y: [iter([y])], lambda r: {1: next(r[0])}),
    "as the second item of a generator": (
        lambda x, y: (a for a in (x + y, y)),
        lambda r: {1: list(r)[1]},
    ),
}


@pytest.mark.parametrize(("fun", "find"), RETURNED.values(), ids=RETURNED)
def test_an_untouched_array_is_the_object_that_came_in(x, fun, find):
    f = autojit.jit(fun)
    for args in [(x, x + 1), (x + 2, x + 3), (x, x)]:
        for _ in range(2):
            for i, array in find(f(*args)).items():
                assert array is args[i]
            assert equal(settled(f(*args)), settled(fun(*args)))
    assert f.cache_info().traces == 1


def settled(obj):
    """Return iterators and partials as lists, to be compared."""
    if hasattr(obj, "__next__"):
        return list(obj)
    if isinstance(obj, list):
        return [settled(item) for item in obj]
    if isinstance(obj, functools.partial):
        return [obj.args, obj.keywords]
    return obj


@pytest.mark.parametrize(("fun", "find"), RETURNED.values(), ids=RETURNED)
@WITHOUT_FORWARD
def test_without_forward_each_array_is_new(x, fun, find, wrap):
    f = wrap(fun)
    for args in [(x, x + 1), (x + 2, x + 3), (x, x)]:
        for i, array in find(f(*args)).items():
            assert array is not args[0]
            assert array is not args[1]
            assert_array_equal(array, args[i])
    assert f.cache_info().traces == 1


def test_forward_is_the_default(x):
    assert autojit.jit(lambda x: x)(x) is x
    assert autojit.jit()(lambda x: x)(x) is x
    assert autojit.jit(lambda x: x, forward=True)(x) is x
    assert autojit.jit(forward=False)(lambda x: x)(x) is not x


def test_an_array_that_is_returned_twice(x):
    f = autojit.jit(lambda x: [x, {"again": x}, x + 1, x])
    for y in (x, x + 1):
        first, second, more, third = f(y)
        assert first is second["again"] is third is y
        assert_array_equal(more, y + 1)
    assert compiled_outputs(f, x) == [1]


def test_two_leaves_that_are_one_array(x):
    f = autojit.jit(lambda a, b: [b[0], a, a + b[0]])
    for a, b in [(x, x), (x, x + 1), (x + 1, x)]:
        result = f(a, [b])
        assert result[0] is b
        assert result[1] is a
        assert_array_equal(result[2], a + b)


def test_the_right_array_of_many_comes_back():
    arrays = [jnp.full((), float(i)) for i in range(20)]

    @autojit.jit
    def f(tree):
        a = tree["a"]
        return [a[3], a[3] + 1, a[17], a[0], a[2] * 2, {"k": a[11]}, a[3]]

    for shift in (0, 5):
        moved = arrays[shift:] + arrays[:shift]
        result = f({"a": moved})
        assert result[0] is result[6] is moved[3]
        assert result[2] is moved[17]
        assert result[3] is moved[0]
        assert result[5]["k"] is moved[11]
        assert_array_equal(result[1], moved[3] + 1)
        assert_array_equal(result[4], moved[2] * 2)
    assert compiled_outputs(f, {"a": arrays}) == [2]


def test_what_is_forwarded_is_no_output_of_the_compiled_function(x):
    def fun(x, y):
        return {"x": x, "sum": x + y, "y": [y]}

    assert compiled_outputs(autojit.jit(fun), x, x) == [1]
    assert compiled_outputs(autojit.jit(fun, forward=False), x, x) == [3]
    assert compiled_outputs(autojit.jax_autojit(fun), x, x) == [3]
    assert sum(compiled_outputs(autojit.jit(lambda x, n: (x, n)), x, 2)) == 0


def test_which_arrays_are_untouched_is_what_the_trace_says(x):
    """Some functions of JAX return their argument."""
    seen = []

    @autojit.jit
    def f(x):
        results = [
            jnp.asarray(x),
            jnp.atleast_1d(x),
            x.astype(x.dtype),
            x.reshape(3),
            jnp.broadcast_to(x, (3,)),
            lax.stop_gradient(x),
            x[...],
            x.T,
            x + 0,
            (x * 2) / 2,
            jnp.copy(x),
        ]
        seen.append([result is x for result in results])
        return results

    for y in (x, x + 1):
        results = f(y)
        assert [result is y for result in results] == seen[0]
        for result in results:
            assert_array_equal(result, y)
    assert len(seen) == 1
    assert seen[0][0]
    assert seen[0][-3:] == [False] * 3


def test_what_a_forwarded_array_is_stays_as_it_is():
    f = autojit.jit(lambda x: [x])
    arrays = [
        jnp.asarray(1.0),  # of a weak type
        jnp.ones((), "int8"),
        jnp.zeros((0, 3)),
        jax.device_put(jnp.ones(2), jax.devices()[0]),
        jnp.ones(2, bool),
        jnp.ones(2, "complex64"),
        jnp.ones(2, "bfloat16"),
    ]
    for array in arrays * 2:
        assert f(array)[0] is array
    assert f.cache_info().currsize == 1


def test_random_keys(x):
    keys = jax.random.split(jax.random.key(0), 3)
    f = autojit.jit(lambda key, of: {"key": key, "other": of(key)})
    for key, of in [
        (jax.random.key(0), lambda key: jax.random.fold_in(key, 1)),
        (jax.random.key(1), lambda key: jax.random.fold_in(key, 1)),
        (keys, lambda keys: keys[0]),
    ]:
        result = f(key, of)
        assert result["key"] is key
        assert_same_keys(result["other"], of(key))
        copy = autojit.jit(lambda key: [key], forward=False)(key)[0]
        assert copy is not key
        assert_same_keys(copy, key)


def assert_same_keys(one, other):
    assert one.dtype == other.dtype
    assert_array_equal(jax.random.key_data(one), jax.random.key_data(other))


def test_a_reference(x):
    ref = jax.new_ref(x)

    @autojit.jit
    def f(ref, y):
        ref[...] += y
        return {"ref": ref, "value": ref[...]}

    for i in range(1, 4):
        result = f(ref, x)
        assert result["ref"] is ref
        assert_array_equal(result["value"], x * (i + 1))
        assert_array_equal(ref[...], x * (i + 1))
    assert f.cache_info().traces == 1


@WITHOUT_FORWARD
def test_a_reference_without_forward_is_the_error_of_jax(x, wrap):
    # Which error it is, JAX says: ours is compared with it.
    with pytest.raises(Exception) as expected:  # noqa: PT011
        jax.jit(lambda ref: [ref])(jax.new_ref(x))
    with pytest.raises(expected.type, match="mutable array reference"):
        wrap(lambda ref: [ref])(jax.new_ref(x))


# One specialization, several shapes.


def touched_by_shape(x, y):
    """Return `x` untouched unless it has three items, and the other way round `y`."""
    if x.shape == (3,):
        return {"x": x * 2, "y": y}
    return {"x": x, "y": y + 1}


@pytest.mark.parametrize("order", [(3, 4), (4, 3), (3, 4, 5, 3, 4), (5, 4, 3, 5)])
@pytest.mark.parametrize("forward", [True, False])
def test_touched_in_one_shape_and_not_in_another(order, forward):
    f = autojit.jit(touched_by_shape, forward=forward)
    f.clear_cache()
    for n in order * 2:
        x, y = jnp.ones(n), jnp.zeros(2)
        result = f(x, y)
        assert equal(result, touched_by_shape(x, y))
        assert (result["x"] is x) is (forward and n != 3)
        assert (result["y"] is y) is (forward and n == 3)
    assert f.cache_info().currsize == 1
    assert f.cache_info().traces == len(set(order))


def test_touched_in_one_dtype_and_not_in_another():
    f = autojit.jit(lambda x: [x if x.dtype == jnp.float32 else x.astype("float32")])
    for dtype in ("float32", "int32", "float32", "int32", "bfloat16"):
        x = jnp.ones(2, dtype)
        (result,) = f(x)
        assert (result is x) is (dtype == "float32")
        assert result.dtype == jnp.float32
    assert f.cache_info().currsize == 1


def test_another_number_of_results_in_another_shape():
    f = autojit.jit(lambda x: [x] * x.shape[0] + [x + 1] * x.ndim)
    for shape in [(2,), (3,), (1, 1), (2,), (3,)]:
        x = jnp.ones(shape)
        result = f(x)
        assert [array is x for array in result] == (
            [True] * shape[0] + [False] * len(shape)
        )
        assert_array_equal(result[-1], x + 1)


def test_results_swap_in_another_shape():
    f = autojit.jit(lambda x, y: [x, y] if x.ndim else [y, x])
    x, y = jnp.ones(()), jnp.ones(2)
    for _ in range(2):
        for a, b in [(x, y), (y, x), (x, x), (y, y)]:
            first, second = f(a, b)
            assert first is (a if a.ndim else b)
            assert second is (b if a.ndim else a)


def test_under_x64_and_not():
    f = autojit.jit(lambda x: {"x": x, "float": x.astype(float)})
    x = jnp.ones(2, "float32")
    try:
        for x64 in (False, True, False, True):
            jax.config.update("jax_enable_x64", x64)
            result = f(x)
            assert result["x"] is x
            assert result["float"].dtype == ("float64" if x64 else "float32")
    finally:
        jax.config.update("jax_enable_x64", False)
    assert f.cache_info().currsize == 1


def test_after_clear_cache(x):
    f = autojit.jit(lambda x: [x, x + 1])
    for _ in range(3):
        assert f(x)[0] is x
        f.clear_cache()
    jax.clear_caches()
    assert f(x)[0] is x
    jax.clear_caches()
    assert f(x)[0] is x


def test_under_disable_jit(x):
    for forward in (True, False):
        f = autojit.jit(lambda x: [x, x + 1], forward=forward)
        f(x)
        with jax.disable_jit():
            assert f(x)[0] is x
        assert (f(x)[0] is x) is forward


# Effects happen, even if nothing is computed.


def test_an_effect_in_a_call_that_only_forwards(x):
    calls = []

    @autojit.jit
    def f(x):
        jax.debug.callback(lambda a: calls.append(a.tolist()), x)
        return x

    for i in range(3):
        y = x + i
        assert f(y) is y
    jax.effects_barrier()
    assert calls == [[0.0, 1.0, 2.0], [1.0, 2.0, 3.0], [2.0, 3.0, 4.0]]


def test_a_reference_is_written_in_a_call_that_only_forwards(x):
    ref = jax.new_ref(x)

    @autojit.jit
    def f(ref, y):
        ref[...] = y
        return y

    for y in (x + 1, x + 2):
        assert f(ref, y) is y
        assert_array_equal(ref[...], y)


# Inside of transformations, and around them.


def assert_close(a, b):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), a, b)


def body(x, y):
    return {"x": x, "product": x * y, "y": [y, y]}


def total(result):
    return (result["x"] * 2 + result["product"] + result["y"][0] * result["y"][1]).sum()


TRANSFORMATIONS = {
    "jit": jax.jit,
    "grad": jax.grad,
    "grad of both": lambda f: jax.grad(f, argnums=(0, 1)),
    "value_and_grad": jax.value_and_grad,
    "jit of grad": lambda f: jax.jit(jax.grad(f)),
    "jacfwd": lambda f: jax.jacfwd(f, argnums=1),
    "jacrev": jax.jacrev,
    "hessian": jax.hessian,
    "vmap": lambda f: lambda x, y: jax.vmap(f)(x[:, None], y[:, None]),
    "vmap of one": lambda f: lambda x, y: jax.vmap(f, (0, None))(x[:, None], y),
    "vmap of grad": lambda f: (
        lambda x, y: jax.vmap(jax.grad(f))(x[:, None], y[:, None])
    ),
    "checkpoint": lambda f: jax.grad(jax.checkpoint(f)),
    "jvp": lambda f: lambda x, y: jax.jvp(f, (x, y), (y, x)),
    "linearize": lambda f: lambda x, y: jax.linearize(f, x, y)[1](x, x),
    "vjp": lambda f: lambda x, y: jax.vjp(f, x, y)[1](jnp.ones(())),
    "scan": lambda f: (
        lambda x, y: lax.scan(lambda c, r: (c + f(r, y), c), 0.0, jnp.stack([x, y]))
    ),
    "while_loop": lambda f: (
        lambda x, y: lax.while_loop(lambda t: t < 9.0, lambda t: t + f(x, y) + 1, 0.0)
    ),
    "cond": lambda f: (
        lambda x, y: lax.cond(x.sum() > 0, lambda: f(x, y), lambda: f(y, x))
    ),
}


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("transform", TRANSFORMATIONS.values(), ids=TRANSFORMATIONS)
def test_forwarding_in_a_transformation(x, transform, forward):
    f = autojit.jit(body, forward=forward)
    expected = transform(lambda x, y: total(body(x, y)))(x, x + 1)
    for _ in range(2):
        result = transform(lambda x, y: total(f(x, y)))(x, x + 1)
        assert_close(result, expected)


@pytest.mark.parametrize("transform", TRANSFORMATIONS.values(), ids=TRANSFORMATIONS)
def test_a_transformation_in_a_function_that_forwards(x, transform):
    f = autojit.jit(lambda x, y: (y, transform(lambda x, y: total(body(x, y)))(x, y)))
    expected = transform(lambda x, y: total(body(x, y)))(x, x + 1)
    for _ in range(2):
        y = x + 1
        same, result = f(x, y)
        assert same is y
        assert_close(result, expected)


TRACED = {
    "jit": jax.jit,
    "vmap": jax.vmap,
    "grad": lambda f: jax.grad(lambda x: f(x).sum()),
    "jvp": lambda f: lambda x: jax.jvp(f, (x,), (x,)),
    "scan": lambda f: lambda x: lax.scan(lambda c, r: (c, f(r)), 0, x),
    "checkpoint": jax.checkpoint,
    "make_jaxpr": jax.make_jaxpr,
    "eval_shape": lambda f: lambda x: jax.eval_shape(f, x),
    "dispatcher": autojit.jit,
}


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("transform", TRACED.values(), ids=TRACED)
def test_a_tracer_is_forwarded_as_an_array_is(x, transform, forward):
    f = autojit.jit(lambda x: [x, x + 1], forward=forward)
    same = []

    def outer(x):
        same.append(f(x)[0] is x)
        return f(x)[0] * 2

    transform(outer)(x)
    assert same
    assert all(is_same is forward for is_same in same)


def test_a_dispatcher_in_a_dispatcher_forwards_to_the_outermost_caller(x):
    inner = autojit.jit(lambda tree: {"again": tree["x"], "more": tree["x"] + 1})
    outer = autojit.jit(lambda x: [inner({"x": x})["again"], inner({"x": x})["more"]])
    for y in (x, x + 1):
        assert outer(y)[0] is y
        assert_array_equal(outer(y)[1], y + 1)


def test_a_transformed_dispatcher_is_that_of_jax(x):
    f = autojit.jit(lambda x: x)
    assert_array_equal(jax.vmap(f)(x), x)
    assert_array_equal(jax.jit(f)(x), x)
    assert_array_equal(jax.jacobian(f)(x), jnp.eye(3))
    assert jax.eval_shape(f, x).shape == (3,)
    out, tangent = jax.jvp(f, (x,), (x + 1,))
    assert_array_equal(out, x)
    assert_array_equal(tangent, x + 1)
    assert_array_equal(jax.grad(lambda x: (f(x) ** 2).sum())(x), 2 * x)
    assert_array_equal(jax.vmap(lambda x, y: f(y), (0, None))(x, x[0]), jnp.zeros(3))


def test_custom_rules_around_a_dispatcher(x):
    f = autojit.jit(lambda x: (x, {"residual": x}))

    @jax.custom_vjp
    def g(x):
        return f(x)[0] * 2

    g.defvjp(lambda x: (g(x), f(x)[1]["residual"]), lambda r, ct: (ct * r * 10,))
    assert_array_equal(jax.grad(lambda x: g(x).sum())(x), x * 10)
    assert_array_equal(g(x), x * 2)


# What is kept alive.


def test_a_forwarded_array_is_not_kept(x):
    f = autojit.jit(lambda x: [x, x + 1])
    y = x + 1
    for _ in range(3):
        result = f(y)
    gone = weakref.ref(y)
    assert result[0] is y
    del y, result
    gc.collect()
    assert gone() is None


def test_arguments_are_copied_nevertheless(x):
    f = autojit.jit(lambda tree: tree)
    tree = {"x": x, "l": [x, 1]}
    result = f(tree)
    assert result is not tree
    assert result["l"] is not tree["l"]
    assert result["x"] is tree["x"]
    result["l"].append(2)
    assert len(f(tree)["l"]) == 2


def test_what_a_function_holds_is_a_constant_and_no_argument(x):
    """A captured array is no leaf: what comes back is a result like any other."""
    f = autojit.jit(lambda x: (w, x))
    w = x + 5
    captured, same = f(x)
    assert_array_equal(captured, w)
    assert same is x


# Donated arrays never come back as themselves. More is in test_donation.py.


@pytest.mark.parametrize("forward", [True, False])
def test_a_donated_array_is_not_forwarded(x, forward):
    f = autojit.jit(
        lambda state, y: [state, y, state.w + y],
        donate_argnames="state",
        forward=forward,
    )
    for _ in range(2):
        a, b = x + 1, x + 2
        state, y, total = f(Plain(w=a, layers=[x + 3, "name"]), b)
        assert state.w is not a
        assert (y is b) is forward
        assert not b.is_deleted()
        assert_array_equal(state.w, x + 1)
        assert_array_equal(state.layers[0], x + 3)
        assert_array_equal(total, 2 * x + 3)
