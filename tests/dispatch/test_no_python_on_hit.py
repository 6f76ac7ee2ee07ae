"""A hit runs no Python code: neither ours nor that of the classes in the call tree."""

import collections
import functools
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kinds import (
    Config,
    Data,
    Frozen,
    FrozenSlotData,
    Matmul,
    Plain,
    Point,
    SlotData,
    Slots,
    SlotsAndDict,
    SubSlots,
    double,
)

import autojit


class LoudComparison:
    """An ordinary instance whose own methods would be noticed."""

    def __init__(self, a):
        self.a = a

    def __eq__(self, other):
        return self.a == other.a

    def __hash__(self):
        return hash(self.a)

    def __bool__(self):
        return True

    def __setattr__(self, name, value):
        object.__setattr__(self, name, value)


def python_calls(fun, *args, **kwargs):
    """Call `fun` and return the names of the Python functions that ran in it."""
    names = []

    def profile(frame, event, arg):
        if event == "call":
            code = frame.f_code
            names.append(f"{code.co_filename}:{code.co_qualname}")

    old = sys.getprofile()
    sys.setprofile(profile)
    try:
        fun(*args, **kwargs)
    finally:
        sys.setprofile(old)
    return names


def f(x, tree, *rest, key=None):
    return jax.tree.map(lambda a: a * 2, x)


TREES = {
    "nothing": lambda x: None,
    "scalars": lambda x: (True, 2, 3.5, 1j, "text", b"bytes", None, ...),
    "tuple": lambda x: (x, 1, (x, "a")),
    "list": lambda x: [x, 1, [x, "a"]],
    "dict": lambda x: {"a": x, "b": {"c": [x, 2.0], 1: (x,)}},
    "defaultdict": lambda x: collections.defaultdict(list, {"a": x, 1: [x]}),
    "namedtuple": lambda x: Point(x, 1),
    "set": lambda x: [x, {1, "a"}, frozenset([2.0, "b"])],
    "range and slice": lambda x: [x, range(3), slice(1, 2)],
    "functions, classes, modules": lambda x: [x, double, Plain, np, len, int],
    "bytearray": lambda x: [x, bytearray(b"ab")],
    "numpy array": lambda x: [x, np.arange(5.0)],
    "shared list": lambda x: (lambda shared: [shared, shared, {"k": shared}])([x, 1]),
    "instance": lambda x: Plain(a=x, b=1, c=Plain(d=[x])),
    "slots": lambda x: Slots(x, [x, 1]),
    "inherited slots": lambda x: SubSlots(x, 1, "c"),
    "slots and dict": lambda x: SlotsAndDict(x, 1, c=x),
    "dataclass": lambda x: Data(x, Data(x, "b")),
    "dataclass with defaults": lambda x: Config(layers=[x, x], options={"k": x}),
    "frozen dataclass": lambda x: Frozen(x, (1, x)),
    "slotted dataclass": lambda x: SlotData(x, 1),
    "frozen slotted dataclass": lambda x: FrozenSlotData(x, FrozenSlotData(x, 1)),
    "instance with methods of its own": lambda x: [x, LoudComparison([x, 1])],
    "callable instance": lambda x: Matmul(x, 2),
    "partial": lambda x: functools.partial(double, x, k=[1]),
    "bound method": lambda x: Plain(factor=x).scaled,
    "many": lambda x: [Data(x, {"name": str(i), "n": i}) for i in range(50)],
}


@pytest.fixture
def arrays(no_gc):
    # Two sets of arrays: a hit does not depend on the arrays being the same.
    return jnp.arange(3.0), jnp.arange(3.0) + 1


def warm(g, make, arrays):
    for array in (*arrays, *arrays):
        g(array, make(array), key=make(array))


def assert_runs_no_python(g, *args, **kwargs):
    """Check a call like some before it."""
    for _ in range(4):
        g(*args, **kwargs)
    assert python_calls(g, *args, **kwargs) == []


def test_a_hit_of_what_warned_when_it_was_traced(arrays):
    """Once the warnings were shown, or might have been, there is nothing to do."""

    def noisy(x, tree, *, key=None):
        warnings.warn("careful", DeprecationWarning, stacklevel=1)
        return f(x, tree, key=key)

    for action in "ignore", "always":
        dispatchers = [autojit.jit(noisy) for _ in range(2)]
        for g in dispatchers:
            with warnings.catch_warnings(record=True):
                warnings.simplefilter(action)
                warm(g, lambda x: [x, 1], arrays)
                warm(g, lambda x: [x, 2], arrays)
                for n in (1, 2, 2):
                    args = arrays[1], [arrays[0], n]
                    assert python_calls(g, *args, key=[arrays[0], n]) == []


def test_the_recorder_sees_python_functions():
    def inner():
        return 1

    assert any("inner" in name for name in python_calls(lambda: inner()))
    assert python_calls(len, [1]) == []


def test_the_floor_runs_no_python_code(arrays):
    assert_runs_no_python(jax.jit(lambda x: x * 2), arrays[0])


@pytest.mark.parametrize("make", TREES.values(), ids=TREES)
def test_a_hit_with_the_same_objects_runs_no_python_code(arrays, make):
    g = autojit.jit(f)
    array = arrays[0]
    g.clear_cache()
    assert_runs_no_python(g, array, make(array), key=make(array))
    assert g.cache_info()[:4] == (4, 1, 1, 1)


@pytest.mark.parametrize("make", TREES.values(), ids=TREES)
def test_a_hit_with_equal_objects_runs_no_python_code(arrays, make):
    g = autojit.jit(f)
    warm(g, make, arrays)
    tree, key = make(arrays[1]), make(arrays[0])
    hits = g.cache_info().hits
    assert python_calls(g, arrays[1], tree, key=key) == []
    assert g.cache_info().hits == hits + 1


def test_a_hit_in_the_table_runs_no_python_code(arrays):
    """The last skeleton that hit is another one."""
    g = autojit.jit(f)
    g.clear_cache()
    x = arrays[0]
    trees = [lambda n=n: Plain(a=x, b=[n, "text"], c=Frozen(n)) for n in range(10)]
    for make in [*trees, *trees, *trees]:
        g(x, make())
    for make in [*trees, *reversed(trees)]:
        assert python_calls(g, x, make()) == []
    assert g.cache_info().traces == 10


RESULTS = {
    "array": lambda x: x * 2,
    "scalar": lambda x: 3,
    "nothing": lambda x: None,
    "tuple": lambda x: (x * 2, 1),
    "list": lambda x: [x * 2, [x + 1, "a"]],
    "dict": lambda x: {"a": x * 2, "b": {"c": x + 1}},
    "set": lambda x: [x * 2, {1, "a"}],
    "namedtuple": lambda x: Point(x * 2, 1),
    "instance": lambda x: Plain(a=x * 2, b=Plain(c=x + 1)),
    "slots": lambda x: Slots(x * 2, 1),
    "slots and dict": lambda x: SlotsAndDict(x * 2, 1, c=x + 1),
    "dataclass": lambda x: Data(x * 2, [1]),
    "frozen dataclass": lambda x: Frozen(x * 2, [1]),
    "slotted dataclass": lambda x: SlotData(x * 2, [1]),
    "frozen slotted dataclass": lambda x: FrozenSlotData(x * 2, FrozenSlotData(1)),
    "instance with methods of its own": lambda x: LoudComparison(x * 2),
    "shared list": lambda x: (lambda shared: [shared, shared])([x * 2]),
}


@pytest.mark.parametrize("make", RESULTS.values(), ids=RESULTS)
@pytest.mark.parametrize("wrap", [autojit.jit, autojit.jax_autojit])
def test_the_result_of_a_hit_is_put_together_without_python_code(arrays, make, wrap):
    g = wrap(lambda x: make(x))
    g(arrays[1])
    assert_runs_no_python(g, arrays[0])


def test_an_argument_that_is_returned_needs_no_python_code(arrays):
    x = arrays[0]
    tree = {"a": [x, Data(x, 1)], "b": Slots(x, "s")}
    assert_runs_no_python(autojit.jit(lambda tree: tree), tree)


def test_a_method_call_runs_no_python_code(arrays):
    class Model:
        def __init__(self, w):
            self.w = w

        @autojit.jit
        def run(self, x):
            return self.w * x

    x = arrays[0]
    model = Model(x)

    def call():
        model.run(x)

    assert_runs_no_python(model.run, x)
    assert_runs_no_python(Model.run, model, x)
    assert len(python_calls(call)) == 1  # `call` itself


def test_a_wrapped_callable_object_runs_no_python_code(arrays):
    for fun in (Matmul(jnp.eye(3)), Matmul(jnp.eye(3)).method):
        assert_runs_no_python(autojit.jit(fun), arrays[0])


def test_keywords_in_any_order_run_no_python_code(arrays):
    x = arrays[0]
    g = autojit.jit(lambda x, a, b: x * a + b)
    for _ in range(4):
        g(x, a=x, b=2.0)
        g(x, b=2.0, a=x)
    assert python_calls(g, x, a=x, b=2.0) == []
    assert python_calls(g, x, b=2.0, a=x) == []


def test_a_new_shape_runs_python_and_then_no_more(arrays):
    g = autojit.jit(lambda tree: tree["a"] + 1)
    for n in (2, 3):
        tree = {"a": jnp.ones(n)}
        assert python_calls(g, tree) != []
        g(tree)
        g(tree)
        assert python_calls(g, tree) == []


def test_a_function_made_anew_that_reads_much_runs_no_python_code(arrays):
    layers = {"a": [SlotsAndDict(arrays[0], 1), Matmul(arrays[0], 2)]}

    def make():
        return lambda y: double(y) * layers["a"][1].power

    g = autojit.jit(lambda function, y: function(y))
    for _ in range(2):
        g(make(), arrays[0])
    function = make()
    assert python_calls(g, function, arrays[0]) == []
    assert g.cache_info().traces == 1
