"""Types for the tests, one for each way in which an object can hold its state.

They are at module level so that ``pickle`` finds them by name. After them comes
`KINDS`, with objects of each kind that the contract knows.
"""

import array
import atexit
import collections
import contextvars
import copyreg
import datetime
import decimal
import enum
import fractions
import functools
import inspect
import io
import itertools
import logging
import math
import operator
import os
import pathlib
import random
import re
import socket
import sys
import tempfile
import threading
import time
import types
import typing
import uuid
import weakref
import zoneinfo
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax.numpy as jnp
import ml_dtypes
import numpy as np
from graphs import instance_state, is_leaf, same_graph, slot_state, walk_leaves


class Plain:
    """An ordinary instance: all its state is in ``__dict__``."""

    def __init__(self, **state):
        self.__dict__.update(state)

    def scaled(self, x):
        return x * self.factor


class SubPlain(Plain):
    """Same state as its base, another class."""


class Slots:
    __slots__ = ("a", "b")

    def __init__(self, a, b):
        self.a = a
        self.b = b


class SubSlots(Slots):
    __slots__ = ("c",)

    def __init__(self, a, b, c):
        super().__init__(a, b)
        self.c = c


class SlotsAndDict(Slots):
    """Slots from the base, and a ``__dict__`` of its own."""

    def __init__(self, a, b, **state):
        super().__init__(a, b)
        self.__dict__.update(state)


class SomeSlots:
    """A slot may be empty."""

    __slots__ = ("a", "b")


class PrivateSlots:
    """The names of private slots are mangled."""

    __slots__ = ("__secret",)

    def __init__(self, secret):
        self.__secret = secret

    def reveal(self):
        return self.__secret


class WeakSlots:
    __slots__ = ("__weakref__", "a")

    def __init__(self, a):
        self.a = a


@dataclass
class Data:
    a: Any
    b: Any = 0


@dataclass(frozen=True)
class Frozen:
    a: Any
    b: Any = 0


@dataclass(slots=True)
class SlotData:
    a: Any
    b: Any = 0


@dataclass(frozen=True, slots=True)
class FrozenSlotData:
    a: Any
    b: Any = 0


@dataclass
class Config:
    width: int = 4
    activation: str = "tanh"
    scale: float = 0.5
    layers: list = field(default_factory=list)
    options: dict = field(default_factory=dict)


class Point(NamedTuple):
    a: Any
    b: Any


class OtherPoint(NamedTuple):
    a: Any
    b: Any


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Access(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


def subclass(name, base, slots=None):
    """Return a subclass; without `slots`, its instances have a ``__dict__``."""
    return type(name, (base,), {} if slots is None else {"__slots__": slots})


MyInt = subclass("MyInt", int)
MyFloat = subclass("MyFloat", float)
MyStr = subclass("MyStr", str)
MyBytes = subclass("MyBytes", bytes)
MyTuple = subclass("MyTuple", tuple)
MyList = subclass("MyList", list)
MyDict = subclass("MyDict", dict)
MySet = subclass("MySet", set)
MyComplex = subclass("MyComplex", complex)
MyBytearray = subclass("MyBytearray", bytearray)
MyFrozenset = subclass("MyFrozenset", frozenset)
MyDeque = subclass("MyDeque", collections.deque)
MyDefaultDict = subclass("MyDefaultDict", collections.defaultdict)
MyOrderedDict = subclass("MyOrderedDict", collections.OrderedDict)
MyPartial = subclass("MyPartial", functools.partial)
MyModule = subclass("MyModule", types.ModuleType)
MyArray = subclass("MyArray", np.ndarray)
# A namedtuple has no `__dict__`.
SubPoint = subclass("SubPoint", Point)

BareInt = subclass("BareInt", int, slots=())
BareStr = subclass("BareStr", str, slots=())
BareTuple = subclass("BareTuple", tuple, slots=())
MyCounter = subclass("MyCounter", collections.Counter, slots=("slot",))
SlotDefaultDict = subclass("SlotDefaultDict", collections.defaultdict, slots=("slot",))
SlotDate = subclass("SlotDate", datetime.date, slots=("slot",))
SlotError = subclass("SlotError", ValueError, slots=("slot",))
MyFraction = subclass("MyFraction", fractions.Fraction)
BareDict = subclass("BareDict", dict, slots=())
SlotList = subclass("SlotList", list, slots=("note",))


class Reduced:
    """Says with ``__reduce__`` how it is made again."""

    def __init__(self, a, b=0):
        self.a = a
        self.b = b
        self.cache = object()

    def __reduce__(self):
        return Reduced, (self.a, self.b)

    def comparable_state(self):
        return [self.a, self.b]


class ReducedEx:
    """Uses all six places of a reduction."""

    def __init__(self, a):
        self.a = a
        self.items = []
        self.pairs = {}
        self.state = None

    def append(self, item):
        self.items.append(item)

    def extend(self, items):
        self.items.extend(items)

    def __setitem__(self, key, value):
        self.pairs[key] = value

    def __reduce_ex__(self, protocol):
        return (
            ReducedEx,
            (self.a,),
            {"state": self.state},
            iter(list(self.items)),
            iter(list(self.pairs.items())),
            ReducedEx._set_state,
        )

    def _set_state(self, state):
        self.state = state["state"]


class GetState:
    """Chooses its state with ``__getstate__`` and takes it in ``__setstate__``."""

    def __init__(self, a, b=0):
        self.a = a
        self.b = b
        self.scratch = "made by __init__"

    def comparable_state(self):
        return [self.a, self.b]

    def __getstate__(self):
        return {"packed": (self.a, self.b)}

    def __setstate__(self, state):
        self.a, self.b = state["packed"]
        self.scratch = "made by __setstate__"


class GetNewArgs:
    """Needs arguments to be made."""

    def __new__(cls, a, *, b):
        self = super().__new__(cls)
        self.made_with = (a, b)
        return self

    def __getnewargs_ex__(self):
        return (self.made_with[0],), {"b": self.made_with[1]}


class GetNewArgsTuple(tuple):
    """Is made of other arguments than its items."""

    def __new__(cls, a, b):
        return super().__new__(cls, ([a], b))

    def __getnewargs__(self):
        return self[0][0], self[1]


class KeywordMade:
    """Has no state but the keywords it was made with."""

    def __new__(cls, *, a, b):
        self = super().__new__(cls)
        self.a = a
        self.b = b
        return self

    def __getnewargs_ex__(self):
        return (), {"a": self.a, "b": self.b}

    def __getstate__(self):
        return None


class PartOfDict:
    """Leaves out a part of its state, and takes the rest by default."""

    def __init__(self, kept):
        self.kept = kept
        self.dropped = object()

    def __getstate__(self):
        return {"kept": self.kept}


class StateOf:
    """Its state may be anything; None is no state."""

    state = None

    def __init__(self, state):
        if state is not None:
            self.state = state

    def __getstate__(self):
        return self.state

    def __setstate__(self, state):
        self.state = state


class StateWithSlots:
    """Gives its state as pickle knows it: that of the dict and that of the slots."""

    __slots__ = ("__dict__", "slot")

    def __init__(self, of_dict, of_slots):
        self.__dict__.update(of_dict or {})
        for name, state in (of_slots or {}).items():
            setattr(self, name, state)

    def __getstate__(self):
        return dict(self.__dict__) or None, slot_state(self) or None


class SetState:
    """Takes its state, but does not choose it."""

    def __init__(self, a):
        self.a = a

    def __setstate__(self, state):
        self.__dict__.update(state, was_set=True)


class ReducedTo:
    """Uses the first `size` places of a reduction."""

    def __init__(self, size, a, b=0):
        self.size = size
        self.a = a
        self.b = b

    def append(self, item):
        self.__dict__.setdefault("items", []).append(item)

    def __setitem__(self, key, value):
        self.__dict__.setdefault("pairs", {})[key] = value

    def _set_state(self, state):
        self.note = state["note"]

    def __reduce__(self):
        items = iter(self.items) if self.size > 3 else None
        pairs = iter(self.pairs.items()) if self.size > 4 else None
        state = {"note": self.note} if self.size > 2 else None
        parts = (ReducedTo, (self.size, self.a, self.b), state, items, pairs)
        return (*parts, ReducedTo._set_state)[: self.size]


def reduced_to(size, a, b=0):
    """Return a `ReducedTo` with something in each place of its reduction."""
    obj = ReducedTo(size, a, b)
    if size > 3:
        obj.append(a)
        obj.append(1)
    if size > 4:
        obj["k"] = a
    if size > 2:
        obj.note = [a]
    return obj


class Registered:
    """``copyreg`` knows how to reduce it."""

    def __init__(self, a):
        self.a = a
        self.token = object()

    def comparable_state(self):
        return [self.a]


def _reduce_registered(obj):
    return Registered, (obj.a,)


copyreg.pickle(Registered, _reduce_registered)


class Singleton:
    """Reduces to the name of a global."""

    handed_through_whole = True

    def __reduce__(self):
        return "SINGLETON"


SINGLETON = Singleton()


class OtherSingleton(Singleton):
    def __reduce__(self):
        return "OTHER_SINGLETON"


OTHER_SINGLETON = OtherSingleton()


class RegisteredName:
    """``copyreg`` reduces it to the name of a global."""

    handed_through_whole = True


REGISTERED_NAME = RegisteredName()
copyreg.pickle(RegisteredName, lambda obj: "REGISTERED_NAME")


class Opaque:
    """Cannot be taken apart; compares by identity."""

    handed_through_whole = True

    def __reduce_ex__(self, protocol):
        raise TypeError("cannot be reduced")


class OpaqueValue(Opaque):
    """Cannot be taken apart; compares by value."""

    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return type(other) is type(self) and other.value == self.value

    def __hash__(self):
        return hash(("OpaqueValue", self.value))


class OtherOpaqueValue(OpaqueValue):
    """Equal to an `OpaqueValue` if one asks it, but of another type."""

    def __eq__(self, other):
        return isinstance(other, OpaqueValue) and other.value == self.value

    __hash__ = OpaqueValue.__hash__


class OpaqueUnhashable(Opaque):
    """Can be neither taken apart nor hashed, and equals everything."""

    def __eq__(self, other):
        return True

    __hash__ = None


class OpaqueOfHash(OpaqueUnhashable):
    """Equals everything, and has the hash that it is told."""

    def __init__(self, hashed):
        self.hashed = hashed

    def __hash__(self):
        return self.hashed


class HostileError(Exception):
    """What hostile objects raise."""


class Matmul:
    """A callable object that holds an array."""

    def __init__(self, matrix, power=1):
        self.matrix = matrix
        self.power = power

    def __call__(self, x):
        for _ in range(self.power):
            x = self.matrix @ x
        return x

    def method(self, x):
        return self.matrix @ x


def double(x):
    """Return twice `x`."""
    return x * 2


def triple(x):
    return x * 3


def add(x, y):
    return x + y


class Maker:
    """Has a class method."""

    @classmethod
    def make(cls):
        return cls()


class SubMaker(Maker):
    pass


def nested_list(depth, inner=None):
    """Return `inner` inside of `depth` lists."""
    tree = [] if inner is None else [inner]
    for _ in range(depth - 1):
        tree = [tree]
    return tree


def nested_instances(depth, inner=None):
    """Return a chain of `depth` instances with `inner` at its end."""
    node = Plain(next=inner)
    for _ in range(depth - 1):
        node = Plain(next=node)
    return node


# --- One of each kind ---
#
# `Kind` describes the objects of one row of the contract's table. `KINDS` lists all of
# the standard library and of numpy; those of JAX and of libraries are in jax_kinds.py
# and library_kinds.py.


class Kind:
    """One kind of object.

    Parameters
    ----------
    make : callable
        Called with an array, it returns a new object, equal to the others that it
        returns: with the array in it, if the kind can hold one.
    *others : callable
        The same for objects that must not share a trace with the first.
    look : callable, optional
        Turns an object into one that `same_graph` can compare: for what keeps its
        state where Python does not see it. May use the object up.
    inner : callable or str, optional
        Returns what `make` was given, or names the attribute that is it. Says that the
        kind can hold anything.
    arrays : int, optional
        How many leaves there are. By default, as many as are seen.
    whole : bool, default: False
        Whether it is handed through whole: the very object, and arrays in it are no
        leaves.
    rebuilt_as : type, optional
        Of what type the reduction makes it.
    iterates : bool, default: False
        Whether it is an iterator. In a result, it may become any other.
    returns : bool, default: True
        Whether JAX can return it.
    """

    def __init__(
        self,
        make,
        *others,
        look=None,
        inner=None,
        arrays=None,
        whole=False,
        rebuilt_as=None,
        iterates=False,
        returns=True,
    ):
        self.make = make
        self.others = others
        self.look = look or (lambda obj: obj)
        self.inner = operator.attrgetter(inner) if isinstance(inner, str) else inner
        self.whole = whole
        self.rebuilt_as = rebuilt_as
        self.iterates = iterates
        self.returns = returns
        self._arrays = arrays

    def arrays(self, x):
        """Return how many leaves an object that was made with `x` has."""
        if self.whole:
            return 0
        if self._arrays is not None:
            return self._arrays
        return len(walk_leaves(self.look(self.make(x))))

    def same(self, a, b, leaves):
        """Say whether `a`, which has come through, is like `b`, which was made."""
        if self.whole:
            return a is b or (type(a) is type(b) and same_value(a, b))
        if is_leaf(a) or is_leaf(b):
            return is_leaf(a) and is_leaf(b) and leaves(a, b)
        if type(a) is not (self.rebuilt_as or type(b)):
            return False
        return same_graph(self.look(a), self.look(b), leaves)


def whole(make, *others, **more):
    return Kind(make, *others, whole=True, **more)


def kind_of(function, argument, *others, **more):
    """Return the kind of what a function makes of an argument, and of others."""
    makers = [lambda x, arg=arg: function(arg) for arg in (argument, *others)]
    return Kind(*makers, **more)


def iterator(make, *others, **more):
    return Kind(make, *others, **{"look": list} | more, iterates=True)


first = operator.itemgetter(0)


def same_value(a, b):
    """Say whether what is handed through whole has the same value."""
    if isinstance(a, types.FunctionType):
        return a.__code__ is b.__code__
    has_value = type(a).__eq__ is not object.__eq__ and type(a).__hash__ is not None
    return has_value and a == b


def once_for_each_array(make):
    """Remember what `make` has made of the last arrays."""
    known = collections.deque(maxlen=8)

    def remembering(x):
        for array_, made in known:
            if array_ is x:
                return made
        known.append((x, make(x)))
        return known[-1][1]

    return remembering


def text(*parts):
    """Return a string that no other string is."""
    return "".join(parts)


def with_attributes(obj, **attributes):
    for name, value in attributes.items():
        setattr(obj, name, value)
    return obj


def some_slots(**attributes):
    return with_attributes(SomeSlots(), **attributes)


def reduced_ex(a, items=(), pairs=(), state=None):
    obj = ReducedEx(a)
    obj.extend(items)
    obj.pairs.update(pairs)
    obj.state = state
    return obj


def object_array(*items):
    result = np.empty(len(items), dtype=object)
    for i, item in enumerate(items):
        result[i] = item
    return result


def value(convert):
    """Look at an instance of a subclass of a builtin: its value and its attributes."""
    return lambda obj: (convert(obj), instance_state(obj))


def memory_map(*items):
    with tempfile.TemporaryFile() as file:
        mapped = np.memmap(file, np.float32, "w+", shape=len(items))
    mapped[:] = items
    return mapped


def parts_of(obj):
    """Return the arguments that a reduction calls with."""
    return obj.__reduce__()[1]


def drawn(generator):
    """Return a random generator after one draw."""
    generator.integers(10)
    return generator


def advanced(iterator):
    next(iterator)
    return iterator


def advanced_file(file):
    file.read(1)
    return file


# Functions made anew by each call of these, with what differs as argument.


def closure_over(value):
    return lambda: value


def other_closure_over(value):
    return lambda: [value]


def function_with_default(value):
    return lambda default=value: default


def function_with_keyword_default(value):
    return lambda *, default=value: default


def function_with_attribute(value):
    def function():
        return function

    return with_attributes(function, attribute=value)


def annotated_function(value):
    def function(a: value):
        return a

    return function


def recursive_function(value):
    def function(n):
        return value if n == 0 else function(n - 1)

    return function


def mutually_recursive_function(value):
    def even(n):
        return value if n == 0 else odd(n - 1)

    def odd(n):
        return not value if n == 0 else even(n - 1)

    return even


def function_with_an_empty_cell():
    code = closure_over(None).__code__
    return types.FunctionType(code, globals(), closure=(types.CellType(),))


def generator_function():
    yield 1


def renamed(function, name):
    function.__name__ = name
    return function


def local_class():
    return type("Local", (), {})


# What is compared by identity is made once.
LOCAL_CLASS = local_class()
OTHER_LOCAL_CLASS = local_class()
# A lambda is what is wanted, not a function with a name.
LAMBDA = lambda x: x + 1  # noqa: E731
OPAQUE = Opaque()
UNHASHABLE = OpaqueUnhashable()
SENTINEL = object()
FROM_HEX = bytes.fromhex
CLOSURE = closure_over(1)
GLOBALS = {"__name__": "another"}
MY_MODULE = MyModule("module")
THREAD_LOCAL = threading.local()
LOCK = threading.Lock()
RLOCK = threading.RLock()
GENERATOR = generator_function()
# Open for as long as the tests run.
FILE = open(os.devnull)  # noqa: SIM115
SOCKET = socket.socket()
atexit.register(FILE.close)
atexit.register(SOCKET.close)
REFERENT = Plain()
WEAK_REFERENCE = weakref.ref(REFERENT)
CONTEXT_VARIABLE = contextvars.ContextVar("variable")
TYPE_VARIABLE = typing.TypeVar("TYPE_VARIABLE")
MODULE = types.ModuleType("module")
CACHED = functools.lru_cache(double)

KINDS = {
    # Atoms.
    "None": Kind(lambda x: None, lambda x: False, lambda x: ...),
    "True": Kind(lambda x: True, lambda x: 1, lambda x: 1.0, lambda x: False),
    "False": Kind(lambda x: False, lambda x: 0, lambda x: None),
    "int": Kind(lambda x: 12345, lambda x: 12346, lambda x: 12345.0),
    "big int": Kind(lambda x: -(3**100), lambda x: 3**100, lambda x: 1 - 3**100),
    "float": Kind(lambda x: 1.5, lambda x: math.nextafter(1.5, 2), lambda x: "1.5"),
    "minus zero": Kind(lambda x: -0.0, lambda x: 0.0, lambda x: 0),
    "nan": Kind(lambda x: float("nan"), lambda x: -math.nan, lambda x: math.inf),
    "inf": Kind(lambda x: math.inf, lambda x: -math.inf),
    "complex": Kind(
        lambda x: complex(-0.0, 2.0), lambda x: complex(0.0, 2.0), lambda x: -2.0
    ),
    "str": Kind(
        lambda x: text("ab", "cd"), lambda x: text("ab", "ce"), lambda x: b"abcd"
    ),
    "str with surrogate": Kind(lambda x: "\udc80\0é😀", lambda x: "\udc80\0é"),
    "bytes": Kind(lambda x: bytes([1, 0, 2]), lambda x: bytes([1, 0, 3])),
    "Ellipsis": Kind(lambda x: ..., lambda x: NotImplemented),
    "NotImplemented": Kind(lambda x: NotImplemented, lambda x: None),
    # Builtin containers.
    "empty tuple": Kind(lambda x: (), lambda x: [], lambda x: ((),)),
    "tuple": Kind(
        lambda x: (x, 1, (2, x)),
        lambda x: (x, 1, (x, 2)),
        lambda x: [x, 1, (2, x)],
        inner=first,
    ),
    "empty list": Kind(lambda x: [], lambda x: (), lambda x: [[]]),
    "list": Kind(
        lambda x: [x, 1, [2, x]],
        lambda x: [x, 1, [2], x],
        lambda x: [x, True, [2, x]],
        inner=first,
    ),
    "empty dict": Kind(lambda x: {}, lambda x: set(), lambda x: {None: None}),
    "dict": Kind(
        lambda x: {"a": x, 1: "b", (2, "c"): [x], None: {}},
        lambda x: {1: "b", "a": x, (2, "c"): [x], None: {}},
        lambda x: {"a": x, True: "b", (2, "c"): [x], None: {}},
        inner=operator.itemgetter("a"),
    ),
    "dict with an instance as key": Kind(
        lambda x: {Plain(a=x): x},
        lambda x: {SubPlain(a=x): x},
        inner=lambda d: next(iter(d)).a,
    ),
    "set": Kind(
        lambda x: {1, text("a", "b"), (2, 3)},
        lambda x: {True, "ab", (2, 3)},
        lambda x: frozenset({1, "ab", (2, 3)}),
    ),
    "empty set": Kind(lambda x: set(), lambda x: frozenset()),
    "set with an instance": Kind(
        lambda x: {Plain(a=x), 3},
        lambda x: {Plain(a=x), 4},
        inner=lambda s: next(e for e in s if e != 3).a,
    ),
    "frozenset": Kind(
        lambda x: frozenset({1, "a", frozenset({2})}),
        lambda x: frozenset({1, "a", frozenset({2.0})}),
    ),
    "frozenset with an instance": Kind(
        lambda x: frozenset({Plain(a=x)}),
        lambda x: frozenset({SubPlain(a=x)}),
        inner=lambda s: next(iter(s)).a,
    ),
    "bytearray": Kind(lambda x: bytearray(b"abc"), lambda x: b"abc"),
    "array.array": Kind(
        lambda x: array.array("d", [1.0, 2.0]),
        lambda x: array.array("f", [1.0, 2.0]),
        lambda x: array.array("d", [1.0, -2.0]),
        look=lambda a: (a.typecode, a.tobytes()),
    ),
    "memoryview": Kind(
        lambda x: memoryview(bytes([1, 2, 3, 4])),
        lambda x: memoryview(bytes([1, 2, 3, 5])),
        lambda x: memoryview(bytes([1, 2, 3, 4])).cast("I"),
        lambda x: bytes([1, 2, 3, 4]),
        look=lambda m: (m.format, m.shape, m.readonly, m.tobytes()),
    ),
    "writable memoryview": Kind(
        lambda x: memoryview(bytearray(4)).cast("H"),
        lambda x: memoryview(bytes(4)).cast("H"),
        lambda x: memoryview(bytearray(4)).cast("b", (2, 2)),
        look=lambda m: (m.format, m.shape, m.readonly, m.tobytes()),
    ),
    "range": Kind(lambda x: range(1, 10, 2), lambda x: range(1, 9, 2)),
    "slice": Kind(lambda x: slice(1, None, 2), lambda x: slice(1, None, 2.0)),
    "slice with anything": Kind(
        lambda x: slice(0, x, (1,)), lambda x: slice(0, x, [1]), inner="stop"
    ),
    "namedtuple": Kind(
        lambda x: Point(x, [1]),
        lambda x: OtherPoint(x, [1]),
        lambda x: (x, [1]),
        inner="a",
    ),
    "struct sequence": Kind(
        lambda x: time.gmtime(0),
        lambda x: time.gmtime(1),
        lambda x: tuple(time.gmtime(0)),
        # Fields beyond those that count as elements.
        lambda x: time.struct_time(tuple(time.gmtime(0)), {"tm_zone": "CET"}),
        look=lambda s: [*s, s.tm_zone, s.tm_gmtoff],
    ),
    "long struct sequence": Kind(
        lambda x: os.stat_result(range(19)),
        lambda x: os.stat_result([*range(18), 0]),
        look=parts_of,
    ),
    "struct sequence with anything": Kind(
        lambda x: os.terminal_size([x, 1]),
        lambda x: os.terminal_size([x, True]),
        inner="columns",
    ),
    # By identity.
    "Enum": Kind(lambda x: Color.BLUE, lambda x: Color.RED, lambda x: 2),
    "IntEnum": Kind(lambda x: Level.HIGH, lambda x: 2),
    "Flag": Kind(lambda x: Access.READ | Access.WRITE, lambda x: Access.READ),
    "class": Kind(lambda x: Plain, lambda x: SubPlain),
    "builtin class": Kind(lambda x: int, lambda x: bool),
    "local class": Kind(lambda x: LOCAL_CLASS, lambda x: OTHER_LOCAL_CLASS),
    "module": Kind(lambda x: math, lambda x: os),
    "module made at run time": Kind(
        lambda x: MODULE, lambda x: types.ModuleType("module")
    ),
    "jax.numpy": Kind(lambda x: jnp, lambda x: np),
    "bare object": whole(lambda x: SENTINEL, lambda x: object()),
    "builtin function": Kind(lambda x: len, lambda x: repr),
    "method of a builtin class": Kind(lambda x: str.upper, lambda x: str.lower),
    "slot of a builtin class": Kind(lambda x: int.__add__, lambda x: int.__sub__),
    "method of a C object": whole(lambda x: FROM_HEX, lambda x: bytearray.fromhex),
    "numpy ufunc": whole(lambda x: np.add, lambda x: np.subtract),
    "cached function": whole(lambda x: CACHED, lambda x: functools.lru_cache(double)),
    # Functions by value.
    "function": whole(lambda x: double, lambda x: triple),
    "lambda": Kind(
        lambda x: LAMBDA,
        lambda x: lambda x: x + 1,  # The same text in another place.
        whole=True,
    ),
    "closure over nothing": whole(
        lambda x: function_with_an_empty_cell(), lambda x: closure_over(None)
    ),
    "closure": whole(
        lambda x: closure_over([1, text("a", "b"), {"k": Plain(a=2)}]),
        lambda x: closure_over([1, "ab", {"k": Plain(a=2.0)}]),
        lambda x: other_closure_over([1, "ab", {"k": Plain(a=2)}]),
    ),
    "closure over an array": whole(
        lambda x: closure_over([x, 1]),
        lambda x: closure_over([jnp.copy(x), 1]),
        lambda x: closure_over([x, 2]),
    ),
    "closure over a closure": whole(
        lambda x: closure_over((closure_over([1]), x)),
        lambda x: closure_over((closure_over([2]), x)),
    ),
    "function with a default": whole(
        lambda x: function_with_default([1, x]),
        lambda x: function_with_default([2, x]),
        lambda x: function_with_keyword_default([1, x]),
    ),
    "function with a keyword default": whole(
        lambda x: function_with_keyword_default({"a": x}),
        lambda x: function_with_keyword_default({"b": x}),
    ),
    "function with an attribute": whole(
        lambda x: function_with_attribute([1, x]),
        lambda x: function_with_attribute([2, x]),
    ),
    "annotated function": whole(
        lambda x: annotated_function(list[int]), lambda x: annotated_function(list[str])
    ),
    "renamed function": whole(
        lambda x: renamed(closure_over(1), text("na", "me")), lambda x: closure_over(1)
    ),
    "documented function": whole(
        lambda x: with_attributes(closure_over(1), __doc__=text("do", "c")),
        lambda x: closure_over(1),
    ),
    "function in another module": whole(
        lambda x: with_attributes(closure_over(1), __module__="another"),
        lambda x: closure_over(1),
    ),
    "recursive function": whole(
        lambda x: recursive_function([1]), lambda x: recursive_function([2])
    ),
    "mutually recursive functions": whole(
        lambda x: mutually_recursive_function(True),
        lambda x: mutually_recursive_function(False),
    ),
    "function over another's globals": whole(
        lambda x: types.FunctionType(double.__code__, GLOBALS),
        lambda x: types.FunctionType(double.__code__, dict(GLOBALS)),
        lambda x: double,
    ),
    "generator function": whole(
        lambda x: generator_function, lambda x: recursive_function
    ),
    "bound method": Kind(
        lambda x: Plain(factor=x, n=1).scaled,
        lambda x: Plain(factor=x, n=2).scaled,
        lambda x: SubPlain(factor=x, n=1).scaled,
        inner=lambda m: m.__self__.factor,
    ),
    "class method": Kind(lambda x: Maker.make, lambda x: SubMaker.make),
    "partial": Kind(
        lambda x: functools.partial(add, x),
        lambda x: functools.partial(add, y=x),
        lambda x: functools.partial(double, x),
        inner=lambda p: p.args[0],
    ),
    "partial with keywords": Kind(
        lambda x: functools.partial(add, 1, y=[x]),
        lambda x: functools.partial(add, 1.0, y=[x]),
        inner=lambda p: p.keywords["y"][0],
    ),
    "partial with attributes": Kind(
        lambda x: with_attributes(functools.partial(add), note=x),
        lambda x: with_attributes(functools.partial(add), other=x),
        inner="note",
    ),
    "partial of a closure": Kind(
        lambda x: functools.partial(CLOSURE, x),
        lambda x: functools.partial(closure_over(2), x),
        inner=lambda p: p.args[0],
    ),
    # numpy.
    "numpy scalar": Kind(
        lambda x: np.float32(1.5), lambda x: np.float64(1.5), lambda x: 1.5
    ),
    "numpy bool": Kind(lambda x: np.True_, lambda x: True),
    "numpy str": Kind(lambda x: np.str_("abc"), lambda x: "abc"),
    "numpy datetime": Kind(
        lambda x: np.datetime64("2020-01-01"),
        lambda x: np.datetime64("2020-01-01", "s"),
    ),
    "numpy record": Kind(
        lambda x: np.array([(1, 2.0)], "i4,f8")[0],
        lambda x: np.array([(1, 2.5)], "i4,f8")[0],
    ),
    "long double": kind_of(np.longdouble, "0.1", 0.1),
    "ml_dtypes scalar": Kind(
        lambda x: ml_dtypes.bfloat16(1.5),
        lambda x: ml_dtypes.bfloat16(2.5),
        lambda x: ml_dtypes.float8_e4m3fn(1.5),
        look=lambda s: np.asarray(s),
    ),
    "ml_dtypes int": Kind(
        lambda x: ml_dtypes.int4(3),
        lambda x: ml_dtypes.int4(-3),
        lambda x: ml_dtypes.uint4(3),
        look=lambda s: (s.dtype.name, int(s)),
    ),
    "dtype": kind_of(np.dtype, "f4", ">f4"),
    "structured dtype": Kind(
        lambda x: np.dtype([("a", "i4"), ("b", "f8", (2,))]),
        lambda x: np.dtype([("a", "i4"), ("c", "f8", (2,))]),
    ),
    "ml_dtypes dtype": kind_of(np.dtype, ml_dtypes.bfloat16, "f2"),
    "numpy array": Kind(
        lambda x: np.arange(6.0).reshape(2, 3),
        lambda x: np.arange(6.0).reshape(3, 2),
        lambda x: -np.arange(6.0).reshape(2, 3),
        lambda x: jnp.arange(6.0).reshape(2, 3),
    ),
    "empty numpy array": Kind(
        lambda x: np.zeros((0, 3), np.int8), lambda x: np.zeros((3, 0), np.int8)
    ),
    "0-d numpy array": Kind(lambda x: np.array(3), lambda x: np.array([3])),
    "Fortran array": Kind(
        lambda x: np.asfortranarray(np.arange(6).reshape(2, 3)),
        lambda x: np.arange(6).reshape(2, 3),
    ),
    "strided array": Kind(lambda x: np.arange(10)[::2], lambda x: np.arange(10)[::-2]),
    "string array": Kind(
        lambda x: np.array(["a", "bcd"]), lambda x: np.array(["a", "bcd"], "U4")
    ),
    "variable-width string array": Kind(
        lambda x: np.array(["a", text("bc", "d")], np.dtypes.StringDType()),
        lambda x: np.array(["a", "bce"], np.dtypes.StringDType()),
        look=lambda a: (a.dtype.name, a.tolist()),
    ),
    "structured array": Kind(
        lambda x: np.zeros(2, [("a", "i4"), ("b", "f8")]),
        lambda x: np.zeros(2, [("a", "i4"), ("c", "f8")]),
        lambda x: np.array([(0, 0.0), (0, -0.0)], [("a", "i4"), ("b", "f8")]),
    ),
    "structured array with objects": Kind(
        lambda x: np.array([(1, x)], [("a", "i4"), ("b", object)]),
        lambda x: np.array([(2, x)], [("a", "i4"), ("b", object)]),
        look=lambda a: (a.dtype, a.tolist()),
    ),
    "ml_dtypes array": Kind(
        lambda x: np.ones(3, ml_dtypes.bfloat16), lambda x: np.ones(3, np.float16)
    ),
    "object array": Kind(
        lambda x: object_array(x, None, ["s"]),
        lambda x: object_array(x, None, ["t"]),
        lambda x: object_array(x, None, ["s"]).reshape(3, 1),
        inner=first,
    ),
    "masked array": Kind(
        lambda x: np.ma.array([1.0, 2.0], mask=[0, 1], fill_value=9.0),
        lambda x: np.ma.array([1.0, 2.0], mask=[1, 0], fill_value=9.0),
        lambda x: np.ma.array([1.0, 2.0], mask=[0, 1], fill_value=8.0),
        lambda x: np.ma.array([1.0, 2.5], mask=[0, 1], fill_value=9.0),
        look=lambda a: (a.data, a.mask, a.fill_value, a.hardmask),
    ),
    "masked constant": Kind(
        lambda x: np.ma.masked, lambda x: np.ma.array(0.0, mask=True), look=id
    ),
    "memory-mapped array": Kind(
        lambda x: memory_map(1, 2),
        lambda x: memory_map(1, 3),
        lambda x: np.array([1, 2], np.float32),
        look=np.array,
    ),
    "record array": Kind(
        lambda x: np.rec.array([(1, 2.0)], names="a,b"),
        lambda x: np.rec.array([(1, 2.0)], names="a,c"),
        look=np.array,
    ),
    "subclass of a numpy array": Kind(
        lambda x: np.ones(2).view(MyArray), lambda x: np.ones(2), look=np.array
    ),
    "numpy Generator": Kind(
        lambda x: np.random.default_rng(1),
        lambda x: np.random.default_rng(2),
        lambda x: drawn(np.random.default_rng(1)),
        lambda x: np.random.Generator(np.random.MT19937(1)),
        look=lambda g: g.bit_generator.state,
    ),
    "numpy RandomState": kind_of(
        np.random.RandomState, 1, 2, look=lambda g: g.get_state()
    ),
    "numpy bit generator": kind_of(np.random.Philox, 1, 2, look=lambda g: g.state),
    "numpy SeedSequence": kind_of(np.random.SeedSequence, 1, 2, look=lambda s: s.state),
    "polynomial": Kind(
        lambda x: np.polynomial.Polynomial([1, 2]),
        lambda x: np.polynomial.Polynomial([1, 2], domain=[0, 1]),
        look=lambda p: (p.coef, p.domain, p.window, p.symbol),
    ),
    # Instances with ordinary state.
    "instance": Kind(
        lambda x: Plain(a=x, b=1, c=[x, "d"]),
        lambda x: SubPlain(a=x, b=1, c=[x, "d"]),
        lambda x: Plain(b=1, a=x, c=[x, "d"]),
        lambda x: Plain(a=x, b=1, c=[x, "e"]),
        inner="a",
    ),
    "empty instance": Kind(lambda x: Plain(), lambda x: SubPlain()),
    "slots": Kind(lambda x: Slots(x, "b"), lambda x: Slots("b", x), inner="a"),
    "inherited slots": Kind(
        lambda x: SubSlots(1, x, [x]), lambda x: SubSlots(2, x, [x]), inner="b"
    ),
    "slots and dict": Kind(
        lambda x: SlotsAndDict(1, x, c=[x]),
        lambda x: SlotsAndDict(1, x, d=[x]),
        inner="b",
    ),
    "empty slots": Kind(lambda x: SomeSlots(), lambda x: some_slots(a=None)),
    "one empty slot": Kind(
        lambda x: some_slots(b=x), lambda x: some_slots(a=x), inner="b"
    ),
    "private slots": Kind(
        lambda x: PrivateSlots([x, 1]),
        lambda x: PrivateSlots([x, 2]),
        inner=lambda obj: obj.reveal()[0],
    ),
    "weakref slot": Kind(
        lambda x: WeakSlots([x]), lambda x: WeakSlots((x,)), inner=lambda obj: obj.a[0]
    ),
    "dataclass": Kind(lambda x: Data(x, 2), lambda x: Data(x, 3), inner="a"),
    "nested dataclass": Kind(
        lambda x: Config(layers=[x, x], options={"k": Data(x)}),
        lambda x: Config(layers=[x, x], options={"k": Frozen(x)}),
        inner=lambda c: c.layers[0],
    ),
    "frozen dataclass": Kind(
        lambda x: Frozen(x, 2), lambda x: Frozen(x, 2.0), inner="a"
    ),
    "slotted dataclass": Kind(
        lambda x: SlotData(x, 2), lambda x: SlotData(2, x), inner="a"
    ),
    "frozen slotted dataclass": Kind(
        lambda x: FrozenSlotData(x, FrozenSlotData(1, x)),
        lambda x: FrozenSlotData(x, FrozenSlotData(2, x)),
        inner="a",
    ),
    "SimpleNamespace": Kind(
        lambda x: types.SimpleNamespace(a=x, b=1),
        lambda x: types.SimpleNamespace(a=x, b=2),
        inner="a",
    ),
    "callable instance": Kind(
        lambda x: Matmul(x, 2), lambda x: Matmul(x), inner="matrix"
    ),
    "exception": Kind(
        lambda x: ValueError("message", x),
        lambda x: ValueError("other", x),
        lambda x: TypeError("message", x),
        look=lambda e: (e.args, vars(e)),
        inner=lambda e: e.args[1],
    ),
    "exception with a note": Kind(
        lambda x: with_attributes(ValueError(), __notes__=["a"]),
        lambda x: with_attributes(ValueError(), __notes__=["b"]),
        look=lambda e: (e.args, vars(e)),
    ),
    # Subclasses of builtins.
    "OrderedDict": Kind(
        lambda x: collections.OrderedDict(b=x, a=1),
        lambda x: collections.OrderedDict(a=1, b=x),
        lambda x: {"b": x, "a": 1},
        inner=operator.itemgetter("b"),
    ),
    "OrderedDict with attributes": Kind(
        lambda x: with_attributes(collections.OrderedDict(a=1), note=x),
        lambda x: with_attributes(collections.OrderedDict(a=2), note=x),
        inner="note",
    ),
    "defaultdict": Kind(
        lambda x: collections.defaultdict(list, a=x),
        lambda x: collections.defaultdict(set, a=x),
        lambda x: collections.defaultdict(None, a=x),
        inner=operator.itemgetter("a"),
    ),
    "deque": Kind(
        lambda x: collections.deque([x, 1], maxlen=3),
        lambda x: collections.deque([x, 1], maxlen=4),
        lambda x: collections.deque([x, 1]),
        inner=first,
    ),
    "Counter": Kind(
        lambda x: collections.Counter("abba"),
        lambda x: collections.Counter("abb"),
        lambda x: {"a": 2, "b": 2},
    ),
    "Counter with attributes": Kind(
        lambda x: with_attributes(collections.Counter("abba"), note=x),
        lambda x: with_attributes(collections.Counter("abb"), note=x),
        lambda x: with_attributes(collections.Counter("abba"), other=x),
        lambda x: collections.Counter("abba"),
        inner="note",
    ),
    "subclass of Counter": Kind(
        lambda x: with_attributes(MyCounter("abba"), note=x, slot=[x]),
        lambda x: with_attributes(MyCounter("abba"), note=x, slot=(x,)),
        lambda x: with_attributes(MyCounter("abba"), note=x),
        inner="note",
    ),
    "slots of a subclass of defaultdict": Kind(
        lambda x: with_attributes(SlotDefaultDict(list, {"a": 1}), slot=x),
        lambda x: with_attributes(SlotDefaultDict(list, {"a": 2}), slot=x),
        lambda x: SlotDefaultDict(list, {"a": 1}),
        look=lambda obj: (obj.default_factory, dict(obj), getattr(obj, "slot", None)),
        inner="slot",
    ),
    "slots of a subclass of date": Kind(
        lambda x: with_attributes(SlotDate(2020, 1, 2), slot=x),
        lambda x: with_attributes(SlotDate(2020, 1, 3), slot=x),
        lambda x: with_attributes(SlotDate(2020, 1, 2), slot=[x]),
        look=lambda obj: (type(obj), str(obj), obj.slot),
        inner="slot",
    ),
    "slots of an exception": Kind(
        lambda x: with_attributes(SlotError("a"), slot=x, note=1),
        lambda x: with_attributes(SlotError("a"), slot=x, note=2),
        lambda x: with_attributes(SlotError("a"), slot=[x], note=1),
        inner="slot",
    ),
    "subclass of Fraction": Kind(
        lambda x: with_attributes(MyFraction(1, 3), note=x),
        lambda x: with_attributes(MyFraction(1, 3), note=[x]),
        look=lambda obj: (type(obj), str(obj), obj.note),
        inner="note",
    ),
    "ChainMap": Kind(
        lambda x: collections.ChainMap({"a": x}, {"b": 1}),
        lambda x: collections.ChainMap({"a": x, "b": 1}),
        inner=operator.itemgetter("a"),
    ),
    "UserDict": Kind(
        lambda x: collections.UserDict(a=x),
        lambda x: collections.UserDict(b=x),
        inner=operator.itemgetter("a"),
    ),
    "UserList": Kind(
        lambda x: collections.UserList([x, 1]),
        lambda x: collections.UserList([x, 2]),
        inner=first,
    ),
    "UserString": kind_of(collections.UserString, "a", "b"),
    "subclass of int": Kind(
        lambda x: MyInt(3), lambda x: MyInt(4), lambda x: 3, look=value(int)
    ),
    "subclass of int with attributes": Kind(
        lambda x: with_attributes(MyInt(3), note=x),
        lambda x: with_attributes(MyInt(4), note=x),
        lambda x: with_attributes(MyInt(3), other=x),
        look=value(int),
        inner="note",
    ),
    "subclass of int without dict": Kind(
        lambda x: BareInt(3), lambda x: BareInt(4), lambda x: MyInt(3), look=int
    ),
    "subclass of float": Kind(
        lambda x: MyFloat(-0.0),
        lambda x: MyFloat(0.0),
        lambda x: -0.0,
        look=value(float),
    ),
    "subclass of complex": Kind(
        lambda x: MyComplex(1, -0.0),
        lambda x: MyComplex(1, 0.0),
        lambda x: complex(1, -0.0),
        look=value(complex),
    ),
    "subclass of str": Kind(
        lambda x: MyStr("abc"), lambda x: MyStr("abd"), lambda x: "abc", look=value(str)
    ),
    "subclass of str without dict": Kind(
        lambda x: BareStr("abc"), lambda x: BareStr("abd"), lambda x: "abc", look=str
    ),
    "subclass of bytes": Kind(
        lambda x: MyBytes(b"abc"), lambda x: b"abc", look=value(bytes)
    ),
    "subclass of bytearray": Kind(
        lambda x: with_attributes(MyBytearray(b"abc"), note=x),
        lambda x: with_attributes(MyBytearray(b"abd"), note=x),
        lambda x: bytearray(b"abc"),
        look=value(bytes),
        inner="note",
    ),
    "subclass of tuple": Kind(lambda x: MyTuple([x, 1]), lambda x: (x, 1), inner=first),
    "subclass of tuple with attributes": Kind(
        lambda x: with_attributes(MyTuple([1]), note=x),
        lambda x: with_attributes(MyTuple([2]), note=x),
        inner="note",
    ),
    "subclass of tuple without dict": Kind(
        lambda x: BareTuple([x, 1]),
        lambda x: BareTuple([x, 2]),
        lambda x: MyTuple([x, 1]),
        inner=first,
    ),
    "subclass of list": Kind(lambda x: MyList([x, 1]), lambda x: [x, 1], inner=first),
    "subclass of list with attributes": Kind(
        lambda x: with_attributes(MyList([x]), note=[x]),
        lambda x: with_attributes(MyList([x]), note=(x,)),
        inner=first,
    ),
    "subclass of list with slots": Kind(
        lambda x: with_attributes(SlotList([1]), note=x),
        lambda x: with_attributes(SlotList([2]), note=x),
        lambda x: SlotList([1]),
        look=lambda obj: (list(obj), slot_state(obj)),
        inner="note",
    ),
    "subclass of dict": Kind(
        lambda x: MyDict(a=x), lambda x: {"a": x}, inner=operator.itemgetter("a")
    ),
    "subclass of dict with attributes": Kind(
        lambda x: with_attributes(MyDict(a=1), note=x),
        lambda x: with_attributes(MyDict(a=2), note=x),
        inner="note",
    ),
    "subclass of dict without dict": Kind(
        lambda x: BareDict(a=x), lambda x: MyDict(a=x), inner=operator.itemgetter("a")
    ),
    "subclass of set": Kind(lambda x: MySet([1, 2]), lambda x: {1, 2}, look=value(set)),
    "subclass of set with attributes": Kind(
        lambda x: with_attributes(MySet([1, 2]), note=x),
        lambda x: with_attributes(MySet([1, 3]), note=x),
        look=value(set),
        inner="note",
    ),
    "subclass of frozenset": Kind(
        lambda x: with_attributes(MyFrozenset([1, 2]), note=x),
        lambda x: with_attributes(MyFrozenset([1]), note=x),
        lambda x: frozenset([1, 2]),
        look=value(frozenset),
        inner="note",
    ),
    "subclass of namedtuple": Kind(
        lambda x: SubPoint(x, 1),
        lambda x: Point(x, 1),
        lambda x: with_attributes(SubPoint(x, 1), note=1),
        inner="a",
    ),
    "subclass of deque": Kind(
        lambda x: with_attributes(MyDeque([x], 3), note=1),
        lambda x: with_attributes(MyDeque([x], 3), note=2),
        lambda x: with_attributes(MyDeque([x], 4), note=1),
        inner=first,
    ),
    "subclass of defaultdict": Kind(
        lambda x: MyDefaultDict(list, a=x),
        lambda x: MyDefaultDict(set, a=x),
        lambda x: collections.defaultdict(list, a=x),
        inner=operator.itemgetter("a"),
    ),
    "subclass of defaultdict with attributes": Kind(
        lambda x: with_attributes(MyDefaultDict(list, a=1), note=x),
        lambda x: with_attributes(MyDefaultDict(list, a=1), note=[x]),
        inner="note",
    ),
    "subclass of OrderedDict": Kind(
        lambda x: MyOrderedDict(a=x),
        lambda x: collections.OrderedDict(a=x),
        inner=operator.itemgetter("a"),
    ),
    "subclass of partial": Kind(
        lambda x: MyPartial(add, x),
        lambda x: functools.partial(add, x),
        lambda x: MyPartial(add, y=x),
        inner=lambda p: p.args[0],
    ),
    "subclass of module": whole(lambda x: MY_MODULE, lambda x: MyModule("module")),
    # Reductions.
    "__reduce__": Kind(
        lambda x: Reduced(x, [x]), lambda x: Reduced(x, (x,)), arrays=2, inner="a"
    ),
    "__reduce_ex__": Kind(
        lambda x: reduced_ex(x, [x, 1], {"k": x}, [x]),
        lambda x: reduced_ex(x, [x, 2], {"k": x}, [x]),
        lambda x: reduced_ex(x, [x, 1], {"l": x}, [x]),
        lambda x: reduced_ex(x, [x, 1], {"k": x}, (x,)),
        inner="a",
    ),
    **{
        f"reduction of {size} values": Kind(
            functools.partial(reduced_to, size),
            lambda x, size=size: reduced_to(size, x, 1),
            lambda x, size=size: reduced_to(size, [x]),
            inner="a",
        )
        for size in range(2, 7)
    },
    "__reduce__ to a name": whole(lambda x: SINGLETON, lambda x: OTHER_SINGLETON),
    "copyreg": Kind(
        lambda x: Registered([x]),
        lambda x: Registered((x,)),
        arrays=1,
        inner=lambda obj: obj.a[0],
    ),
    "copyreg to a name": whole(lambda x: REGISTERED_NAME, lambda x: RegisteredName()),
    "__getnewargs__": Kind(
        lambda x: GetNewArgsTuple(x, 1),
        lambda x: GetNewArgsTuple(x, 2),
        look=lambda obj: (tuple(obj), vars(obj)),
        inner=lambda obj: obj[0][0],
    ),
    "__getnewargs_ex__": Kind(
        lambda x: GetNewArgs([x], b=x),
        lambda x: GetNewArgs((x,), b=x),
        arrays=3,
        look=lambda obj: obj.made_with,
        inner=lambda obj: obj.made_with[1],
    ),
    "__getnewargs_ex__ without state": Kind(
        lambda x: KeywordMade(a=x, b=1), lambda x: KeywordMade(a=x, b=2), inner="a"
    ),
    "__getstate__": Kind(
        lambda x: GetState(x, [1]), lambda x: GetState(x, (1,)), arrays=1, inner="a"
    ),
    "__getstate__ without __setstate__": Kind(
        lambda x: PartOfDict(x),
        lambda x: PartOfDict([x]),
        look=operator.attrgetter("kept"),
        inner="kept",
    ),
    "__getstate__ of None": kind_of(StateOf, None, False, look=vars),
    **{
        f"__getstate__ of {state!r}": Kind(
            lambda x, state=state: StateOf(state),
            lambda x: StateOf(None),
            lambda x: StateOf("other"),
            look=vars,
        )
        for state in (False, 0, 0.0, "", (), b"")
    },
    "__getstate__ of an empty list": Kind(
        lambda x: StateOf([]), lambda x: StateOf(()), look=vars
    ),
    "__getstate__ of an empty dict": Kind(
        lambda x: StateOf({}), lambda x: StateOf([]), look=vars
    ),
    "__getstate__ of an array": Kind(
        lambda x: StateOf(x), lambda x: StateOf([x]), look=vars, inner="state"
    ),
    "__getstate__ of a dict and slots": Kind(
        lambda x: StateWithSlots({"a": 1}, {"slot": x}),
        lambda x: StateWithSlots({"a": 2}, {"slot": x}),
        look=instance_state,
        inner="slot",
    ),
    "__getstate__ of None and slots": Kind(
        lambda x: StateWithSlots(None, {"slot": x}),
        lambda x: StateWithSlots(None, {"slot": [x]}),
        look=instance_state,
        inner="slot",
    ),
    "__getstate__ of a dict and no slots": Kind(
        lambda x: StateWithSlots({"a": x}, None),
        lambda x: StateWithSlots({"b": x}, None),
        look=instance_state,
        inner="a",
    ),
    "__setstate__ alone": Kind(
        lambda x: SetState(x),
        lambda x: SetState([x]),
        look=operator.attrgetter("a"),
        inner="a",
    ),
    # What cloudpickle can reduce.
    "mapping proxy": Kind(
        lambda x: types.MappingProxyType({"a": x, "b": 1}),
        lambda x: types.MappingProxyType({"b": 1, "a": x}),
        lambda x: {"a": x, "b": 1},
        look=dict,
        inner=operator.itemgetter("a"),
    ),
    "keys of a dict": Kind(
        lambda x: {"a": 1, "b": 2}.keys(), lambda x: {"b": 1, "a": 2}.keys(), look=list
    ),
    "values of a dict": Kind(
        lambda x: {"a": x, "b": 1}.values(),
        lambda x: {"a": x, "b": 2}.values(),
        look=list,
        inner=lambda view: next(iter(view)),
    ),
    "items of a dict": Kind(
        lambda x: {"a": x, "b": 1}.items(),
        lambda x: {"b": x, "a": 1}.items(),
        look=list,
        inner=lambda view: dict(view)["a"],
    ),
    "keys of an OrderedDict": Kind(
        lambda x: collections.OrderedDict(a=1).keys(),
        lambda x: {"a": 1}.keys(),
        look=list,
    ),
    "values of an OrderedDict": Kind(
        lambda x: collections.OrderedDict(a=x).values(),
        lambda x: {"a": x}.values(),
        look=list,
        inner=lambda view: next(iter(view)),
    ),
    "items of an OrderedDict": Kind(
        lambda x: collections.OrderedDict(a=x).items(),
        lambda x: {"a": x}.items(),
        look=list,
        inner=lambda view: dict(view)["a"],
    ),
    "cell": Kind(
        lambda x: types.CellType([x]),
        lambda x: types.CellType((x,)),
        look=lambda cell: cell.cell_contents,
        inner=lambda cell: cell.cell_contents[0],
    ),
    "property": kind_of(
        property, double, triple, look=lambda p: (p.fget, p.fset, p.fdel, p.__doc__)
    ),
    "staticmethod": Kind(
        lambda x: staticmethod(double),
        lambda x: classmethod(double),
        look=lambda m: m.__func__,
    ),
    "code": Kind(
        lambda x: double.__code__.replace(),
        lambda x: triple.__code__.replace(),
        look=lambda code: (code.co_name, code.co_code, code.co_consts),
    ),
    # Iterators.
    "iterator of a list": iterator(
        lambda x: iter([x, 1]),
        lambda x: iter([x, 2]),
        lambda x: advanced(iter([0, x, 1])),
    ),
    "iterator of a tuple": iterator(lambda x: iter((x, 1)), lambda x: iter([x, 1])),
    "iterator that has advanced": iterator(
        lambda x: advanced(iter([0, x])), lambda x: iter([0, x])
    ),
    "exhausted iterator": iterator(lambda x: advanced(iter([0])), lambda x: iter([0])),
    "reversed list": iterator(lambda x: reversed([1, x]), lambda x: reversed([2, x])),
    "iterator of a range": iterator(lambda x: iter(range(3)), lambda x: iter(range(4))),
    "iterator of a str": iterator(lambda x: iter("ab"), lambda x: iter("ac")),
    "iterator of a dict": iterator(
        lambda x: iter({"a": 1, "b": 1}),
        lambda x: iter({"b": 1, "a": 1}),
        rebuilt_as=type(iter([])),
    ),
    "iterator of the items of a dict": iterator(
        lambda x: iter({"a": x}.items()),
        lambda x: iter({"b": x}.items()),
        rebuilt_as=type(iter([])),
    ),
    "enumerate": iterator(
        lambda x: enumerate([x, "a"]), lambda x: enumerate([x, "a"], 1)
    ),
    "zip": iterator(
        lambda x: zip([x, 1], [2, x], strict=True),
        lambda x: zip([x, 1], [2, x], strict=False),
    ),
    "map": Kind(
        lambda x: map(double, [x, 1]),
        lambda x: map(triple, [x, 1]),
        # At what it goes over, not at what it makes.
        look=lambda m: [
            list(part) if i else part for i, part in enumerate(parts_of(m))
        ],
        iterates=True,
    ),
    "filter": iterator(
        lambda x: filter(None, [1, 0, 2]), lambda x: filter(None, [1, 2])
    ),
    # The standard library.
    "Decimal": kind_of(decimal.Decimal, "1.50", "1.5", look=repr),
    "Fraction": Kind(
        lambda x: fractions.Fraction(2, 6),
        lambda x: fractions.Fraction(1, 2),
        lambda x: 1 / 3,
    ),
    "date": Kind(
        lambda x: datetime.date(2020, 1, 2),
        lambda x: datetime.date(2020, 1, 3),
        look=repr,
    ),
    "datetime": Kind(
        lambda x: datetime.datetime(2020, 10, 25, 2, 30),
        lambda x: datetime.datetime(2020, 10, 25, 2, 30, fold=1),
        lambda x: datetime.datetime(2020, 10, 25, 2, 30, tzinfo=datetime.UTC),
        look=repr,
    ),
    "time": Kind(
        lambda x: datetime.time(2, 30),
        lambda x: datetime.time(2, 30, fold=1),
        look=repr,
    ),
    "timedelta": Kind(
        lambda x: datetime.timedelta(1, 2),
        lambda x: datetime.timedelta(1, 3),
        look=repr,
    ),
    "timezone": Kind(
        lambda x: datetime.timezone(datetime.timedelta(hours=1)),
        lambda x: datetime.timezone(datetime.timedelta(hours=1), "CET"),
        look=repr,
    ),
    "ZoneInfo": kind_of(zoneinfo.ZoneInfo, "Europe/Berlin", "Europe/Paris", look=str),
    "datetime with a ZoneInfo": Kind(
        lambda x: datetime.datetime(2020, 1, 2, tzinfo=zoneinfo.ZoneInfo("UTC")),
        lambda x: datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC),
        look=repr,
    ),
    "Path": Kind(
        lambda x: pathlib.Path("a") / "b", lambda x: pathlib.Path("a/c"), look=str
    ),
    "PurePath": Kind(
        lambda x: pathlib.PureWindowsPath("a/b"),
        lambda x: pathlib.PureWindowsPath("A/b"),
        lambda x: pathlib.PurePosixPath("a/b"),
        look=str,
    ),
    "UUID": Kind(
        lambda x: uuid.UUID(int=1), lambda x: uuid.UUID(int=2), look=lambda u: u.int
    ),
    "re.Pattern": Kind(
        lambda x: re.compile("a+"),
        lambda x: re.compile("a*"),
        lambda x: re.compile("a+", re.IGNORECASE),
        look=lambda p: (p.pattern, p.flags),
    ),
    "itemgetter": Kind(
        lambda x: operator.itemgetter("a", 1),
        lambda x: operator.itemgetter("a", 1.0),
        look=parts_of,
    ),
    "attrgetter": kind_of(operator.attrgetter, "a.b", "a", look=repr),
    "methodcaller": Kind(
        lambda x: operator.methodcaller("m", x, k=1),
        lambda x: operator.methodcaller("m", x, k=2),
        look=lambda m: list(m.__reduce__()),
        inner=lambda m: parts_of(m)[0],
    ),
    "StringIO": Kind(
        lambda x: io.StringIO("ab"),
        lambda x: advanced_file(io.StringIO("ab")),
        look=lambda f: (f.getvalue(), f.tell()),
    ),
    "BytesIO": kind_of(
        io.BytesIO, b"ab", b"ac", look=lambda f: (f.getvalue(), f.tell())
    ),
    "generic alias": Kind(lambda x: list[int], lambda x: list[str], look=repr),
    "union of types": Kind(lambda x: int | str, lambda x: str | int, look=repr),
    "typing alias": Kind(
        # `int | None` is of another type.
        lambda x: typing.Optional[int],  # noqa: UP045
        lambda x: typing.Optional[str],  # noqa: UP045
        look=repr,
    ),
    "type variable": whole(
        lambda x: TYPE_VARIABLE, lambda x: typing.TypeVar("TYPE_VARIABLE")
    ),
    "logger": kind_of(logging.getLogger, "one", "two", look=id),
    "inspect.Signature": kind_of(inspect.signature, add, double, look=str),
    "random.Random": kind_of(random.Random, 1, 2, look=lambda r: r.getstate()),
    # What is handed through whole.
    "opaque": whole(lambda x: OPAQUE, lambda x: Opaque()),
    "opaque value": whole(
        lambda x: OpaqueValue(1),
        lambda x: OpaqueValue(2),
        lambda x: OtherOpaqueValue(1),
    ),
    "opaque that cannot be hashed": whole(
        lambda x: UNHASHABLE, lambda x: OpaqueUnhashable()
    ),
    "weak reference": whole(lambda x: WEAK_REFERENCE, lambda x: weakref.ref(Plain)),
    "lock": whole(lambda x: LOCK, lambda x: threading.Lock()),
    "reentrant lock": whole(lambda x: RLOCK, lambda x: threading.RLock()),
    "generator": whole(
        lambda x: GENERATOR, lambda x: generator_function(), iterates=True
    ),
    "open file": whole(lambda x: FILE, lambda x: LOCK),
    "socket": whole(lambda x: SOCKET, lambda x: LOCK),
    "context variable": whole(
        lambda x: CONTEXT_VARIABLE, lambda x: contextvars.ContextVar("variable")
    ),
    "thread-local data": whole(lambda x: THREAD_LOCAL, lambda x: threading.local()),
}
if sys.version_info < (3, 14):  # Later, itertools can't be taken apart.
    KINDS["itertools.chain"] = iterator(
        lambda x: itertools.chain([x], [1]), lambda x: itertools.chain([x], [2])
    )
    KINDS["itertools.islice"] = iterator(
        lambda x: itertools.islice([x, 1, 2], 2),
        lambda x: itertools.islice([x, 1, 2], 1),
    )
    KINDS["itertools.cycle"] = Kind(
        lambda x: itertools.cycle([x, 1]),
        lambda x: itertools.cycle([1, x]),
        look=lambda c: list(itertools.islice(c, 5)),
        arrays=1,  # Seen more than once.
        iterates=True,
        returns=False,  # It has no end.
    )
