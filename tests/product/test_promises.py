"""The promises of the reference, asked of each implementation by the same tests.

What differs on purpose is listed in docs/semantics.md. Each difference there has a test
here that shows both behaviours.
"""

import collections
import contextlib
import dataclasses
import functools
import inspect
import operator
import pickle
import re
import traceback
import types
import warnings
import weakref
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from array_api_extra._lib._helpers import jax_autojit as reference
from array_api_extra._lib._helpers import pickle_flatten, pickle_unflatten
from graphs import equal_leaves, identical_leaves, same_graph, walk_leaves
from kinds import (
    Color,
    Data,
    Frozen,
    FrozenSlotData,
    Matmul,
    Opaque,
    OpaqueUnhashable,
    OpaqueValue,
    OtherOpaqueValue,
    Plain,
    Point,
    Reduced,
    ReducedEx,
    Slots,
    SlotsAndDict,
    SubPlain,
    double,
    with_attributes,
)
from notes import Notes

import autojit


def is_tracer(obj):
    return isinstance(obj, jax.core.Tracer)


# Promise 1: Python scalars, in and out, stay Python scalars.


@pytest.mark.parametrize("scalar", [True, 3, -(2**80), 1.5, 2 - 1j], ids=repr)
def test_scalars_go_in_and_out_as_themselves(autojit_like, x, scalar):
    seen = []

    def f(x, scalar):
        seen.append(scalar)
        return scalar, [x, scalar]

    first, (array, second) = autojit_like(f)(x, scalar)
    assert isinstance(array, jax.Array)
    for got in (*seen, first, second):
        assert (type(got), got) == (type(scalar), scalar)
    assert len(seen) == 1


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
    result = autojit_like(lambda a, b: {"sum": a + b, "none": None})(1, 2)
    assert same_graph(result, {"sum": 3, "none": None})


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
        traces.append(factors[1])
        return x * factors[0] + factors[1]

    g = autojit_like(f)
    for shift in (1.0, 3.0, 1.0):
        np.testing.assert_array_equal(g(x, [2.0, shift]), x * 2 + shift)
    assert traces == [1.0, 3.0]


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
    """By position and by keyword."""
    seen = []

    def f(tree, *, by_name):
        seen.extend([tree, by_name])
        return [leaf * 2 for leaf in walk_leaves(seen)]

    given = [make(x), make(x + 1)]
    result = autojit_like(f)(given[0], by_name=given[1])
    assert same_graph(seen, given)
    assert walk_leaves(seen)
    assert all(is_tracer(leaf) for leaf in walk_leaves(seen))
    assert same_graph(result, [leaf * 2 for leaf in walk_leaves(given)], equal_leaves)


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


RESULTS |= {f"{name} alone": make for name, make in CONTAINERS.items()}


@pytest.mark.parametrize("make_result", RESULTS.values(), ids=RESULTS)
def test_each_call_returns_what_the_function_returns(autojit_like, x, make_result):
    """The first call, which traces, and the later ones, which do not."""
    g = autojit_like(lambda x: make_result(x * 3))
    for i in range(3):
        result = g(x + i)
        assert not any(is_tracer(leaf) for leaf in walk_leaves(result))
        assert same_graph(result, make_result((x + i) * 3), equal_leaves)


@pytest.mark.parametrize("make_argument", RESULTS.values(), ids=RESULTS)
def test_each_call_returns_an_argument_as_it_was(autojit_like, x, make_argument):
    g = autojit_like(lambda tree, y: (y + 1, tree))
    for i in range(3):
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


def test_a_generator_that_came_in_is_consumed_if_it_is_the_result(autojit_like, x):
    g = autojit_like(lambda x, numbers: numbers)
    numbers = (i for i in (1, 2))
    assert list(g(x, numbers)) == [1, 2]
    assert list(numbers) == []
    assert list(g(x, numbers)) == [1, 2]  # a hit


def test_a_generator_that_came_in_comes_back_inside_a_result(autojit_like, x):
    g = autojit_like(lambda x, numbers: {"numbers": numbers})
    numbers = (i for i in (1, 2))
    for _ in range(2):
        assert g(x, numbers)["numbers"] is numbers
    assert list(numbers) == [1, 2]


# Promise 7: what can be neither taken apart nor hashed still goes through.


@pytest.mark.parametrize("cls", [Opaque, OpaqueUnhashable])
def test_opaque_argument_goes_through_and_comes_back(autojit_like, x, cls):
    seen = []

    def f(x, obj):
        seen.append(obj)
        return {"array": x + 1, "obj": obj}

    obj = cls()
    result = autojit_like(f)(x, obj)
    np.testing.assert_array_equal(result["array"], x + 1)
    assert seen[0] is obj
    assert result["obj"] is obj


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


def assert_identical(leaves, *expected):
    assert len(leaves) == len(expected)
    assert all(a is b for a, b in zip(leaves, expected, strict=True))


def test_flatten_finds_the_leaves_in_order(flattening, x):
    flatten, _ = flattening
    a, b, c, d, e = (x + i for i in range(5))
    leaves, _ = flatten([a, {"k": b, 1: (c,)}, Plain(u=d, v="s"), e])
    assert_identical(leaves, a, b, c, d, e)


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
    for one, two in [(first, second), *zip(first, second, strict=True)]:
        assert one is not two
    assert first[1].b is not second[1].b


def test_unflatten_puts_in_whatever_it_gets(flattening, x):
    """From any iterable."""
    flatten, unflatten = flattening
    _, skeleton = flatten({1: x, 2: [x, "s", x]})
    new = ["foo", None, "baz"]
    for leaves in (new, tuple(new), iter(new)):
        assert unflatten(leaves, skeleton) == {1: "foo", 2: [None, "s", "baz"]}


def test_an_array_that_occurs_twice_is_two_leaves(flattening, x):
    flatten, unflatten = flattening
    leaves, skeleton = flatten([x, (x, 1)])
    assert len(leaves) == 2
    assert unflatten([1, 2], skeleton) == [1, (2, 1)]


@pytest.mark.parametrize(
    ("leaf_type", "leaf"),
    [
        (Plain, Plain(n=1)),
        (Plain, SubPlain()),
        *((cls, cls()) for cls in (int, float, complex, bytearray, set, list)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_leaf_type_may_be_any_class(flattening, leaf_type, leaf):
    flatten, unflatten = flattening
    leaves, skeleton = flatten({b"a": leaf, b"b": (Slots(leaf, "s"), None)}, leaf_type)
    assert_identical(leaves, leaf, leaf)
    result = unflatten(["one", Color.RED], skeleton)
    assert same_graph(result, {b"a": "one", b"b": (Slots(Color.RED, "s"), None)})


def test_the_leaf_type_may_be_a_tuple_of_classes(flattening, x):
    flatten, _ = flattening
    plain = Plain(array=x)
    leaves, _ = flatten([x, plain, Slots(x, 1), np.arange(2)], (jax.Array, Plain))
    assert_identical(leaves, x, plain, x)


def test_the_root_may_be_a_leaf(flattening, x):
    flatten, unflatten = flattening
    leaves, skeleton = flatten(x)
    assert_identical(leaves, x)
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


# Identity, order and types: the same in all implementations.


def count_traces(wrap, *objects):
    """Return how often a function is traced that gets these objects, one by one."""
    traces = []
    g = wrap(lambda obj: traces.append(1))
    for obj in objects:
        g(obj)
    return len(traces)


@pytest.mark.parametrize(
    "different",
    [
        [True, 1, 1.0],
        [0.0, -0.0],
        ["a", b"a"],
        [[1], (1,), {1}],
        [{1}, {True}],
        [{"a": 1, "b": 2}, {"b": 2, "a": 1}],
        [Plain(a=1, b=2), Plain(b=2, a=1)],
        [Data(1), Frozen(1), Slots(1, 0)],
        [np.float32(0), np.float64(0), np.int32(0)],
        [double, len],
    ],
    ids=lambda objects: ", ".join(type(obj).__name__ for obj in objects),
)
def test_different_statics_are_different_traces(autojit_like, different):
    assert count_traces(autojit_like, *different, *different) == len(different)


@pytest.mark.parametrize(
    "make_equal",
    [
        lambda: float("nan"),
        lambda: 10**20,
        lambda: ["a", {"b": (1, 2.5)}],
        lambda: Plain(a=[1], b=None),
        lambda: Slots(1, {"a": 2}),
        lambda: np.float32(2),
        lambda: functools.partial(double, 1),
        lambda: Plain(factor=2).scaled,
        lambda: iter([1, 2]),
        lambda: jax.ShapeDtypeStruct((2,), np.float32),
    ],
)
def test_equal_statics_share_a_trace(autojit_like, make_equal):
    assert count_traces(autojit_like, make_equal(), make_equal()) == 1


@pytest.mark.parametrize(
    "make_shared",
    [
        lambda x: [x],
        lambda x: {"a": x},
        lambda x: {1},
        lambda x: bytearray(b"ab"),
        lambda x: np.arange(3),
        lambda x: Plain(a=x),
        lambda x: Frozen(x),
    ],
)
def test_sharing_is_kept_and_counts(autojit_like, x, make_shared):
    seen = []

    def f(one, two):
        seen.append(one is two)
        return [one, two]

    g = autojit_like(f)
    shared = make_shared(x)
    one, two = g(shared, shared)
    assert one is two
    one, two = g(make_shared(x), make_shared(x))
    assert one is not two
    assert seen == [True, False]


def test_a_cycle_stays_a_cycle(autojit_like, x):
    def f(node):
        assert node.inner[0] is node
        node.array = node.array + 1
        return node

    node = Plain(array=x)
    node.inner = [node]
    result = autojit_like(f)(node)
    assert result.inner[0] is result
    np.testing.assert_array_equal(result.array, x + 1)
    np.testing.assert_array_equal(node.array, x)


def test_the_function_gets_copies(autojit_like, x):
    def f(items, plain, data):
        items.append(1)
        plain.a = 2
        data[0] = 3
        return items, plain, data

    given = [x], Plain(a=1), bytearray(2)
    g = autojit_like(f)
    for _ in range(2):
        result = g(*given)
        assert same_graph(given, ([x], Plain(a=1), bytearray(2)))
        assert same_graph(result, ([x, 1], Plain(a=2), bytearray([3, 0])))


def test_each_call_returns_fresh_objects(autojit_like, x):
    g = autojit_like(lambda x: [[1], Plain(a=[x]), bytearray(2)])
    first, second = g(x), g(x)
    assert first is not second
    for one, two in zip(first, second, strict=True):
        assert one is not two
    first[0].append(2)
    first[1].b = 3
    first[2][0] = 1
    assert same_graph(g(x), [[1], Plain(a=[x]), bytearray(2)])


def test_a_later_change_changes_no_specialization(autojit_like, x):
    config = {"factors": [2.0]}
    traces = []

    def f(x, config):
        traces.append(config)
        return x * config["factors"][0]

    g = autojit_like(f)
    np.testing.assert_array_equal(g(x, config), x * 2)
    config["factors"][0] = 3.0
    np.testing.assert_array_equal(g(x, config), x * 3)
    np.testing.assert_array_equal(g(x, {"factors": [2.0]}), x * 2)
    assert len(traces) == 2


def test_an_iterator_as_argument_is_a_copy_with_tracers(autojit_like, x):
    def f(items):
        assert all(map(is_tracer, items))
        return x

    given = iter([x, x + 1])
    autojit_like(f)(given)
    assert len(list(given)) == 2


def test_a_new_generator_is_a_new_trace_and_runs_once(autojit_like, x):
    g = autojit_like(lambda numbers: x + sum(numbers))
    given = (i for i in (1, 2))
    for _ in range(2):  # the second is a hit, on which the generator isn't run
        np.testing.assert_array_equal(g(given), x + 3)
    assert list(given) == []
    assert count_traces(autojit_like, (i for i in [1]), (i for i in [1])) == 2


def test_arrays_that_a_function_captures_are_constants(autojit_like, x):
    captured = [x]
    g = autojit_like(lambda get, y: get() + y)

    def get():
        return captured[0]

    np.testing.assert_array_equal(g(get, x), x + x)
    captured[0] = x + 1
    np.testing.assert_array_equal(g(get, x), x + x)


# Errors and transformations.


def test_an_exception_reaches_the_caller_as_itself(autojit_like, x):
    error = LookupError("spam")
    calls = []

    def f(x):
        calls.append(1)
        if len(calls) == 1:
            raise error
        return x + 1

    g = autojit_like(f)
    with pytest.raises(LookupError, match="spam") as info:
        g(x)
    assert info.value is error
    np.testing.assert_array_equal(g(x), x + 1)
    assert len(calls) == 2


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interruption_of_a_reduction_propagates(autojit_like, x, kind):
    class Interrupted:
        def __reduce_ex__(self, protocol):
            raise kind

    with pytest.raises(kind):
        autojit_like(lambda obj: None)(Interrupted())


@pytest.mark.parametrize(
    "transform",
    [
        jax.jit,
        lambda f: jax.grad(lambda x: f(x).sum()),
        lambda f: lambda x: jax.vmap(f, in_axes=1)(jnp.stack([x, x], axis=1)),
        lambda f: jax.jacfwd(jax.checkpoint(f)),
        lambda f: lambda x: jax.lax.scan(lambda c, y: (f(c) + y, c), x, x)[1],
    ],
    ids=["jit", "grad", "vmap", "jacfwd of checkpoint", "scan"],
)
def test_transformations_inside_and_outside(autojit_like, x, transform):
    def f(x, config, tree):
        return (x * tree["factor"]) ** config.b

    args = Data(None, 2), {"factor": x + 1}
    expected = transform(lambda x: f(x, *args))(x)
    g = autojit_like(f)
    np.testing.assert_allclose(transform(lambda x: g(x, *args))(x), expected)
    inside = autojit_like(lambda x, *args: transform(lambda x: f(x, *args))(x))
    np.testing.assert_allclose(inside(x, *args), expected)
    nested = autojit_like(lambda x, *args: g(x, *args))
    np.testing.assert_allclose(transform(lambda x: nested(x, *args))(x), expected)


def test_disable_jit_calls_the_function_with_the_own_objects(autojit_like, x):
    given = [x]
    with jax.disable_jit():
        result = autojit_like(lambda items: items.append(1) or items)(given)
    assert result is given
    assert len(given) == 2


# The deliberate differences from the reference, in the order of the docs.

shown = collections.defaultdict(list)


def shows(title, against="the reference"):
    """Mark a test that shows one of the differences by its title in the docs."""
    shown[against].append(title)
    return lambda test: test


@pytest.fixture(params=[autojit.jit, autojit.jax_autojit], ids=["jit", "jax_autojit"])
def ours(request):
    return request.param


@pytest.mark.parametrize("against", ["the reference", "`jax.jit`"])
def test_each_difference_in_the_docs_is_shown(against):
    docs = Path(__file__).parents[2] / "docs" / "semantics.md"
    _, _, rest = docs.read_text("utf-8").partition(f"\n## Differences from {against}\n")
    section, _, _ = rest.partition("\n## ")
    titles = re.findall(r"^- \*\*(.*?)\.?\*\*", section, re.MULTILINE | re.DOTALL)
    assert [" ".join(title.split()) for title in titles] == shown[against]


def new_text():
    return "".join(["some", " text"])


TEXT = new_text()
# A small set keeps these in the order in which they came.
SAME_SLOT, SAME_SLOT_TOO = [1, 9, 17], [17, 9, 1]


@shows("Equal values share a trace")
@pytest.mark.parametrize(
    ("one", "two"),
    [
        ([TEXT, TEXT], [TEXT, new_text()]),
        ([(1, 2, TEXT)] * 2, [(1, 2, new_text()), (1, 2, new_text())]),
        (set(SAME_SLOT), set(SAME_SLOT_TOO)),
    ],
    ids=["strings", "tuples", "sets"],
)
def test_difference_equal_values(ours, one, two):
    assert count_traces(ours, one, two) == 1
    assert count_traces(reference, one, two) == 2


@shows("numpy arrays go by their bytes")
def test_difference_numpy_arrays(ours):
    def f(array):
        array[0] = 5.0

    assert count_traces(ours, np.zeros(2), np.zeros(2)) == 1
    assert count_traces(reference, np.zeros(2), np.zeros(2)) == 2
    array = np.zeros(2)
    ours(f)(array)
    assert array[0] == 0
    reference(f)(array)
    assert array[0] == 5


def power(n):
    return lambda x: x**n


@shows("Functions go by value")
def test_difference_functions(ours):
    assert count_traces(ours, power(2), power(2)) == 1
    assert count_traces(ours, power(2), power(3)) == 2
    assert count_traces(reference, power(2), power(2)) == 2


@shows("The order of keywords does not count")
def test_difference_order_of_keywords(ours, x):
    def count(wrap):
        traces = []
        g = wrap(lambda a, b: traces.append(1))
        g(a=x, b=1)
        g(b=1, a=x)
        return len(traces)

    assert count(ours) == 1
    assert count(reference) == 2


@shows("A bare `object()` is a sentinel")
def test_difference_sentinel(ours):
    sentinel = object()
    assert ours(lambda obj: obj is sentinel)(sentinel)
    assert not reference(lambda obj: obj is sentinel)(sentinel)
    assert count_traces(ours, sentinel, object()) == 2
    assert count_traces(reference, sentinel, object()) == 1


class EqualRaises(Opaque):
    def __eq__(self, other):
        if type(other) is not EqualRaises:
            return NotImplemented
        raise ArithmeticError

    __hash__ = Opaque.__hash__


class EqualGivesArray(Opaque):
    def __eq__(self, other):
        if type(other) is not EqualGivesArray:
            return NotImplemented
        return np.array([True, False])

    def __hash__(self):
        return 1


class Sentinel:
    """An instance without state."""


SENTINEL = Sentinel()


@shows("An instance without state is itself")
def test_difference_sentinels(ours):
    assert ours(lambda held: held[0] is SENTINEL)([SENTINEL])
    assert not reference(lambda held: held[0] is SENTINEL)([SENTINEL])


class Forgetful:
    def __init__(self, unit="m"):
        self.unit = unit

    def __reduce__(self):
        return Forgetful, ()


@shows("A reduction that does not reproduce its object is noticed")
def test_difference_reductions(ours):
    assert ours(lambda obj: obj.unit)(Forgetful("km")) == "km"
    assert reference(lambda obj: obj.unit)(Forgetful("km")) == "m"


@dataclasses.dataclass
class InOrder:
    a: int
    b: int


@shows("The order of declared attributes does not count")
def test_difference_declared_attributes(ours):
    one, two = InOrder(1, 2), InOrder.__new__(InOrder)
    two.b, two.a = 2, 1
    assert count_traces(ours, one, two) == 1
    assert count_traces(reference, one, two) == 2


@shows("Opaque objects are equal only with reason")
def test_difference_opaque_objects(ours):
    for one, two in [
        (OpaqueUnhashable(), OpaqueUnhashable()),
        (OtherOpaqueValue(1), OpaqueValue(1)),
        (OpaqueValue(1), OtherOpaqueValue(1)),
    ]:
        assert count_traces(ours, one, two) == 2
        assert count_traces(reference, one, two) == 1
    one, two = OpaqueValue(1), OpaqueValue(1)
    assert count_traces(ours, weakref.ref(one), weakref.ref(two)) == 2
    assert count_traces(reference, weakref.ref(one), weakref.ref(two)) == 1
    for cls in EqualRaises, EqualGivesArray:
        assert count_traces(ours, cls(), cls()) == 2
        with pytest.raises(ValueError, match="equality"):
            count_traces(reference, cls(), cls())


@shows("Mapping proxies and dict views are taken apart")
@pytest.mark.parametrize(
    "make_view",
    [types.MappingProxyType, dict.values, dict.items],
    ids=["mapping proxy", "values", "items"],
)
def test_difference_mapping_proxies_and_dict_views(ours, x, make_view):
    def count_tracers(wrap):
        def f(view):
            view = view.values() if hasattr(view, "values") else view
            return sum(map(is_tracer, jax.tree.leaves(list(view))))

        return wrap(f)(make_view({"a": x}))

    assert count_tracers(ours) == 1
    # It compares this view with those of other calls, arrays in them too.
    with contextlib.suppress(ValueError):
        assert count_tracers(reference) == 0


def call_after_a_change(wrap, x):
    """Wrap a method of what holds `x`, call it, and again when it holds `x + 1`."""
    obj = Plain(factor=x)
    g = wrap(obj.scaled)
    np.testing.assert_array_equal(g(x), x * x)
    obj.factor = x + 1
    return g(x)


@shows("A wrapped callable with state is part of the call tree")
def test_difference_callables_with_state(ours, x):
    np.testing.assert_array_equal(call_after_a_change(ours, x), (x + 1) * x)
    np.testing.assert_array_equal(call_after_a_change(reference, x), x * x)


@shows("A `jax.Ref` is a leaf")
def test_difference_ref(ours, x):
    def f(ref):
        ref[0] = 5.0

    ref = jax.new_ref(x)
    ours(f)(ref)
    assert ref[0] == 5.0
    with pytest.raises(Exception, match=r"(?i)trace|ref|sharding"):
        reference(f)(jax.new_ref(x))


class NamedNowhere:
    def __reduce__(self):
        return "NO_SUCH_NAME"


@shows("Whatever reduces to a name goes through")
def test_difference_reduction_to_a_name(ours):
    obj = NamedNowhere()
    assert ours(lambda obj: [obj])(obj)[0] is obj
    with pytest.raises(pickle.PicklingError):
        reference(lambda obj: [obj])(obj)


class ReducedWithoutMemory(Plain):
    def __reduce_ex__(self, protocol):
        raise MemoryError


@shows("A MemoryError is no refusal")
def test_difference_memory_error(ours, x):
    obj = ReducedWithoutMemory(a=x)
    with pytest.raises(MemoryError):
        ours(lambda obj: is_tracer(obj.a))(obj)
    assert not reference(lambda obj: is_tracer(obj.a))(obj)


def generated(x):
    return (x + i for i in range(2))


def mapped(x):
    def plus(i):
        return x + i

    return map(plus, range(2))


@shows("Iterators nested in a result are run in the trace")
@pytest.mark.parametrize("make_iterator", [generated, mapped])
def test_difference_nested_iterators(ours, x, make_iterator):
    def f(x):
        return {"items": make_iterator(x)}

    result = ours(f)(x)["items"]
    assert iter(result) is result
    assert same_graph(list(result), [x, x + 1], equal_leaves)
    with pytest.raises(jax.errors.UnexpectedTracerError):
        list(reference(f)(x)["items"])


@shows("A tracer hidden in a result is an error")
def test_difference_hidden_tracer(ours, x):
    def in_function(x):
        return {"fn": lambda: x}

    def in_opaque(x):
        return [0, with_attributes(Opaque(), array=x)]

    error = jax.errors.UnexpectedTracerError
    with pytest.raises(error, match=r"result\['fn'\].__closure__\[0\]"):
        ours(in_function)(x)
    with pytest.raises(error, match=r"result\[1\](.|\n)*Opaque"):
        ours(in_opaque)(x)
    assert is_tracer(reference(in_function)(x)["fn"]())
    assert is_tracer(reference(in_opaque)(x)[1].array)


@shows("Wrapping a function again shares its specializations")
def test_difference_wrapping_again(ours, x):
    def count(wrap):
        traces, seen = Notes(), []

        def f(x):
            traces.append(1)
            warnings.warn("spam", UserWarning, stacklevel=1)
            return x

        for _ in range(3):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                wrap(f)(x)
            seen.append([(w.category, str(w.message)) for w in caught])
        assert seen == [[(UserWarning, "spam")]] * 3
        return len(traces)

    assert count(ours) == 1
    assert count(reference) == 3


@shows("Tracebacks have no frames of the wrapper")
def test_difference_tracebacks(ours, x):
    def f(x):
        raise LookupError

    def frames(wrap):
        with pytest.raises(LookupError) as info:
            wrap(f)(x)
        return [frame.name for frame in traceback.extract_tb(info.value.__traceback__)]

    assert frames(ours) == ["frames", "f"]
    assert len(frames(reference)) > 2


class Unbuildable:
    def __reduce__(self):
        return Unbuildable, ("an argument too many",)


@shows("An object that cannot be rebuilt is named")
def test_difference_unbuildable(ours):
    def f(items):
        return None

    with pytest.raises(TypeError, match=r"args\[0\]\[1\]\['k'\].*Unbuildable"):
        ours(f)([0, {"k": Unbuildable()}])
    with pytest.raises(TypeError) as info:
        reference(f)([0, {"k": Unbuildable()}])
    assert "args" not in str(info.value)


@shows("An object in the arguments of its own reduction is refused")
def test_difference_own_reduction(ours):
    items = []
    obj = Reduced(items)
    items.append(obj)

    with pytest.raises(TypeError, match=r"args\[0\].*reduction"):
        ours(lambda obj: None)(obj)
    assert reference(lambda obj: obj.a[0] is obj)(obj)


@shows("`jax.disable_jit` changes nothing in a result")
def test_difference_disable_jit(ours, x):
    def f(x):
        yield x

    with jax.disable_jit():
        assert inspect.isgenerator(ours(f)(x))
        assert not inspect.isgenerator(reference(f)(x))


@shows("The wrapper is an object with a bounded cache")
def test_difference_wrapper(ours, x):
    g = ours(double)
    assert g.cache_info().maxsize == 4096
    again = pickle.loads(pickle.dumps(g))
    np.testing.assert_array_equal(again(x), x * 2)

    g = reference(double)
    assert inspect.isfunction(g)
    with pytest.raises(pickle.PicklingError):
        pickle.dumps(g)


@shows("What is not callable, or async, cannot be wrapped")
def test_difference_not_callable(ours, x):
    with pytest.raises(TypeError, match="callable"):
        ours(3)
    g = reference(3)
    with pytest.raises(TypeError, match="callable"):
        g(x)


@shows("The number of leaves has to be right")
def test_difference_number_of_leaves(x):
    _, skeleton = autojit.flatten([x, 1])
    with pytest.raises(ValueError, match="leaves"):
        skeleton.unflatten([2, 3])
    _, rest = pickle_flatten([x, 1], jax.Array)
    assert pickle_unflatten([2, 3], rest) == [2, 1]


@shows("Untouched arrays come back as themselves")
def test_difference_untouched_arrays(x):
    def f(items):
        return items[0]

    assert autojit.jit(f)([x]) is x
    for wrap in autojit.jax_autojit, functools.partial(autojit.jit, forward=False):
        assert wrap(f)([x]) is not x
    assert reference(f)([x]) is not x


# The differences from `jax.jit`, in the order of the docs.

shows_against_jit = functools.partial(shows, against="`jax.jit`")
jit_static = functools.partial(jax.jit, static_argnums=0)


@shows_against_jit("Python scalars are static")
def test_jit_difference_scalars(ours):
    assert type(ours(lambda obj: obj)(2.0)) is float
    assert isinstance(jax.jit(lambda obj: obj)(2.0), jax.Array)
    assert count_traces(ours, 1.0, 2.0) == 2
    assert count_traces(jax.jit, 1.0, 2.0) == 1


@shows_against_jit("numpy arrays are static")
def test_jit_difference_numpy_arrays(ours):
    assert count_traces(ours, np.zeros(2), np.zeros(2), np.ones(2)) == 2
    assert count_traces(jax.jit, np.zeros(2), np.zeros(2), np.ones(2)) == 1


@shows_against_jit("Other statics need no name and no hash")
def test_jit_difference_statics(ours):
    assert count_traces(ours, "text", ["a"], ["a"], Plain(a=1), Plain(a=1)) == 3
    with pytest.raises(TypeError):
        count_traces(jax.jit, "text")
    with pytest.raises((TypeError, ValueError), match="hash"):
        count_traces(jit_static, ["a"])
    assert count_traces(jit_static, Plain(a=1), Plain(a=1)) == 2


@shows_against_jit("Classes need no registration")
def test_jit_difference_classes(ours, x):
    assert count_traces(ours, Plain(a=x), Plain(a=x + 1)) == 1
    with pytest.raises(TypeError):
        count_traces(jax.jit, Plain(a=x))


@shows_against_jit("Results may be any object")
@pytest.mark.filterwarnings("ignore:Python iterable type")
@pytest.mark.parametrize(
    "make_result", [lambda x: "text", lambda x: iter([x]), lambda x: Plain(a=x)]
)
def test_jit_difference_results(ours, x, make_result):
    assert type(ours(make_result)(x)) is type(make_result(x))
    with pytest.raises(TypeError):
        jax.jit(make_result)(x)


@shows_against_jit("Functions in arguments go by value")
def test_jit_difference_functions(ours):
    assert count_traces(ours, power(2), power(2)) == 1
    assert count_traces(jit_static, power(2), power(2)) == 2


@shows_against_jit("The function gets copies")
def test_jit_difference_copies(ours):
    static = Plain(a=1)
    assert not ours(lambda obj: obj is static)(static)
    assert jit_static(lambda obj: obj is static)(static)


@shows_against_jit("Sharing counts")
def test_jit_difference_sharing(ours, x):
    a, b = [x], [x]
    assert count_traces(ours, [a, a], [a, b]) == 2
    assert count_traces(jax.jit, [a, a], [a, b]) == 1


@shows_against_jit("The order of dict keys counts")
def test_jit_difference_order_of_keys(ours, x):
    assert count_traces(ours, {"a": x, "b": x}, {"b": x, "a": x}) == 2
    assert count_traces(jax.jit, {"a": x, "b": x}, {"b": x, "a": x}) == 1


@shows_against_jit("A callable object that is wrapped")
def test_jit_difference_callables(ours, x):
    np.testing.assert_array_equal(call_after_a_change(ours, x), (x + 1) * x)
    np.testing.assert_array_equal(call_after_a_change(jax.jit, x), x * x)


@shows_against_jit("Fewer options")
def test_jit_difference_options():
    options = set(inspect.signature(autojit.jit).parameters) - {"fun"}
    of_jit = set(inspect.signature(jax.jit).parameters)
    assert options - of_jit == {
        *("traced", "forward", "share", "retrace_warning", "lost_change_warning"),
        *("maxsize", "maxbytes"),
    }
    assert options & of_jit == {
        *("inline", "keep_unused", "compiler_options"),
        *("donate_argnums", "donate_argnames", "static_argnums", "static_argnames"),
    }


@shows_against_jit("A function wrapped again")
def test_jit_difference_changes(ours, x):
    held = [1]

    def f(x):
        return x + held[0]

    for wrap, expected in ((ours, 2), (jax.jit, 1)):
        held[0] = 1
        np.testing.assert_array_equal(wrap(f)(x), x + 1)
        held[0] = 2
        np.testing.assert_array_equal(wrap(f)(x), x + expected)


@shows_against_jit("The cache is bounded")
def test_jit_difference_bounded_cache():
    g = autojit.jit(lambda n: n, maxsize=2)
    for n in range(5):
        g(n)
    assert g.cache_info().currsize == 2
