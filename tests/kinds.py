"""Types for the tests, one for each way in which an object can hold its state.

They are at module level so that ``pickle`` finds them by name.
"""

import copyreg
import enum
import operator
from dataclasses import dataclass, field
from typing import Any, NamedTuple


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


class MyInt(int):
    pass


class MyFloat(float):
    pass


class MyStr(str):
    pass


class MyBytes(bytes):
    pass


class MyTuple(tuple):
    pass


class MyList(list):
    pass


class MyDict(dict):
    pass


class MySet(set):
    pass


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


getter = operator.itemgetter(1)


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
