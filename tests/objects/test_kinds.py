"""When two objects of a kind are the same static, and what only some kinds do.

`test_positions.py` sends one of each kind through a call. Here, equality is observed in
two ways: two objects have equal skeletons with equal hashes, or not; and calls with
them share one trace of a function, or not.
"""

import collections
import datetime
import functools
import itertools
import logging
import math
import os
import sys
import threading
import types
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kinds import (
    Access,
    Color,
    Data,
    Frozen,
    FrozenSlotData,
    GetNewArgs,
    GetState,
    Level,
    Matmul,
    MyBytes,
    MyDict,
    MyFloat,
    MyInt,
    MyList,
    MySet,
    MyStr,
    MyTuple,
    Opaque,
    OpaqueOfHash,
    OpaqueUnhashable,
    OpaqueValue,
    OtherOpaqueValue,
    OtherPoint,
    Plain,
    Point,
    PrivateSlots,
    Reduced,
    Registered,
    Slots,
    SlotsAndDict,
    SubPlain,
    add,
    double,
    object_array,
    reduced_ex,
    some_slots,
    text,
    triple,
    with_attributes,
)
from numpy.testing import assert_array_equal

import autojit

NAN = float("nan")


def nan_with_payload():
    return np.frombuffer(b"\x01\x00\x00\x00\x00\x00\xf8\x7f", np.float64)[0].item()


JITTED = jax.jit(double)
DISPATCHER = autojit.jit(double)


def test_what_only_the_interpreter_can_make_is_named_in_the_error():
    """Its reduction cannot be rebuilt."""
    with pytest.raises(TypeError, match=r"args\[0\]\[0\]\.info.*version_info"):
        autojit.jit(lambda x: x)([Plain(info=sys.version_info)])


@pytest.mark.parametrize("make", [weakref.ref, lambda obj: weakref.ref(obj, print)])
def test_weak_references_are_equal_if_identical(x, make):
    """Their `==` compares what they refer to, in which the arrays are constants."""
    f = autojit.jit(lambda ref, x: ref().b * x)
    one, two = Compared(x), Compared(2 * x)
    assert one == two
    refs = make(one), make(two)
    for _ in range(2):
        for ref in refs:
            assert_array_equal(f(ref, x), ref().b * x)
    assert f.cache_info().traces == 2


class Compared:
    """All of them are equal."""

    def __init__(self, b):
        self.b = b

    def __eq__(self, other):
        return True

    def __hash__(self):
        return 1


def test_a_logger_is_left_alone(x):
    """Its reduction finds it by its name: nothing is given to it."""
    log = logging.getLogger("autojit tests")
    handler = logging.NullHandler()
    log.addHandler(handler)
    f = autojit.jit(lambda obj, x: (obj.log.isEnabledFor(10), obj))
    try:
        for _ in range(2):
            assert f(Plain(log=log), x)[1].log is log
            log.isEnabledFor(20)  # fills a cache
        assert log.handlers == [handler]
        assert log.manager is logging.Logger.manager
        assert f.cache_info().traces == 1
    finally:
        log.removeHandler(handler)


def test_a_class_that_cannot_be_hashed():
    class Meta(type):
        def __eq__(cls, other):
            return cls is other

    class Day(datetime.date, metaclass=Meta):
        pass

    day = with_attributes(Day(2020, 1, 2), note=1)
    assert autojit.jit(lambda day: (day.note, day.year))(day) == (1, 2020)


def test_integers_of_one_size_are_two_dtypes():
    f = autojit.jit(lambda array: array.dtype.char)
    for _ in range(2):
        for char in "ql":
            assert f(np.zeros(2, char)) == char


def test_a_lock_and_a_file_are_the_very_ones(x, tmp_path):
    """So that a function may use them, while it is traced."""
    lock = threading.Lock()
    with open(tmp_path / "log", "w") as file:

        @autojit.jit
        def f(tools, x):
            with tools["lock"]:
                tools["file"].write("traced")
            return x

        for _ in range(2):
            f({"lock": lock, "file": file}, x)
    assert not lock.locked()
    assert (tmp_path / "log").read_text() == "traced"


def test_an_argument_that_is_iterated_over_is_not_used_up(x):
    """The function has a copy of an iterator that can be taken apart."""
    f = autojit.jit(lambda it: sum(it))
    iterator = iter([x, 1, x])
    for _ in range(2):
        assert_array_equal(f(iterator), x + 1 + x)
    assert next(iterator) is x
    assert_array_equal(f(iterator), x + 1)
    assert f.cache_info().traces == 2


def test_a_random_generator_that_is_drawn_from_is_another_static(x):
    f = autojit.jit(lambda generator, x: x + generator.integers(1000))
    generator = np.random.default_rng(1)
    for number in np.random.default_rng(1).integers(1000, size=2):
        for _ in range(2):  # The function draws from a copy.
            assert_array_equal(f(generator, x), x + number)
        generator.integers(1000)
    assert f.cache_info().traces == 2


class SlotSet(set):
    __slots__ = ("tag",)


class SlotFrozenSet(frozenset):
    __slots__ = ("tag",)


# Pairs that are the same static, of objects that are made in two ways. `KINDS` has
# those that are made in the same way twice.
EQUAL = {
    "int": lambda: (10**20, int("1" + "0" * 20)),
    "float": lambda: (0.5, float("0.5")),
    "nan in complex": lambda: (complex(NAN, 0.0), complex(float("nan"), 0.0)),
    "nan in list": lambda: ([NAN], [float("nan")]),
    "nan as key": lambda: ({NAN: 1}, {float("nan"): 1}),
    "nan in set": lambda: ({NAN}, {float("nan")}),
    "nan in numpy array": lambda: (np.array([NAN]), np.array([float("nan")])),
    "numpy nan": lambda: (np.float64("nan"), np.float64(NAN)),
    "str": lambda: (text("some", " text"), text("some te", "xt")),
    "str key": lambda: ({text("a", "b"): 1}, {text("", "ab"): 1}),
    "attribute name": lambda: (
        with_attributes(Plain(), **{text("na", "me"): 1}),
        with_attributes(Plain(), name=1),
    ),
    "bytes": lambda: (b"ab", bytes([97, 98])),
    "tuple": lambda: ((1, [2]), tuple(iter([1, [2]]))),
    "list with spare room": lambda: ([1, 2], [i for i in range(3) if i]),
    "dict with a deleted key": lambda: (
        {"a": 1, "c": 3},
        {k: v for k, v in zip("abc", (1, 2, 3), strict=True) if k != "b"},
    ),
    "set in another order": lambda: ({0, 8, "s"}, {8, "s", 0}),
    "big set in another order": lambda: (
        set(map(str, range(50))),
        set(map(str, reversed(range(50)))),
    ),
    "set of tuples": lambda: ({(1, 2), (3, 4)}, {(3, 4), (1, 2)}),
    "frozenset in another order": lambda: (
        frozenset([0, 8, 16]),
        frozenset([16, 8, 0]),
    ),
    "frozenset of frozensets": lambda: (
        frozenset([frozenset([0, 8]), frozenset([1])]),
        frozenset([frozenset([1]), frozenset([8, 0])]),
    ),
    "set with attributes in another order": lambda: (
        with_attributes(SlotSet([8, 16, 0]), tag=1),
        with_attributes(SlotSet([0, 8, 16]), tag=1),
    ),
    "frozenset with attributes in another order": lambda: (
        with_attributes(SlotFrozenSet([8, 16, 0]), tag=1),
        with_attributes(SlotFrozenSet([0, 8, 16]), tag=1),
    ),
    "range": lambda: (range(0, 3, 1), range(3)),
    "slice": lambda: (slice(None, 3), slice(3)),
    "namedtuple": lambda: (Point(1, "a"), Point(b="a", a=1)),
    "enum": lambda: (Color.RED, Color(1)),
    "flattened partial": lambda: (
        functools.partial(functools.partial(add, 1), 2),
        functools.partial(add, 1, 2),
    ),
    "numpy array": lambda: (np.arange(4), np.array([0, 1, 2, 3])),
    "0-d numpy array": lambda: (np.array(1.0), np.ones(())),
    "numpy scalar": lambda: (np.float32(2), np.arange(3, dtype="f4")[2]),
    "dtype": lambda: (np.dtype("i4"), np.dtype(np.int32)),
    "structured dtype": lambda: (
        np.dtype([("a", "i4")]),
        np.dtype({"names": ["a"], "formats": [np.int32]}),
    ),
    "instance with an attribute set again": lambda: (
        Plain(a=1, b=2),
        with_attributes(Plain(a=0, b=2), a=1),
    ),
    "dataclass": lambda: (Data(1, [2]), Data(b=[2], a=1)),
    "__getstate__": lambda: (
        GetState(1, 2),
        with_attributes(GetState(1, 2), scratch="left out of the state"),
    ),
    "OrderedDict": lambda: (
        collections.OrderedDict(a=1),
        collections.OrderedDict([("a", 1)]),
    ),
}

# In each group, no two are the same static, though Python may call them equal.
DIFFERENT = {
    "constants": lambda: [
        *(None, ..., False, True, 0, 1, 1.0, 1 + 0j, Level.LOW),
        *(np.True_, np.float64(1.0), np.array(1.0)),
    ],
    "numbers": lambda: [
        *(3, MyInt(3), 2**64, 2**64 + 1),
        *(-1, -2),  # of one hash
        *(1.0, math.nextafter(1.0, 2.0), 3.5, MyFloat(3.5)),
        *(NAN, nan_with_payload()),
    ],
    "zeros": lambda: [
        *(0.0, -0.0, complex(0.0, 0.0), complex(0.0, -0.0)),
        *((0.0,), (-0.0,), {0.0: 1}, {-0.0: 1}, {0.0}, {-0.0}),
        *(np.array([0.0]), np.array([-0.0]), np.float64(0.0), np.float64(-0.0)),
        *(FrozenSlotData(0.0), FrozenSlotData(-0.0)),
    ],
    "strings": lambda: [
        *("ab", "ac", MyStr("ab"), b"ab", MyBytes(b"ab")),
        "\u6261\u0100",  # begins with the bytes of "ab"
        *(bytearray(b"ab"), bytearray(b"ac"), bytearray(b"abc")),
    ],
    "sequences": lambda: [
        *((1,), (1, 1), MyTuple((1,))),
        *([1], [1, 1], [1, 2], [2, 1], np.array([1, 2]), MyList([1])),
        *([[1], 2], [[1, 2]], [[], [[]]], [[[]], []]),
        with_attributes(MyList([1]), note=1),
        with_attributes(MyList([1]), note=2),
        collections.deque([1], maxlen=2),
        collections.deque([1], maxlen=3),
    ],
    "dicts": lambda: [
        *({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1}, {"b": 1}, {"a": True}),
        *({1: "a"}, {True: "a"}, {1.0: "a"}, {1: 2}, {2: 1}, [1, 2]),
        *({MyStr("a"): 1}, MyDict(a=1), collections.OrderedDict(a=1)),
        collections.defaultdict(list),
        collections.defaultdict(dict),
    ],
    "sets": lambda: [
        *({1, 2}, {1, 3}, {1}, {True}, {(1, 2.0)}, {(1, 2)}),
        *(frozenset({1}), MySet({1})),
    ],
    "ranges and slices": lambda: [
        *(range(3), range(4), range(1, 4), range(0, 4, 3)),
        *(slice(1), slice(True), slice(3), slice(4), slice(0, 3, 1)),
        *(slice(0, 4), slice(1, 4), slice(0, 4, 1), slice(0, 4, 2)),
    ],
    "namedtuples": lambda: [(1, 2), Point(1, 2), OtherPoint(1, 2)],
    "enums": lambda: [
        *(Color.RED, Color.BLUE, 1),
        *(Access.READ, Access.READ | Access.WRITE),
    ],
    "classes, modules and functions": lambda: [
        *(Plain, SubPlain, Plain(), math, os, double, triple, len, repr),
        *(np.float32, np.dtype("f4"), np.dtype("f8"), np.dtype(">f4")),
    ],
    "partials": lambda: [
        double,
        functools.partial(double),
        functools.partial(triple),
        functools.partial(add, 1),
        functools.partial(add, 1.0),
        functools.partial(add, x=1),
        functools.partial(add, y=1),
        functools.partial(add, y=2),
        with_attributes(functools.partial(add), note=1),
        with_attributes(functools.partial(add), note=2),
    ],
    "methods": lambda: [
        *(Plain(n=1).scaled, Plain(n=2).scaled, SubPlain(n=1).scaled),
        *(types.MethodType(double, 1), types.MethodType(triple, 1)),
    ],
    "numpy arrays": lambda: [
        *(np.zeros(2, "f4"), np.zeros(2, "<i4"), np.zeros(2, ">i4")),
        *(np.zeros(1), np.zeros((1, 1)), np.zeros((0, 1)), np.zeros((0, 2))),
        *(np.zeros((2, 3)), np.zeros((2, 3), order="F"), np.zeros((3, 2))),
        *(np.array([1, 2]), np.array([1, 3]), np.arange(3), np.arange(6)[::2]),
        *(object_array(1), object_array(True), object_array([1]), object_array([2])),
    ],
    "numpy scalars": lambda: [
        *(np.float32(0), np.float32(1), np.float32(2), np.int32(0), np.int32(1)),
    ],
    "instances": lambda: [
        *({"a": 1}, Plain(a=1), Plain(a=2), Plain(a=True), Plain(b=1)),
        *(Plain(a=1, b=None), Plain(a=1, b=2), Plain(b=2, a=1), SubPlain(a=1)),
        *(Slots(1, 2), Slots(2, 1), SlotsAndDict(1, 2)),
        *(SlotsAndDict(1, 2, c=3), SlotsAndDict(1, 2, c=4)),
        *(some_slots(a=1), some_slots(a=1, b=None), some_slots(b=1)),
        *(PrivateSlots(1), PrivateSlots(2)),
        *(Data(1, 2), Data(1, 3), Frozen(1, 2), Frozen(1), Frozen(True)),
    ],
    "reductions": lambda: [
        *(Reduced(1), Reduced(2), Registered(1), Registered(2)),
        *(reduced_ex(1, [1]), reduced_ex(1, [2]), reduced_ex(1, [("k", 1)])),
        *(reduced_ex(1, pairs={"k": 1}), reduced_ex(1, pairs={"k": 2})),
        *(reduced_ex(1, state=1), reduced_ex(1, state=2)),
        *(GetState(1), GetState(1.0), GetNewArgs(1, b=2), GetNewArgs(1, b=3)),
    ],
    "opaque objects": lambda: [
        *(Opaque(), Opaque(), OpaqueUnhashable(), OpaqueUnhashable()),
        *(OpaqueOfHash(1), OpaqueOfHash(2)),
        *(OpaqueValue(1), OpaqueValue(2), OtherOpaqueValue(1)),
    ],
    "arrays": lambda: [
        *(jnp.ones(2), np.ones(2, np.float32), None),
        *([jnp.ones(()), 1.0], [1.0, jnp.ones(())]),
    ],
}

# Where in the call tree an object may stand: both calls differ in that place alone.
PLACES = {
    "argument": lambda f, obj: f(obj),
    "keyword": lambda f, obj: f(0, key=obj),
    "item": lambda f, obj: f([1, (2, obj)]),
    "dict value": lambda f, obj: f({"a": {"b": obj}}),
    "attribute": lambda f, obj: f(Plain(a=1, b=Slots(0, obj))),
    "partial": lambda f, obj: f(functools.partial(add, y=obj)),
    "object array": lambda f, obj: f(object_array(1, obj)),
    "reduction": lambda f, obj: f(Reduced(obj)),
}


def skeleton_of(place, obj):
    def flatten(*args, **kwargs):
        return autojit.flatten((args, kwargs))[1]

    return place(flatten, obj)


@pytest.mark.parametrize("pair", EQUAL.values(), ids=EQUAL)
def test_equal_statics_have_equal_skeletons(pair):
    for name, place in PLACES.items():
        one, two = (skeleton_of(place, obj) for obj in pair())
        assert one == two, name
        assert (one != two) is False, name
        assert hash(one) == hash(two), name


@pytest.mark.parametrize("group", DIFFERENT.values(), ids=DIFFERENT)
def test_different_statics_have_different_skeletons(group):
    objects = group()
    for name, place in PLACES.items():
        skeletons = [skeleton_of(place, obj) for obj in objects]
        for i, one in enumerate(skeletons):
            equal = [j for j, two in enumerate(skeletons) if one == two]
            differ = [j for j, two in enumerate(skeletons) if one != two]
            assert equal == [i], (name, objects[i])
            assert len(differ) == len(objects) - 1, (name, objects[i])


def test_the_order_of_partials_in_a_set_does_not_depend_on_what_was_asked():
    """An empty dict of attributes is none."""
    for number in range(20):
        one, two = (functools.partial(max, number) for _ in range(2))
        assert vars(one) == {}
        sets = [{partial, "a", 1, 2.5} for partial in (one, two)]
        assert autojit.flatten(sets[0])[1] == autojit.flatten(sets[1])[1]


def counted():
    """Return a dispatcher that returns how many traces of it there were so far."""
    traces = []

    @autojit.jit
    def f(obj, key=None):
        traces.append(1)
        return len(traces)

    return f


@pytest.mark.parametrize("pair", EQUAL.values(), ids=EQUAL)
def test_equal_statics_share_a_trace(pair):
    f = counted()
    for _ in range(2):
        for obj, nested in zip(pair(), pair(), strict=True):
            assert f(obj, key={"nested": [nested]}) == 1
    assert f.cache_info()[:4] == (3, 1, 1, 1)


@pytest.mark.parametrize("group", DIFFERENT.values(), ids=DIFFERENT)
def test_different_statics_do_not_share_a_trace(group):
    f = counted()
    numbers = list(enumerate(group(), 1))
    for number, obj in numbers:
        assert f(obj) == number
    # Each one against each other one as the last that hit, and against the table.
    for (first, one), (second, two) in itertools.permutations(numbers, 2):
        assert [f(one), f(two), f(two)] == [first, second, second]
    assert f.cache_info().traces == f.cache_info().currsize == len(numbers)


def test_an_array_in_place_of_a_static_is_another_specialization(x):
    f = counted()
    calls = [1, 2.0], [1, x], [x, 2.0], [x, x], [1, x + 1]
    assert [f(pair) for pair in calls] == [1, 2, 3, 4, 2]


def test_a_static_key_of_a_dict_selects_the_specialization(x):
    f = autojit.jit(lambda d: {key: value * 2 for key, value in d.items()})
    for keys in ("ab", "ba", "ab"):
        assert list(f(dict.fromkeys(keys, x))) == list(keys)
    assert f.cache_info().traces == 2


def test_many_statics_keep_their_results(x):
    f = autojit.jit(lambda x, n, s: (s, n, x + n))
    for _ in range(2):
        for n in range(8):
            for s in ("a", "b"):
                name, number, result = f(x, n, s)
                assert (name, number) == (s, n)
                assert_array_equal(result, x + n)
    assert f.cache_info()[:4] == (16, 16, 16, 16)


def test_setstate_runs_for_the_argument_and_for_the_result(x):
    seen = []

    @autojit.jit
    def f(obj):
        seen.append(obj.scratch)
        return obj

    assert f(GetState(x)).scratch == "made by __setstate__"
    assert seen == ["made by __setstate__"]


def test_init_of_an_ordinary_class_is_not_run(x):
    inits = []

    class Counting:
        def __init__(self, a):
            inits.append(1)
            self.a = a

    obj = Counting(x)
    result = autojit.jit(lambda obj: obj)(obj)
    assert type(result) is Counting
    assert len(inits) == 1


def test_instances_of_a_class_made_inside_of_a_function_are_taken_apart(x):
    class Local:
        pass

    f = counted()
    for y in (x, x + 1):
        assert f(with_attributes(Local(), a=y, b=[1])) == 1


def test_a_class_changed_into_one_with_a_reduction_is_reduced(x):
    """A plan that was made for a class must not outlive a change of the class."""

    class Changing:
        def __init__(self, a, made=None):
            self.a = a
            if made is not None:
                self.made = made

    def reduce(self):
        return Changing, (self.a, "made by a reduction")

    f = autojit.jit(lambda obj: obj)
    assert not hasattr(f(Changing(x)), "made")
    Changing.__reduce__ = reduce
    assert f(Changing(x)).made == "made by a reduction"


def test_a_function_argument_is_traced_through(x):
    f = autojit.jit(lambda fun, x: fun(x))
    for fun, expected in (
        (double, x * 2),
        (triple, x * 3),
        (functools.partial(add, x), x + x),
        (Plain(factor=x).scaled, x * x),
        (Matmul(jnp.eye(3)), x),
        (JITTED, x * 2),
        (DISPATCHER, x * 2),
    ):
        assert_array_equal(f(fun, x), expected)


def test_weak_types_stay_the_business_of_jax():
    f = autojit.jit(lambda x: x + np.float16(1))
    expected = jax.jit(lambda x: x + np.float16(1))
    for y in jnp.ones((), jnp.float32), jnp.asarray(1.0):  # strong, weak
        assert f(y).dtype == expected(y).dtype
    assert f.cache_info().currsize == 1
