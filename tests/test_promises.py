"""The promises of the reference, asked of each implementation by the same tests."""

import collections
import inspect
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graphs import equal_leaves, identical_leaves, same_graph, walk_leaves
from kinds import (
    Color,
    Data,
    Frozen,
    FrozenSlotData,
    Matmul,
    Opaque,
    OpaqueUnhashable,
    Plain,
    Point,
    Reduced,
    ReducedEx,
    Slots,
    SlotsAndDict,
    double,
)


def is_tracer(obj):
    return isinstance(obj, jax.core.Tracer)


# Promise 1: Python scalars, in and out, stay Python scalars.


@pytest.mark.parametrize("scalar", [True, 3, -(2**80), 1.5, 2 - 1j], ids=repr)
def test_scalar_arrives_as_itself(autojit_like, x, scalar):
    seen = []

    def f(x, scalar):
        seen.append(scalar)
        return x + 1

    autojit_like(f)(x, scalar)
    assert [(type(s), s) for s in seen] == [(type(scalar), scalar)]


@pytest.mark.parametrize("scalar", [True, 3, -(2**80), 1.5, 2 - 1j], ids=repr)
def test_scalar_result_stays_a_scalar(autojit_like, x, scalar):
    def f(x, scalar):
        return scalar, [x, scalar]

    first, (array, second) = autojit_like(f)(x, scalar)
    assert (type(first), first) == (type(second), second) == (type(scalar), scalar)
    assert isinstance(array, jax.Array)


def test_scalar_can_steer_python_control_flow(autojit_like, x):
    def f(x, y, plus):
        if plus:
            return x + y
        return x - y

    g = autojit_like(f)
    np.testing.assert_array_equal(g(x, 2.0, True), x + 2.0)
    np.testing.assert_array_equal(g(x, 2.0, False), x - 2.0)
    np.testing.assert_array_equal(g(x, 3.0, plus=False), x - 3.0)


def test_scalar_does_not_change_the_dtype_of_an_array(autojit_like):
    g = autojit_like(lambda x, y: x * y)
    assert g(jnp.ones(2, jnp.float16), 2.0).dtype == jnp.float16
    assert g(jnp.ones(2, jnp.int8), 2).dtype == jnp.int8


def test_function_without_arrays_returns_python_objects(autojit_like):
    result = autojit_like(lambda a, b: {"sum": a + b})(1, 2)
    assert result == {"sum": 3}
    assert type(result["sum"]) is int


def test_function_that_returns_nothing_returns_none(autojit_like, x):
    assert autojit_like(lambda x: None)(x) is None


# Promise 2: every argument that is not an array is static, hashable or not.


@pytest.mark.parametrize(
    "static",
    [
        None,
        "text",
        b"bytes",
        [1, 2],
        {"a": 1},
        {1, 2},
        np.float32(2),
        np.dtype("int16"),
        slice(1, 2),
        range(3),
        bytearray(b"ab"),
        Color.RED,
        Plain,
        np,
        double,
    ],
    ids=lambda static: type(static).__name__,
)
def test_static_argument_is_not_traced(autojit_like, x, static):
    traces = []

    def f(x, static, *, again):
        traces.append((static, again))
        return x * 2

    g = autojit_like(f)
    for _ in range(2):
        np.testing.assert_array_equal(g(x, static, again=static), x * 2)
    assert len(traces) == 1
    assert same_graph(traces[0][0], static)
    assert same_graph(traces[0][1], static)


def test_another_static_argument_is_another_trace(autojit_like, x):
    traces = []

    def f(x, factors):
        traces.append(list(factors))
        return x * factors[0] + factors[1]

    g = autojit_like(f)
    np.testing.assert_array_equal(g(x, [2.0, 1.0]), x * 2 + 1)
    np.testing.assert_array_equal(g(x, [2.0, 3.0]), x * 2 + 3)
    np.testing.assert_array_equal(g(x, [2.0, 1.0]), x * 2 + 1)
    assert traces == [[2.0, 1.0], [2.0, 3.0]]


def test_a_new_shape_or_dtype_is_a_new_trace(autojit_like):
    shapes = []

    def f(x):
        shapes.append((x.shape, x.dtype.name))
        return x + 1

    g = autojit_like(f)
    for shape, dtype in [((2,), "float32"), ((3,), "float32"), ((3,), "int32")] * 2:
        assert g(jnp.zeros(shape, dtype)).shape == shape
    assert shapes == [((2,), "float32"), ((3,), "float32"), ((3,), "int32")]


# Promise 3: arguments and results may be any object.
# Promises 4 and 5: arrays are found inside of any argument and any result.


def object_array(*items):
    array = np.empty(len(items), dtype=object)
    for i, item in enumerate(items):
        array[i] = item
    return array


CONTAINERS = {
    "tuple": lambda x: (x, 1),
    "empty tuple": lambda x: ((), x),
    "list": lambda x: [x, "a", x + 1],
    "dict": lambda x: {"a": x, 2: [x]},
    "namedtuple": lambda x: Point(x, 2),
    "deque": lambda x: collections.deque([x, 1], maxlen=4),
    "OrderedDict": lambda x: collections.OrderedDict(b=x, a=1),
    "defaultdict": lambda x: collections.defaultdict(list, a=x),
    "instance": lambda x: Plain(array=x, name="n"),
    "instance in instance": lambda x: Plain(inner=Plain(array=x), array=x),
    "slots": lambda x: Slots(x, 3),
    "slots and dict": lambda x: SlotsAndDict(1, x, c=x, d="d"),
    "dataclass": lambda x: Data(x, [x, 2.5]),
    "frozen dataclass": lambda x: Frozen(x, "b"),
    "frozen slotted dataclass": lambda x: FrozenSlotData((x,), None),
    "reduce": lambda x: Reduced(x, {"k": x}),
    "reduce_ex": lambda x: ReducedEx(x),
    "callable instance": lambda x: Matmul(x, 2),
    "bound method": lambda x: Plain(factor=x).scaled,
    "instance as dict key": lambda x: {Plain(array=x): 1},
    "instance in set": lambda x: {Plain(array=x), 1},
    "object array": lambda x: object_array(x, None, "s"),
    "all of it": lambda x: [{"a": (x, Plain(b=[Slots(x, Data(x, 1.0))]))}],
}


@pytest.fixture(params=CONTAINERS.values(), ids=CONTAINERS)
def make(request):
    return request.param


def test_arrays_inside_an_argument_are_traced(autojit_like, x, make):
    seen = []

    def f(tree):
        seen.append(tree)
        return sum(leaf.sum() for leaf in walk_leaves(tree))

    tree = make(x)
    result = autojit_like(f)(tree)
    assert same_graph(seen[0], tree)
    assert walk_leaves(seen[0])
    assert all(is_tracer(leaf) for leaf in walk_leaves(seen[0]))
    expected = sum(leaf.sum() for leaf in walk_leaves(tree))
    np.testing.assert_allclose(result, expected)


def test_arrays_inside_a_keyword_argument_are_traced(autojit_like, x, make):
    def f(*, tree):
        assert all(is_tracer(leaf) for leaf in walk_leaves(tree))
        return [leaf * 2 for leaf in walk_leaves(tree)]

    tree = make(x)
    result = autojit_like(f)(tree=tree)
    assert same_graph(result, [leaf * 2 for leaf in walk_leaves(tree)], equal_leaves)


def test_arrays_inside_a_result_are_concrete(autojit_like, x, make):
    result = autojit_like(lambda x: make(x * 2))(x)
    assert same_graph(result, make(x * 2), equal_leaves)
    assert not any(is_tracer(leaf) for leaf in walk_leaves(result))


def test_an_argument_can_be_returned(autojit_like, x, make):
    tree = make(x)
    result = autojit_like(lambda tree: [tree])(tree)
    assert same_graph(result, [tree], equal_leaves)


def test_new_arrays_in_equal_containers_do_not_retrace(autojit_like, x):
    traces = []

    def f(tree):
        traces.append(1)
        return tree.inner["w"] * tree.factor

    g = autojit_like(f)
    for i in range(3):
        tree = Plain(inner={"w": x + i}, factor=2)
        np.testing.assert_array_equal(g(tree), (x + i) * 2)
    assert len(traces) == 1


def test_numpy_array_is_static_and_not_traced(autojit_like, x):
    def f(x, a):
        assert type(a) is np.ndarray
        return x + a, a

    total, back = autojit_like(f)(x, np.arange(3.0, dtype=np.float32))
    assert isinstance(total, jax.Array)
    assert type(back) is np.ndarray
    np.testing.assert_array_equal(back, np.arange(3.0))


# Results in which each array is another one, so that none can take another's place.
RESULTS = {
    "dict": lambda x: {"z": x, "a": x + 1, "m": {"y": x + 2, "b": x + 3}},
    "dict with mixed keys": lambda x: {"b": x, 1: x + 1, (2,): x + 2, None: x + 3},
    "None beside arrays": lambda x: [None, x, (None, x + 1)],
    "scalars beside arrays": lambda x: [1, x, (2.0, x + 1), "s"],
    "sharing": lambda x: (lambda shared: [shared, {"a": shared}])([x, x + 1]),
    "instances": lambda x: Plain(z=x, a=Slots(x + 1, x + 2), m=Data(x + 3, None)),
    "namedtuple": lambda x: Point({"b": x, "a": x + 1}, [x + 2]),
    "dicts in instances": lambda x: Plain(d={"z": x, "a": x + 1}),
    "OrderedDict": lambda x: collections.OrderedDict(z=x, a=x + 1),
    "defaultdict": lambda x: collections.defaultdict(int, z=x, a=x + 1),
    "one array in a list": lambda x: [x * 2],
    "one array": lambda x: x * 2,
    "no array": lambda x: {"b": 1, "a": [None]},
    "numpy array beside arrays": lambda x: {"n": np.arange(2.0), "a": x},
    "cycle": lambda x: (lambda a: a.append(a) or a)([x, x + 1]),
}


@pytest.mark.parametrize("make_result", RESULTS.values(), ids=RESULTS)
def test_each_call_returns_what_the_function_returns(autojit_like, x, make_result):
    """The first call, which traces, and the later ones, which do not."""
    g = autojit_like(lambda x: make_result(x * 3))
    for i in range(4):
        assert same_graph(g(x + i), make_result((x + i) * 3), equal_leaves)


@pytest.mark.parametrize("make_argument", RESULTS.values(), ids=RESULTS)
def test_each_call_returns_an_argument_as_it_was(autojit_like, x, make_argument):
    g = autojit_like(lambda tree, y: (y + 1, tree))
    for i in range(4):
        _, tree = g(make_argument(x + i), x)
        assert same_graph(tree, make_argument(x + i), equal_leaves)


# Promise 6: a returned iterator is consumed inside of the trace.


def test_returned_generator_is_consumed_in_the_trace(autojit_like, x):
    events = []

    def f(x):
        events.append("called")
        for i in range(3):
            events.append(i)
            yield x + i

    g = autojit_like(f)
    result = g(x)
    assert events == ["called", 0, 1, 2]
    assert iter(result) is result
    for i, array in enumerate(result):
        assert not is_tracer(array)
        np.testing.assert_array_equal(array, x + i)
    assert i == 2

    again = list(g(x + 1))
    assert events == ["called", 0, 1, 2]
    np.testing.assert_array_equal(again[2], x + 3)


@pytest.mark.parametrize(
    "make_iterator",
    [iter, lambda items: map(operator.pos, items[:2]), enumerate, reversed],
    ids=["iter", "map", "enumerate", "reversed"],
)
def test_returned_iterator_gives_an_iterator(autojit_like, x, make_iterator):
    result = autojit_like(lambda x: make_iterator([x, 1, (x,)]))(x)
    assert inspect.isgenerator(result) or iter(result) is result
    expected = list(make_iterator([x, 1, (x,)]))
    assert same_graph(list(result), expected, equal_leaves)
    assert list(result) == []


def test_each_call_returns_an_iterator_of_its_own(autojit_like, x):
    g = autojit_like(lambda x: iter([x, 2]))
    first, second = g(x), g(x)
    assert first is not second
    next(first)
    assert len(list(second)) == 2


# Promise 7: what can be neither taken apart nor hashed still goes through.


@pytest.mark.parametrize("cls", [Opaque, OpaqueUnhashable])
def test_opaque_argument_goes_through(autojit_like, x, cls):
    seen = []

    def f(x, obj):
        seen.append(obj)
        return x + 1

    obj = cls()
    np.testing.assert_array_equal(autojit_like(f)(x, obj), x + 1)
    assert seen[0] is obj


def test_opaque_object_comes_back(autojit_like, x):
    obj = Opaque()
    result = autojit_like(lambda x, obj: {"array": x, "obj": obj})(x, obj)
    assert result["obj"] is obj


def test_generator_as_argument_goes_through(autojit_like, x):
    def f(x, numbers):
        return x + sum(numbers)

    result = autojit_like(f)(x, (i for i in (1, 2, 3)))
    np.testing.assert_array_equal(result, x + 6)


# The wrapper itself.


def test_the_wrapper_looks_like_the_function(autojit_like):
    g = autojit_like(double)
    assert g.__name__ == "double"
    assert g.__doc__ == double.__doc__
    assert g.__module__ == double.__module__
    assert g.__wrapped__ is double


def test_the_wrapper_passes_arguments_as_a_call_does(autojit_like, x):
    def f(a, /, b, *rest, c=4, **kwargs):
        return [a, b, rest, c, kwargs]

    g = autojit_like(f)
    assert same_graph(g(1, 2), f(1, 2))
    assert same_graph(g(1, b=2), f(1, b=2))
    result = g(x, 2, 3, "4", c=5, d=x, e=[6])
    expected = f(x, 2, 3, "4", c=5, d=x, e=[6])
    assert same_graph(result, expected, equal_leaves)


# Flattening.


def test_flatten_finds_the_leaves_in_order(flattening, x):
    flatten, _ = flattening
    arrays = [x + i for i in range(5)]
    a, b, c, d, e = arrays
    leaves, _ = flatten([a, {"k": b, 1: (c,)}, Plain(u=d, v="s"), e])
    assert len(leaves) == 5
    assert all(p is q for p, q in zip(leaves, arrays, strict=True))


def test_unflatten_gives_the_object_back(flattening, x, make):
    flatten, unflatten = flattening
    tree = make(x)
    leaves, skeleton = flatten(tree)
    assert same_graph(unflatten(leaves, skeleton), tree, identical_leaves)


def test_unflatten_twice_gives_two_objects(flattening, x):
    flatten, unflatten = flattening
    leaves, skeleton = flatten([{"a": x}, Plain(b=[x])])
    first, second = unflatten(leaves, skeleton), unflatten(leaves, skeleton)
    assert same_graph(first, second, identical_leaves)
    assert first is not second
    assert first[0] is not second[0]
    assert first[1] is not second[1]
    assert first[1].b is not second[1].b


def test_unflatten_puts_in_whatever_it_gets(flattening, x):
    flatten, unflatten = flattening
    _, skeleton = flatten({1: x, 2: [x, "s", x]})
    result = unflatten(["foo", None, "baz"], skeleton)
    assert result == {1: "foo", 2: [None, "s", "baz"]}


def test_unflatten_takes_any_iterable(flattening, x):
    flatten, unflatten = flattening
    _, skeleton = flatten([x, x])
    assert unflatten(iter(["a", "b"]), skeleton) == ["a", "b"]
    assert unflatten(("a", "b"), skeleton) == ["a", "b"]


def test_an_array_that_occurs_twice_is_two_leaves(flattening, x):
    flatten, unflatten = flattening
    leaves, skeleton = flatten([x, (x, 1)])
    assert len(leaves) == 2
    assert unflatten([1, 2], skeleton) == [1, (2, 1)]


def test_the_leaf_type_may_be_any_class(flattening):
    flatten, unflatten = flattening
    one, two = Plain(n=1), Plain(n=2)
    leaves, skeleton = flatten({"a": one, "b": [two, Slots(3, 4)]}, Plain)
    assert len(leaves) == 2
    assert leaves[0] is one
    assert leaves[1] is two
    result = unflatten(["one", "two"], skeleton)
    assert result["a"] == "one"
    assert result["b"][0] == "two"
    assert type(result["b"][1]) is Slots


def test_the_leaf_type_includes_subclasses(flattening):
    class Sub(Plain):
        pass

    flatten, _ = flattening
    leaf = Sub()
    leaves, _ = flatten([leaf, 1], Plain)
    assert len(leaves) == 1
    assert leaves[0] is leaf


def test_the_leaf_type_may_be_a_tuple_of_classes(flattening, x):
    flatten, _ = flattening
    plain = Plain(array=x)
    leaves, _ = flatten([x, plain, Slots(x, 1), np.arange(2)], (jax.Array, Plain))
    assert len(leaves) == 3
    assert leaves[0] is x
    assert leaves[1] is plain
    assert leaves[2] is x


@pytest.mark.parametrize("builtin", [int, float, complex, bytearray, set, list])
def test_the_leaf_type_may_be_a_builtin(flattening, builtin):
    flatten, unflatten = flattening
    leaf = builtin()
    leaves, skeleton = flatten({b"k": Plain(a=leaf), b"n": None}, builtin)
    assert len(leaves) == 1
    assert leaves[0] is leaf
    assert unflatten([Color.RED], skeleton)[b"k"].a is Color.RED


def test_the_root_may_be_a_leaf(flattening, x):
    flatten, unflatten = flattening
    leaves, skeleton = flatten(x)
    assert len(leaves) == 1
    assert leaves[0] is x
    assert unflatten([5], skeleton) == 5


def test_an_object_without_leaves_gives_none(flattening):
    flatten, unflatten = flattening
    leaves, skeleton = flatten({"a": [1, 2.0]})
    assert leaves == []
    assert unflatten([], skeleton) == {"a": [1, 2.0]}


def test_too_few_leaves_is_a_value_error(flattening, x):
    flatten, unflatten = flattening
    _, skeleton = flatten([x, x])
    with pytest.raises(ValueError, match=r"leaves|objects"):
        unflatten([x], skeleton)
