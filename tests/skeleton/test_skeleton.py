"""The skeleton as an object, and what `flatten` takes besides arrays."""

import functools
import pickle

import cloudpickle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graphs import same_graph
from kinds import (
    Color,
    Data,
    FrozenSlotData,
    Opaque,
    OpaqueUnhashable,
    Plain,
    Point,
    Reduced,
    Slots,
    double,
)

import autojit
from autojit import _core


def tree(x):
    shared = [x, 1.5]
    shared.append({"me": shared, (1, "k"): Plain(a=x, b=Slots(None, True))})
    return Data((shared, shared), FrozenSlotData(np.arange(3), Point(Color.RED, 2)))


def test_flatten_returns_a_list_and_a_skeleton_that_equals_nothing_else(x):
    leaves, skeleton = autojit.flatten([x, 1])
    assert type(leaves) is list
    assert type(skeleton) is autojit.Skeleton
    for other in (None, 1, [x, 1], "skeleton", object()):
        assert skeleton != other
        assert (skeleton == other) is False


def test_a_skeleton_can_be_a_key(x):
    table = {autojit.flatten(tree(x))[1]: "found"}
    assert table[autojit.flatten(tree(x + 1))[1]] == "found"
    assert autojit.flatten([tree(x)])[1] not in table


def test_a_skeleton_of_unhashable_opaque_objects_has_a_hash():
    obj = OpaqueUnhashable()
    one, two, other = (
        autojit.flatten([each])[1] for each in (obj, obj, OpaqueUnhashable())
    )
    assert hash(one) == hash(two)
    assert one == two
    assert one != other


def test_skeletons_of_two_leaf_types_differ_where_their_holes_do(x):
    obj = [1, x]
    assert autojit.flatten(obj, int)[1] != autojit.flatten(obj)[1]


def test_skeletons_do_not_order(x):
    _, skeleton = autojit.flatten([x])
    with pytest.raises(TypeError):
        skeleton < skeleton  # noqa: B015  (what counts is that it raises)


def test_the_repr_of_a_skeleton_shows_its_content(x):
    _, skeleton = autojit.flatten({"width": 12345, "inner": Plain(name="fred", a=x)})
    text = repr(skeleton)
    for part in ("width", "12345", "inner", "Plain", "name", "fred"):
        assert part in text


def test_the_repr_of_a_cyclic_skeleton_ends(x):
    _, skeleton = autojit.flatten(tree(x))
    assert len(repr(skeleton)) < 10_000


def test_the_repr_survives_an_object_whose_repr_raises():
    class Unprintable(Opaque):
        def __repr__(self):
            raise ValueError("no repr")

    _, skeleton = autojit.flatten([Unprintable(), 1])
    assert repr(skeleton) == "Skeleton([<Unprintable>, 1])"


@pytest.mark.parametrize("pickler", [pickle, cloudpickle], ids=lambda p: p.__name__)
@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
def test_a_skeleton_can_be_pickled(x, pickler, protocol):
    leaves, skeleton = autojit.flatten([tree(x), double, int, 0.0, -0.0])
    copy = pickle.loads(pickler.dumps(skeleton, protocol=protocol))
    assert type(copy) is autojit.Skeleton
    assert copy == skeleton
    assert hash(copy) == hash(skeleton)
    assert same_graph(copy.unflatten(leaves), skeleton.unflatten(leaves))


def test_a_skeleton_with_a_lambda_needs_cloudpickle(x):
    _, skeleton = autojit.flatten([x, lambda: 42, np])
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        pickle.dumps(skeleton)
    copy = pickle.loads(cloudpickle.dumps(skeleton))
    assert copy.unflatten([x])[1]() == 42


def test_a_skeleton_with_an_opaque_object_cannot_be_pickled(x):
    _, skeleton = autojit.flatten([x, Opaque()])
    with pytest.raises((TypeError, pickle.PicklingError)):
        pickle.dumps(skeleton)
    assert isinstance(skeleton.unflatten([x])[1], Opaque)


def test_unflatten_needs_the_right_number_of_leaves(x):
    _, skeleton = autojit.flatten([x, [x, 1]])
    for leaves in ([], [x], [x, x, x], iter([x])):
        with pytest.raises(ValueError, match="leaves"):
            skeleton.unflatten(leaves)
    assert same_graph(skeleton.unflatten([x, x]), [x, [x, 1]])


@pytest.mark.parametrize("leaves", [None, 3])
def test_unflatten_of_what_is_not_iterable_is_a_type_error(x, leaves):
    _, skeleton = autojit.flatten([x])
    with pytest.raises(TypeError):
        skeleton.unflatten(leaves)


def test_unflatten_propagates_an_error_of_the_iterable(x):
    def broken():
        yield x
        raise KeyError("from the iterable")

    _, skeleton = autojit.flatten([x, x])
    with pytest.raises(KeyError, match="from the iterable"):
        skeleton.unflatten(broken())


@pytest.mark.parametrize("leaf_type", [3, "int", None, (int, "str"), [int]], ids=repr)
def test_a_leaf_type_that_is_no_class_is_a_type_error(leaf_type):
    with pytest.raises(TypeError):
        autojit.flatten([1], leaf_type)


@pytest.mark.parametrize(
    ("obj", "leaf_type", "expected", "others", "rebuilt"),
    [
        (["text", 7], int, [7], [8], ["text", 8]),
        ([1, "a"], (), [], [], [1, "a"]),
        ({"a": 1, (2, "b"): 3}, int, [1, 2, 3], [4, 5, 6], {"a": 4, (5, "b"): 6}),
    ],
    ids=["int", "no type", "keys of a dict"],
)
def test_leaves_are_of_the_leaf_type(obj, leaf_type, expected, others, rebuilt):
    leaves, skeleton = autojit.flatten(obj, leaf_type=leaf_type)
    assert leaves == expected
    assert skeleton.unflatten(others) == rebuilt


def test_tracers_are_leaves():
    def f(x):
        leaves, skeleton = autojit.flatten(Plain(a=x, b=[x * 2]))
        assert len(leaves) == 2
        assert leaves[0] is x
        return skeleton.unflatten([leaf + 1 for leaf in leaves]).b[0]

    np.testing.assert_array_equal(jax.jit(f)(jnp.ones(2)), [3.0, 3.0])


def test_a_reduction_that_makes_leaves_gives_these(x):
    leaves, skeleton = autojit.flatten(Reduced(x, "b"))
    assert len(leaves) == 1
    assert skeleton.unflatten(["swapped"]).a == "swapped"


def test_what_a_result_gets_from_its_call_counts(x):
    def fn(y):
        return y

    _, call = autojit.flatten((x, fn))
    leaf, function, both = (
        _core.flatten_result(result, call, (x,)).skeleton
        for result in ([x], [fn], [fn, x])
    )
    assert leaf != function
    assert leaf == _core.flatten_result([x], call, (x,)).skeleton
    assert repr(function) == "Skeleton([*])"
    assert repr(both) == "Skeleton([*, *])"


def test_the_path_to_what_sets_a_state():
    def reduce(obj, protocol):
        setter = functools.partial(set, key=["leaf"])
        return Plain, (), {"a": 1}, None, None, setter

    made = type("Made", (), {"__reduce_ex__": reduce})()
    _, skeleton = autojit.flatten([made], str)
    assert skeleton._leaf_path(2) == "obj[0].__reduce_ex__()[5].keywords[...][0]"


def test_a_skeleton_is_an_argument_like_others(x):
    _, skeleton = autojit.flatten({"w": x, "n": 1})
    f = autojit.jit(lambda skeleton, x: skeleton.unflatten([x]))
    for _ in range(2):
        assert f(skeleton, x)["n"] == 1
    assert f.cache_info().traces == 1
    other = autojit.flatten({"w": x, "n": 2})[1]
    assert f(other, x)["n"] == 2
