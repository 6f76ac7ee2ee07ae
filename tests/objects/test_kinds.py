"""Each kind of object: how it travels, and when two of a kind are the same static.

Equality is observed in two ways: two objects have equal skeletons with equal hashes, or
not; and calls with them share one trace of a function, or not.
"""

import collections
import datetime
import functools
import logging
import math
import os
import sys
import threading
import time
import types
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graphs import equal_leaves
from kinds import (
    KINDS,
    OPAQUE,
    UNHASHABLE,
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

import autojit

NAN = float("nan")


def nan_with_payload():
    return np.frombuffer(b"\x01\x00\x00\x00\x00\x00\xf8\x7f", np.float64)[0].item()


JITTED = jax.jit(double)
DISPATCHER = autojit.jit(double)


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def kind(request):
    return request.param


def test_object_survives_flatten_and_unflatten(x, kind):
    obj = kind.make(x)
    leaves, skeleton = autojit.flatten(obj)
    assert kind.same(skeleton.unflatten(leaves), kind.make(x), lambda a, b: a is b)


def test_flatten_finds_the_arrays_of_an_object(x, kind):
    leaves, _ = autojit.flatten(kind.make(x))
    assert len(leaves) == kind.arrays(x)
    assert all(leaf is x for leaf in leaves)


def test_object_travels_as_argument_keyword_nested_and_result(x, kind):
    if kind.iterates:
        return  # A result may be another iterator.
    make = kind.make
    traces = []

    @autojit.jit
    def f(x, obj, nested, *, keyword):
        traces.append((obj, nested["k"][0].inner, keyword))
        return obj, {"k": [nested], "keyword": keyword}

    for i in range(2):
        y = x if kind.whole else x + i
        obj, rest = f(y, make(y), {"k": [Plain(inner=make(y))]}, keyword=make(y))
        for result in (obj, rest["k"][0]["k"][0].inner, rest["keyword"]):
            assert kind.same(result, make(y), equal_leaves)

    assert len(traces) == 1
    for seen in traces[0]:
        assert kind.same(seen, make(x), lambda a, b: True)
    assert f.cache_info()[:4] == (1, 1, 1, 1)


def test_two_of_a_kind_made_alike_have_equal_skeletons(x, kind):
    _, one = autojit.flatten([kind.make(x)])
    _, two = autojit.flatten([kind.make(x if kind.whole else x + 1)])
    assert one == two
    assert (one != two) is False
    assert hash(one) == hash(two)


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
            np.testing.assert_array_equal(f(ref, x), ref().b * x)
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


def test_the_order_of_a_set_with_attributes_does_not_count():
    one, two = ([8, 16, 0], [0, 8, 16])
    for cls in SlotSet, SlotFrozenSet:
        made = [cls(items) for items in (one, two)]
        for obj in made:
            obj.tag = 1
        skeletons = [autojit.flatten(obj)[1] for obj in made]
        assert skeletons[0] == skeletons[1]
        assert hash(skeletons[0]) == hash(skeletons[1])


def test_the_order_of_partials_in_a_set_does_not_depend_on_what_was_asked():
    """An empty dict of attributes is none."""
    for number in range(20):
        one, two = (functools.partial(max, number) for _ in range(2))
        assert vars(one) == {}
        sets = [{partial, "a", 1, 2.5} for partial in (one, two)]
        assert autojit.flatten(sets[0])[1] == autojit.flatten(sets[1])[1]


class SlotSet(set):
    __slots__ = ("tag",)


class SlotFrozenSet(frozenset):
    __slots__ = ("tag",)


def test_a_class_that_cannot_be_hashed():
    class Meta(type):
        def __eq__(cls, other):
            return cls is other

    class Day(datetime.date, metaclass=Meta):
        pass

    day = Day(2020, 1, 2)
    day.note = 1
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
        np.testing.assert_array_equal(f(iterator), x + 1 + x)
    assert next(iterator) is x
    np.testing.assert_array_equal(f(iterator), x + 1)
    assert f.cache_info().traces == 2


def test_a_random_generator_that_is_drawn_from_is_another_static(x):
    f = autojit.jit(lambda generator, x: x + generator.integers(1000))
    generator = np.random.default_rng(1)
    expected = np.random.default_rng(1).integers(1000, size=2)
    for number in expected:
        for _ in range(2):  # The function draws from a copy.
            np.testing.assert_array_equal(f(generator, x), x + number)
        generator.integers(1000)
    assert f.cache_info().traces == 2


# Pairs that are the same static: makers of one object and of another.
EQUAL = {
    "True": (lambda: True, lambda: 1 == 1),
    "int": (lambda: 10**20, lambda: int("1" + "0" * 20)),
    "float": (lambda: 0.5, lambda: float("0.5")),
    "nan": (lambda: float("nan"), lambda: float("nan")),
    "nan in complex": (lambda: complex(NAN, 0.0), lambda: complex(float("nan"), 0.0)),
    "nan in list": (lambda: [float("nan")], lambda: [float("nan")]),
    "nan as key": (lambda: {float("nan"): 1}, lambda: {float("nan"): 1}),
    "nan in set": (lambda: {float("nan")}, lambda: {float("nan")}),
    "nan in numpy array": (lambda: np.array([NAN]), lambda: np.array([float("nan")])),
    "str": (lambda: text("some", " text"), lambda: text("some te", "xt")),
    "str key": (lambda: {text("a", "b"): 1}, lambda: {text("", "ab"): 1}),
    "attribute name": (
        lambda: with_attributes(Plain(), **{text("na", "me"): 1}),
        lambda: with_attributes(Plain(), name=1),
    ),
    "bytes": (lambda: b"ab", lambda: bytes([97, 98])),
    "bytearray": (lambda: bytearray(b"ab"), lambda: bytearray([97, 98])),
    "tuple": (lambda: (1, [2]), lambda: tuple(iter([1, [2]]))),
    "list with spare room": (lambda: [1, 2], lambda: [i for i in range(3) if i]),
    "dict with a deleted key": (
        lambda: {"a": 1, "c": 3},
        lambda: {k: v for k, v in zip("abc", (1, 2, 3), strict=True) if k != "b"},
    ),
    "set in another order": (lambda: {0, 8, "s"}, lambda: {8, "s", 0}),
    "big set in another order": (
        lambda: set(map(str, range(50))),
        lambda: set(map(str, reversed(range(50)))),
    ),
    "set of tuples": (lambda: {(1, 2), (3, 4)}, lambda: {(3, 4), (1, 2)}),
    "frozenset in another order": (
        lambda: frozenset([0, 8, 16]),
        lambda: frozenset([16, 8, 0]),
    ),
    "frozenset of frozensets": (
        lambda: frozenset([frozenset([0, 8]), frozenset([1])]),
        lambda: frozenset([frozenset([1]), frozenset([8, 0])]),
    ),
    "range": (lambda: range(0, 3, 1), lambda: range(3)),
    "slice": (lambda: slice(None, 3), lambda: slice(3)),
    "namedtuple": (lambda: Point(1, "a"), lambda: Point(a=1, b="a")),
    "struct sequence": (lambda: time.gmtime(0), lambda: time.gmtime(0.0)),
    "enum": (lambda: Color.RED, lambda: Color(1)),
    "function": (lambda: double, lambda: double),
    "partial": (lambda: functools.partial(add, 1), lambda: functools.partial(add, 1)),
    "flattened partial": (
        lambda: functools.partial(functools.partial(add, 1), 2),
        lambda: functools.partial(add, 1, 2),
    ),
    "bound method": (lambda: Plain(n=1).scaled, lambda: Plain(n=1).scaled),
    "numpy array": (lambda: np.arange(4), lambda: np.array([0, 1, 2, 3])),
    "0-d numpy array": (lambda: np.array(1.0), lambda: np.ones(())),
    "numpy scalar": (lambda: np.float32(2), lambda: np.arange(3, dtype="f4")[2]),
    "numpy nan": (lambda: np.float64("nan"), lambda: np.float64(NAN)),
    "dtype": (lambda: np.dtype("i4"), lambda: np.dtype(np.int32)),
    "structured dtype": (
        lambda: np.dtype([("a", "i4")]),
        lambda: np.dtype({"names": ["a"], "formats": [np.int32]}),
    ),
    "object array": (lambda: object_array("a", [1]), lambda: object_array("a", [1])),
    "instance": (lambda: Plain(a=1, b=[2]), lambda: Plain(a=1, b=[2])),
    "instance with an attribute set again": (
        lambda: Plain(a=1, b=2),
        lambda: with_attributes(Plain(a=0, b=2), a=1),
    ),
    "slots": (lambda: Slots(1, 2), lambda: Slots(1, 2)),
    "empty slot": (lambda: some_slots(a=1), lambda: some_slots(a=1)),
    "slots and dict": (
        lambda: SlotsAndDict(1, 2, c=3),
        lambda: SlotsAndDict(1, 2, c=3),
    ),
    "dataclass": (lambda: Data(1, [2]), lambda: Data(b=[2], a=1)),
    "frozen dataclass": (lambda: Frozen(1, 2), lambda: Frozen(1, 2)),
    "__reduce__": (lambda: Reduced(1, [2]), lambda: Reduced(1, [2])),
    "__reduce_ex__": (
        lambda: reduced_ex(1, [2, 3], {"k": 4}, 5),
        lambda: reduced_ex(1, [2, 3], {"k": 4}, 5),
    ),
    "__getstate__": (
        lambda: GetState(1, 2),
        lambda: with_attributes(GetState(1, 2), scratch="left out of the state"),
    ),
    "copyreg": (lambda: Registered(1), lambda: Registered(1)),
    "opaque that compares by value": (lambda: OpaqueValue(1), lambda: OpaqueValue(1)),
    "opaque": (lambda: OPAQUE, lambda: OPAQUE),
    "opaque that cannot be hashed": (lambda: UNHASHABLE, lambda: UNHASHABLE),
    "subclass": (lambda: MyList([1]), lambda: MyList([1])),
    "OrderedDict": (
        lambda: collections.OrderedDict(a=1),
        lambda: collections.OrderedDict([("a", 1)]),
    ),
}

# Pairs that are different statics, though Python may call them equal.
DIFFERENT = {
    "True and 1": (lambda: True, lambda: 1),
    "False and 0": (lambda: False, lambda: 0),
    "1 and 1.0": (lambda: 1, lambda: 1.0),
    "True and 1.0": (lambda: True, lambda: 1.0),
    "1.0 and 1+0j": (lambda: 1.0, lambda: 1 + 0j),
    "None and False": (lambda: None, lambda: False),
    "None and Ellipsis": (lambda: None, lambda: ...),
    "0.0 and -0.0": (lambda: 0.0, lambda: -0.0),
    "zeros of complex": (lambda: complex(0.0, 0.0), lambda: complex(0.0, -0.0)),
    "zeros in a tuple": (lambda: (0.0,), lambda: (-0.0,)),
    "zeros as keys": (lambda: {0.0: 1}, lambda: {-0.0: 1}),
    "zeros in a set": (lambda: {0.0}, lambda: {-0.0}),
    "zeros in a numpy array": (lambda: np.array([0.0]), lambda: np.array([-0.0])),
    "numpy zeros": (lambda: np.float64(0.0), lambda: np.float64(-0.0)),
    "nans with other bits": (lambda: NAN, nan_with_payload),
    "ints": (lambda: 2**64, lambda: 2**64 + 1),
    "close floats": (lambda: 1.0, lambda: math.nextafter(1.0, 2.0)),
    "strings": (lambda: "ab", lambda: "ac"),
    "str and bytes": (lambda: "ab", lambda: b"ab"),
    "bytes and bytearray": (lambda: b"ab", lambda: bytearray(b"ab")),
    "bytearrays": (lambda: bytearray(b"ab"), lambda: bytearray(b"ac")),
    "tuple and list": (lambda: (1,), lambda: [1]),
    "lengths": (lambda: [1, 1], lambda: [1]),
    "nesting": (lambda: [[1], 2], lambda: [[1, 2]]),
    "nesting of empties": (lambda: [[], [[]]], lambda: [[[]], []]),
    "order of a list": (lambda: [1, 2], lambda: [2, 1]),
    "order of a dict": (lambda: {"a": 1, "b": 2}, lambda: {"b": 2, "a": 1}),
    "keys": (lambda: {"a": 1}, lambda: {"b": 1}),
    "keys of other types": (lambda: {1: "a"}, lambda: {True: "a"}),
    "int and float keys": (lambda: {1: "a"}, lambda: {1.0: "a"}),
    "values": (lambda: {"a": 1}, lambda: {"a": True}),
    "key and value": (lambda: {1: 2}, lambda: {2: 1}),
    "dict and list of items": (lambda: {1: 2}, lambda: [1, 2]),
    "dict and OrderedDict": (
        lambda: {"a": 1},
        lambda: collections.OrderedDict(a=1),
    ),
    "default factories": (
        lambda: collections.defaultdict(list),
        lambda: collections.defaultdict(dict),
    ),
    "maxlen": (
        lambda: collections.deque([1], maxlen=2),
        lambda: collections.deque([1], maxlen=3),
    ),
    "sets": (lambda: {1, 2}, lambda: {1, 3}),
    "elements of other types": (lambda: {1}, lambda: {True}),
    "subset": (lambda: {1, 2}, lambda: {1}),
    "set and frozenset": (lambda: {1}, lambda: frozenset({1})),
    "elements deep in a set": (lambda: {(1, 2.0)}, lambda: {(1, 2)}),
    "ranges": (lambda: range(3), lambda: range(4)),
    "slices": (lambda: slice(3), lambda: slice(4)),
    "slice and range": (lambda: slice(0, 3, 1), lambda: range(3)),
    "types in a slice": (lambda: slice(1), lambda: slice(True)),
    "namedtuple and tuple": (lambda: Point(1, 2), lambda: (1, 2)),
    "namedtuples of two classes": (lambda: Point(1, 2), lambda: OtherPoint(1, 2)),
    "enum members": (lambda: Color.RED, lambda: Color.BLUE),
    "IntEnum and int": (lambda: Level.LOW, lambda: 1),
    "enum member and value": (lambda: Color.RED, lambda: 1),
    "flags": (lambda: Access.READ, lambda: Access.READ | Access.WRITE),
    "classes": (lambda: Plain, lambda: SubPlain),
    "class and instance": (lambda: Plain, lambda: Plain()),
    "modules": (lambda: math, lambda: os),
    "functions": (lambda: double, lambda: triple),
    "builtin functions": (lambda: len, lambda: repr),
    "partials of two functions": (
        lambda: functools.partial(double),
        lambda: functools.partial(triple),
    ),
    "arguments of a partial": (
        lambda: functools.partial(add, 1),
        lambda: functools.partial(add, 1.0),
    ),
    "positional or keyword in a partial": (
        lambda: functools.partial(add, 1),
        lambda: functools.partial(add, x=1),
    ),
    "function and partial": (lambda: double, lambda: functools.partial(double)),
    "methods of two instances": (lambda: Plain(n=1).scaled, lambda: Plain(n=2).scaled),
    "methods of two classes": (lambda: Plain(n=1).scaled, lambda: SubPlain(n=1).scaled),
    "numpy dtypes": (lambda: np.zeros(2, "f4"), lambda: np.zeros(2, "i4")),
    "byte orders": (lambda: np.zeros(2, "<i4"), lambda: np.zeros(2, ">i4")),
    "numpy shapes": (lambda: np.zeros((2, 3)), lambda: np.zeros((3, 2))),
    "numpy ndim": (lambda: np.zeros(1), lambda: np.zeros((1, 1))),
    "empty shapes": (lambda: np.zeros((0, 1)), lambda: np.zeros((0, 2))),
    "numpy orders": (
        lambda: np.zeros((2, 3), order="C"),
        lambda: np.zeros((2, 3), order="F"),
    ),
    "numpy values": (lambda: np.array([1, 2]), lambda: np.array([1, 3])),
    "numpy array and list": (lambda: np.array([1, 2]), lambda: [1, 2]),
    "numpy array and scalar": (lambda: np.array(1.0), lambda: np.float64(1.0)),
    "numpy scalar and float": (lambda: np.float64(1.0), lambda: 1.0),
    "numpy scalars": (lambda: np.float32(1), lambda: np.float32(2)),
    "types of numpy scalars": (lambda: np.float32(1), lambda: np.int32(1)),
    "numpy bool and bool": (lambda: np.True_, lambda: True),
    "dtypes": (lambda: np.dtype("f4"), lambda: np.dtype("f8")),
    "byte orders of dtypes": (lambda: np.dtype("<f4"), lambda: np.dtype(">f4")),
    "dtype and class": (lambda: np.dtype("f4"), lambda: np.float32),
    "objects in arrays": (lambda: object_array(1), lambda: object_array(True)),
    "lists in object arrays": (lambda: object_array([1]), lambda: object_array([2])),
    "attribute values": (lambda: Plain(a=1), lambda: Plain(a=2)),
    "attribute types": (lambda: Plain(a=1), lambda: Plain(a=True)),
    "attribute names": (lambda: Plain(a=1), lambda: Plain(b=1)),
    "more attributes": (lambda: Plain(a=1), lambda: Plain(a=1, b=None)),
    "instance and dict": (lambda: Plain(a=1), lambda: {"a": 1}),
    "base and subclass": (lambda: Plain(a=1), lambda: SubPlain(a=1)),
    "slot values": (lambda: Slots(1, 2), lambda: Slots(2, 1)),
    "empty and full slot": (lambda: some_slots(a=1), lambda: some_slots(a=1, b=None)),
    "which slot is empty": (lambda: some_slots(a=1), lambda: some_slots(b=1)),
    "slot or dict": (lambda: SlotsAndDict(1, 2), lambda: Slots(1, 2)),
    "the dict beside slots": (
        lambda: SlotsAndDict(1, 2, c=3),
        lambda: SlotsAndDict(1, 2, c=4),
    ),
    "private slot": (lambda: PrivateSlots(1), lambda: PrivateSlots(2)),
    "dataclasses of two classes": (lambda: Data(1, 2), lambda: Frozen(1, 2)),
    "fields": (lambda: Data(1, 2), lambda: Data(1, 3)),
    "fields of a frozen dataclass": (lambda: Frozen(1), lambda: Frozen(True)),
    "fields of a slotted dataclass": (
        lambda: FrozenSlotData(0.0),
        lambda: FrozenSlotData(-0.0),
    ),
    "int and subclass": (lambda: 3, lambda: MyInt(3)),
    "float and subclass": (lambda: 3.5, lambda: MyFloat(3.5)),
    "str and subclass": (lambda: "abc", lambda: MyStr("abc")),
    "bytes and subclass": (lambda: b"abc", lambda: MyBytes(b"abc")),
    "tuple and subclass": (lambda: (1,), lambda: MyTuple((1,))),
    "list and subclass": (lambda: [1], lambda: MyList([1])),
    "dict and subclass": (lambda: {"a": 1}, lambda: MyDict(a=1)),
    "set and subclass": (lambda: {1}, lambda: MySet({1})),
    "attributes of a list": (
        lambda: with_attributes(MyList([1]), note=1),
        lambda: with_attributes(MyList([1]), note=2),
    ),
    "str subclass as key": (lambda: {"a": 1}, lambda: {MyStr("a"): 1}),
    "reductions": (lambda: Reduced(1), lambda: Reduced(2)),
    "items of a reduction": (lambda: reduced_ex(1, [1]), lambda: reduced_ex(1, [2])),
    "pairs of a reduction": (
        lambda: reduced_ex(1, pairs={"k": 1}),
        lambda: reduced_ex(1, pairs={"k": 2}),
    ),
    "state of a reduction": (
        lambda: reduced_ex(1, state=1),
        lambda: reduced_ex(1, state=2),
    ),
    "item or pair": (
        lambda: reduced_ex(1, [("k", 1)]),
        lambda: reduced_ex(1, pairs=[("k", 1)]),
    ),
    "__getstate__": (lambda: GetState(1), lambda: GetState(1.0)),
    "__getnewargs_ex__": (lambda: GetNewArgs(1, b=2), lambda: GetNewArgs(1, b=3)),
    "copyreg": (lambda: Registered(1), lambda: Registered(2)),
    "opaque objects": (lambda: Opaque(), lambda: Opaque()),
    "opaque values": (lambda: OpaqueValue(1), lambda: OpaqueValue(2)),
    "opaque values of two classes": (
        lambda: OpaqueValue(1),
        lambda: OtherOpaqueValue(1),
    ),
    "opaque objects that equal everything": (
        lambda: OpaqueUnhashable(),
        lambda: OpaqueUnhashable(),
    ),
    "lengths of a tuple": (lambda: (1, 1), lambda: (1,)),
    "sizes of a dict": (lambda: {"a": 1, "b": 2}, lambda: {"a": 1}),
    "lengths of bytearrays": (lambda: bytearray(b"abc"), lambda: bytearray(b"ab")),
    "order of attributes": (lambda: Plain(a=1, b=2), lambda: Plain(b=2, a=1)),
    "starts of slices": (lambda: slice(0, 4), lambda: slice(1, 4)),
    "steps of slices": (lambda: slice(0, 4, 1), lambda: slice(0, 4, 2)),
    "starts of ranges": (lambda: range(4), lambda: range(1, 4)),
    "steps of ranges": (lambda: range(0, 4, 1), lambda: range(0, 4, 3)),
    "functions of methods": (
        lambda: types.MethodType(double, 1),
        lambda: types.MethodType(triple, 1),
    ),
    "keywords of a partial": (
        lambda: functools.partial(add, y=1),
        lambda: functools.partial(add, y=2),
    ),
    "attributes of a partial": (
        lambda: with_attributes(functools.partial(add), note=1),
        lambda: with_attributes(functools.partial(add), note=2),
    ),
    "ints of one hash": (lambda: -1, lambda: -2),
    "zeros of numpy scalars": (lambda: np.float32(0), lambda: np.int32(0)),
    "strided numpy values": (lambda: np.arange(3), lambda: np.arange(6)[::2]),
    "array and None": (lambda: jnp.ones(2), lambda: None),
    "array and numpy array": (lambda: jnp.ones(2), lambda: np.ones(2, np.float32)),
    "array or scalar": (lambda: [jnp.ones(()), 1.0], lambda: [1.0, jnp.ones(())]),
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


@pytest.fixture(params=PLACES.values(), ids=PLACES)
def place(request):
    return request.param


def skeleton_of(place, obj):
    def flatten(*args, **kwargs):
        return autojit.flatten((args, kwargs))[1]

    return place(flatten, obj)


@pytest.mark.parametrize(("one", "two"), EQUAL.values(), ids=EQUAL)
def test_equal_statics_have_equal_skeletons(one, two, place):
    first, second = skeleton_of(place, one()), skeleton_of(place, two())
    assert first == second
    assert (first != second) is False
    assert hash(first) == hash(second)


@pytest.mark.parametrize(("one", "two"), DIFFERENT.values(), ids=DIFFERENT)
def test_different_statics_have_different_skeletons(one, two, place):
    first, second = skeleton_of(place, one()), skeleton_of(place, two())
    assert first != second
    assert (first == second) is False
    assert second != first


def counted():
    """Return a dispatcher, and the list to which each trace of it appends."""
    traces = []

    @autojit.jit
    def f(obj, key=None):
        traces.append(1)
        return len(traces)

    return f, traces


@pytest.mark.parametrize(("one", "two"), EQUAL.values(), ids=EQUAL)
def test_equal_statics_share_a_trace(one, two):
    f, traces = counted()
    for _ in range(2):
        for make in (one, two):
            f(make(), key={"nested": [make()]})
    assert len(traces) == 1
    info = f.cache_info()
    assert (info.hits, info.misses, info.traces, info.currsize) == (3, 1, 1, 1)


@pytest.mark.parametrize(("one", "two"), DIFFERENT.values(), ids=DIFFERENT)
def test_different_statics_do_not_share_a_trace(one, two):
    f, traces = counted()
    one, two = one(), two()
    for _ in range(3):  # Against the last skeleton that hit, and against the table.
        assert [f(obj) for obj in (one, two, two)] == [1, 2, 2]
    assert len(traces) == 2
    info = f.cache_info()
    assert (info.misses, info.traces, info.currsize) == (2, 2, 2)
    assert info.hits == 7


def test_an_array_in_place_of_a_static_is_another_specialization(x):
    f, traces = counted()
    f([1, 2.0])
    f([1, x])
    f([x, 2.0])
    f([x, x])
    f([1, x + 1])
    assert len(traces) == 4


def test_a_static_key_of_a_dict_selects_the_specialization(x):
    @autojit.jit
    def f(d):
        return {key: value * 2 for key, value in d.items()}

    assert list(f({"a": x, "b": x})) == ["a", "b"]
    assert list(f({"b": x, "a": x})) == ["b", "a"]
    assert list(f({"a": x, "b": x})) == ["a", "b"]
    assert f.cache_info().traces == 2


def test_many_statics_keep_their_results(x):
    @autojit.jit
    def f(x, n, s):
        return s, n, x + n

    for _ in range(2):
        for n in range(20):
            for s in ("a", "b"):
                name, number, result = f(x, n, s)
                assert (name, number) == (s, n)
                np.testing.assert_array_equal(result, x + n)
    assert f.cache_info()[:4] == (40, 40, 40, 40)


def test_private_slots_keep_their_values(x):
    @autojit.jit
    def f(obj):
        return obj.reveal() * 2, obj

    double_x, obj = f(PrivateSlots(x))
    np.testing.assert_array_equal(double_x, x * 2)
    np.testing.assert_array_equal(obj.reveal(), x)


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

    def make(x):
        return with_attributes(Local(), a=x, b=[1])

    f, traces = counted()
    f(make(x))
    f(make(x + 1))
    assert len(traces) == 1


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
    np.testing.assert_array_equal(f(double, x), x * 2)
    np.testing.assert_array_equal(f(triple, x), x * 3)
    np.testing.assert_array_equal(f(functools.partial(add, x), x), x + x)
    np.testing.assert_array_equal(f(Plain(factor=x).scaled, x), x * x)
    np.testing.assert_array_equal(f(Matmul(jnp.eye(3)), x), x)
    np.testing.assert_array_equal(f(JITTED, x), x * 2)
    np.testing.assert_array_equal(f(DISPATCHER, x), x * 2)


def test_a_typed_prng_key_is_a_leaf():
    f, traces = counted()
    f(Plain(key=jax.random.key(0)))
    f(Plain(key=jax.random.key(1)))
    assert len(traces) == 1
    draw = autojit.jit(lambda state: jax.random.normal(state.key, (2,)))
    key = jax.random.key(3)
    np.testing.assert_allclose(draw(Plain(key=key)), jax.random.normal(key, (2,)))


def test_weak_types_stay_the_business_of_jax():
    f = autojit.jit(lambda x: x + np.float16(1))
    strong, weak = jnp.ones((), jnp.float32), jnp.asarray(1.0)
    assert f(strong).dtype == jax.jit(lambda x: x + np.float16(1))(strong).dtype
    assert f(weak).dtype == jax.jit(lambda x: x + np.float16(1))(weak).dtype
    assert f.cache_info().currsize == 1
