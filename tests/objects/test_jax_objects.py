"""JAX's own objects, and classes that JAX was told to take apart.

`JAX_KINDS` lists them for the tests of all kinds in all positions; here is what only
some of them do.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from graphs import equal_leaves
from jax.experimental import sparse
from jax.sharding import NamedSharding, PartitionSpec
from jax_kinds import (
    DISPATCHER,
    JITTED,
    REGISTERED,
    mesh,
    with_gradient,
    with_jvp,
    with_vjp,
    with_vmap,
)
from kinds import Plain, Slots, add
from numpy.testing import assert_array_equal

import autojit


@pytest.mark.parametrize(
    "function",
    [JITTED, DISPATCHER, with_jvp, with_vjp, with_gradient, with_vmap, jnp.sin],
    ids=lambda function: function.__name__,
)
def test_functions_with_rules_keep_them(function, x):
    """They are arguments, and are called and transformed in the function."""

    def f(function, x):
        if isinstance(function, type(with_vmap)):  # has no derivative
            return function(x), jax.vmap(function)(x)
        slope = jax.grad(lambda x: function(x).sum())
        return function(x), jax.vmap(function)(x), slope(x)

    jitted = autojit.jit(lambda obj, x: f(obj.function, x))
    for _ in range(2):
        results = jitted(Plain(function=function), x)
        for result, expected in zip(results, f(function, x), strict=True):
            np.testing.assert_allclose(result, expected, rtol=1e-6)
    assert jitted.cache_info().traces == 1


@pytest.mark.parametrize("cls", REGISTERED)
def test_a_registered_class_is_a_pytree_in_the_trace_and_after(cls, x):
    @autojit.jit
    def f(node):
        grads = jax.grad(lambda node: (node.a**2).sum())(node)
        return jax.tree.map(lambda a: a + 1, node), grads

    node = cls(x, "b")
    plus_one, grads = f(node)
    for result, expected in ((plus_one, x + 1), (grads, 2 * x)):
        assert type(result) is cls
        assert result.b == "b"
        assert_array_equal(result.a, expected)
        assert jax.tree.structure(result) == jax.tree.structure(node)
    f(cls(x + 1, "b"))
    assert f.cache_info().traces == 1


def test_typed_keys_draw_the_same_numbers():
    f = autojit.jit(lambda state: jax.random.normal(state.key, (2,)))
    # Another implementation is another dtype: for `jax.jit` to tell.
    keys = jax.random.key(0), jax.random.key(1), jax.random.key(0, impl="rbg")
    for key, traces in zip(keys, (1, 1, 2), strict=True):
        np.testing.assert_allclose(f(Plain(key=key)), jax.random.normal(key, (2,)))
        assert f.cache_info().traces == traces
    assert f.cache_info().currsize == 1


def test_keys_come_back():
    split = autojit.jit(lambda key: {"keys": jax.random.split(key), "same": key})
    key = jax.random.key(3)
    result = split(key)
    assert equal_leaves(result["keys"], jax.random.split(key))
    assert equal_leaves(result["same"], key)


PLACES_OF_REFS = {
    "argument": (lambda ref: ref, lambda arg: arg),
    "element": (lambda ref: [0, ref], lambda arg: arg[1]),
    "dict value": (lambda ref: {"a": {"b": ref}}, lambda arg: arg["a"]["b"]),
    "attribute": (lambda ref: Plain(ref=ref), lambda arg: arg.ref),
    "slot": (lambda ref: Slots(0, ref), lambda arg: arg.b),
    "partial": (lambda ref: jax.tree_util.Partial(add, ref), lambda arg: arg.args[0]),
}


@pytest.mark.parametrize(("put", "get"), PLACES_OF_REFS.values(), ids=PLACES_OF_REFS)
def test_a_ref_is_a_leaf_that_the_function_writes(put, get, x):
    """The one argument that is not copied: changing it is what it is for."""

    @autojit.jit
    def f(arg, y):
        ref = get(arg)
        assert isinstance(ref, jax.core.Tracer)
        ref[...] += y
        return ref[...] * 2

    for factor in (1, 2):
        ref = jax.new_ref(x)
        doubled = f(put(ref), x * factor)
        assert_array_equal(ref[...], x + x * factor)
        assert_array_equal(doubled, (x + x * factor) * 2)
    assert f.cache_info()[:4] == (1, 1, 1, 1)


@pytest.mark.parametrize("hide", [lambda r: lambda: r, lambda r: Plain(f=lambda: r).f])
def test_a_ref_in_a_closure_goes_by_identity(hide, x):
    """As in ``jax.jit``, the function writes to the very one that it captured."""

    @autojit.jit
    def f(function, y):
        function()[...] += y

    one, two = jax.new_ref(x), jax.new_ref(x)
    for ref, traces in ((one, 1), (one, 1), (two, 2)):
        f(hide(ref), x)
        assert f.cache_info().traces == traces
    assert_array_equal(one[...], x * 3)
    assert_array_equal(two[...], x * 2)


def test_a_ref_that_is_no_argument_is_as_in_jax_jit(x):
    """It lives as long as the trace."""

    def f(x):
        ref = jax.new_ref(x)
        ref[0] = 7.0
        return {"frozen": ref[...]}

    assert_array_equal(autojit.jit(f)(x)["frozen"], f(x)["frozen"])


def test_shardings_and_meshes_are_used_in_the_trace(x):
    @autojit.jit
    def f(x, placement):
        return jax.lax.with_sharding_constraint(x * 2, placement.sharding)

    for _ in range(3):
        sharding = NamedSharding(mesh(), PartitionSpec("i"))
        result = f(x, Plain(sharding=sharding))
        assert_array_equal(result, x * 2)
        assert result.sharding.is_equivalent_to(sharding, 1)
    # The mesh is the same one each time. In JAX 0.7 it keeps plain data that it has
    # computed in the first trace.
    assert f.cache_info().hits >= 1


def test_sparse_matrices_multiply(x):
    diagonal = jnp.array([[0, 0], [1, 1], [2, 2]])
    matrix = sparse.BCOO((x + 1, diagonal), shape=(3, 3))
    f = autojit.jit(lambda m, v: (m @ v, m * 2))
    for _ in range(2):
        product, twice = f(matrix, x)
        assert_array_equal(product, (x + 1) * x)
        assert type(twice) is sparse.BCOO
        assert_array_equal(twice.data, (x + 1) * 2)
        assert_array_equal(twice.indices, diagonal)
    assert f.cache_info().traces == 1


def test_a_structure_serves_to_build_a_tree_in_the_trace(x):
    f = autojit.jit(lambda structure, x: jax.tree.unflatten(structure, [x, x + 1]))
    for _ in range(2):
        tree = f(jax.tree.structure([0, {"a": 0}]), x)
        assert_array_equal(tree[1]["a"], x + 1)
    assert f.cache_info().traces == 1


def test_shape_structs_are_made_arrays_in_the_trace():
    def zeros(like):
        return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), like)

    like = jax.eval_shape(lambda: {"a": jnp.ones(3), "b": [jnp.ones((), jnp.int32)]})
    result = autojit.jit(zeros)(like)
    assert result["a"].shape == (3,)
    assert result["b"][0].dtype == jnp.int32


@pytest.mark.skipif(
    jax.__version_info__ < (0, 10),
    reason="JAX has hijax values from 0.10 on; the oldest that is supported is 0.7",
)
def test_a_hijax_value_is_a_leaf(x):
    f = autojit.jit(lambda held: held["v"][...] * 2)
    for y in (x, x + 1):
        variable = nnx.Variable(y, hijax=True)
        assert_array_equal(f({"v": variable}), 2 * y)
    assert f.cache_info().traces == 1
    assert autojit.flatten([variable])[0] == [variable]


def test_a_token_is_a_leaf(x):
    token = jax.lax.create_token()
    f = autojit.jit(lambda y: (y, token))
    for _ in range(2):
        y, returned = f(x)
        assert_array_equal(y, x)
        assert type(returned) is type(token)
    g = autojit.jit(lambda pair: pair)
    for _ in range(2):
        assert type(g((x, jax.lax.create_token()))[1]) is type(token)
    assert g.cache_info().traces == 1
