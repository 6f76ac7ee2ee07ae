"""Objects whose methods do what they should not, at each step of a call.

What JAX compiles is not the matter here, so that in most tests `jax.jit` gives the
function back: each call runs it, on the arrays themselves.
"""

import collections
import contextlib
import copyreg
import dataclasses
import functools
import gc
import itertools
import signal
import sys
import types
import weakref
from typing import NamedTuple

import jax
import numpy as np
import pytest
from harmless import assert_works, attempt, counted
from kinds import HostileError, Opaque, Plain

import autojit


@pytest.fixture
def uncompiled(monkeypatch):
    monkeypatch.setattr(jax, "jit", lambda fun, **options: fun)


@pytest.fixture(autouse=True)
def no_leftovers():
    """What an object does when it goes belongs to its own test."""
    yield
    State.act = None
    gc.collect()


class State:
    """What the hostile methods do at the moment; None for what they should do."""

    act = None
    called = 0


def maybe(value=None):
    """Do what is to be done now, or else return `value`."""
    if State.act is None:
        return value
    State.called += 1
    if State.called > 50:  # objects that call what calls them end somewhere
        return value
    result = State.act()
    return value if result is None else result


@contextlib.contextmanager
def acting(act):
    State.act, State.called = act, 0
    try:
        yield
    finally:
        State.act = None


@contextlib.contextmanager
def behaving():
    act, State.act = State.act, None
    try:
        yield
    finally:
        State.act = act


# One class for each method. `a` is all their state, and what tells two of them apart.


class HasA:
    def __init__(self, a=1):
        self.a = a


class ReduceEx(HasA):
    def __reduce_ex__(self, protocol):
        return maybe((type(self), (self.a,)))


class Reduce(HasA):
    def __reduce__(self):
        return maybe((type(self), (self.a,)))


class Getstate(HasA):
    def __getstate__(self):
        return maybe({"a": self.a})


class Setstate(HasA):
    def __setstate__(self, state):
        maybe()
        self.__dict__.update(state)


class Getnewargs:
    def __new__(cls, a=1):
        self = object.__new__(cls)
        self.a = a
        return self

    def __getnewargs_ex__(self):
        return maybe(((self.a,), {}))


class New:
    def __new__(cls, *args):
        maybe()
        return object.__new__(cls)


class Getattribute(HasA):
    def __getattribute__(self, name):
        if name in ("a", "__dict__"):
            return object.__getattribute__(self, name)
        return maybe(object.__getattribute__(self, name))


class Getattr(HasA):
    def __getattr__(self, name):
        maybe()
        raise AttributeError(name)


class Class(HasA):
    @property
    def __class__(self):
        return maybe(Class)


class Eq(Opaque):
    def __eq__(self, other):
        return maybe(type(other) is type(self))

    def __hash__(self):
        return 1


class Hash(Opaque):
    def __eq__(self, other):
        return type(other) is type(self)

    def __hash__(self):
        return maybe(1)


class Truth:
    def __bool__(self):
        return maybe(True)


class EqWithoutTruth(Opaque):
    """What its ``==`` returns has to be asked for its truth."""

    def __eq__(self, other):
        return Truth()

    def __hash__(self):
        return 1


class Elements(list):
    """Its reduction's items come from a generator."""

    def __reduce_ex__(self, protocol):
        def items():
            yield 1
            yield maybe(2)

        return Elements, (), None, items()


class Pairs(dict):
    def __reduce_ex__(self, protocol):
        def items():
            yield 1, 2
            yield maybe((3, 4))

        return Pairs, (), None, None, items()


class Setter:
    def __reduce_ex__(self, protocol):
        return Setter, (), {"a": 1}, None, None, Setter.set

    def set(self, state):
        maybe()


class Delete(Opaque):
    """Goes while something goes on: what it raises nobody sees."""

    def __init__(self):
        self.cycle = self

    def __reduce_ex__(self, protocol):
        Delete.__new__(Delete).cycle = 1
        raise TypeError

    def __del__(self):
        with contextlib.suppress(BaseException):
            maybe()


class Callback:
    """A weak reference's callback is called while it is reduced."""

    def __reduce_ex__(self, protocol):
        def callback(ref):
            with contextlib.suppress(BaseException):
                maybe()

        target = Plain()
        ref = weakref.ref(target, callback)
        del target, ref
        held = Plain()
        weakref.ref(held, callback)
        del held
        return Plain, ()


class MetaHash(type):
    def __hash__(cls):
        return maybe(hash(id(cls)))

    def __eq__(cls, other):
        return cls is other


class MetaEq(type):
    def __hash__(cls):
        return 7

    def __eq__(cls, other):
        return maybe(cls is other)


class MetaCheck(type):
    def __instancecheck__(cls, obj):
        return maybe(type(obj) is cls)

    def __subclasscheck__(cls, other):
        return maybe(other is cls)

    def __getattribute__(cls, name):
        maybe()
        return type.__getattribute__(cls, name)


def of_metaclass(meta):
    return lambda: meta("Made", (), {"a": 1})()


def in_a_cell(cls):
    """Make a function that closes over an object."""

    def make():
        obj = cls()
        return lambda: obj

    return make


def in_a_default(cls):
    def make():
        def function(obj=cls()):  # noqa: B008
            return obj

        function.note = cls()
        return function

    return make


def as_method(cls):
    return lambda: types.MethodType(attempt, cls())


HOSTILE = {
    cls.__name__: cls
    for cls in (
        *(ReduceEx, Reduce, Getstate, Setstate, Getnewargs, New, Getattribute, Getattr),
        *(Class, Eq, Hash, EqWithoutTruth, Elements, Pairs, Setter, Delete, Callback),
    )
}
for wrap, classes in {
    of_metaclass: (MetaHash, MetaEq, MetaCheck),
    in_a_cell: (ReduceEx, Eq, Hash, Getstate),
    in_a_default: (Eq, ReduceEx),
    as_method: (Eq, ReduceEx),
}.items():
    HOSTILE |= {f"{wrap.__name__} {cls.__name__}": wrap(cls) for cls in classes}

# When the methods begin to misbehave.
PHASES = {
    "miss": lambda world: None,
    "hit": lambda world: world.call(),
    "by hash": lambda world: (world.call(), world.f(world.x, ["another"])),
}
each_object = pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
each_phase = pytest.mark.parametrize("phase", PHASES.values(), ids=PHASES)


class World:
    """A dispatcher, and the trees that it is called with."""

    def __init__(self, x, make, phase=PHASES["miss"]):
        self.x = x
        self.make = make
        self.f, _ = counted()
        self.containers = []
        phase(self)

    def tree(self):
        with behaving():
            obj = self.make()
        tree = {"k": [[1, "text" * 2], obj, [2.5, self.x]], "obj": obj}
        self.containers[:] = [tree, tree["k"], tree["k"][0]]
        return tree

    def call(self):
        """Call with a new tree; the result if it is as it should be."""
        result, (back,) = self.f(self.x, self.tree())
        np.testing.assert_array_equal(result, self.x + 1)
        return back

    # What the methods may do.

    def clear(self):
        for container in self.containers:
            container.clear()

    def empty_and_collect(self):
        self.clear()
        gc.collect()

    def enter_same(self):
        if State.called < 5:
            self.f(self.x, {"k": [[1, "text" * 2], self.make(), [2.5, self.x]]})

    def enter_other(self):
        with behaving():
            for obj in ([7], {"other": self.x}):
                np.testing.assert_array_equal(self.f(self.x, obj)[0], self.x + 1)

    def clear_cache(self):
        self.f.clear_cache()
        gc.collect()

    def clear_and_enter(self):
        self.f.clear_cache()
        self.enter_other()


ACTS = ["clear", "empty_and_collect", "enter_same", "enter_other", "clear_cache"]
ACTS += ["clear_and_enter"]

# When the methods begin to misbehave.


def ends_well(world, act):
    """Call while objects misbehave; then all is as if nothing had happened."""
    try:
        with acting(act):
            return attempt(world.call)
    finally:
        world.containers[:] = []
        before = world.f.cache_info()
        for _ in range(2):
            back = world.call()
            assert back["k"][0] == [1, "text" * 2]
            assert back["k"][2][0] == 2.5
            # Methods are values: two of one object may be two.
            assert back["k"][1] == back["obj"] or back["k"][1] is back["obj"]
        after = world.f.cache_info()
        assert after.hits + after.misses == before.hits + before.misses + 2
        assert after.currsize <= before.currsize + 2
        assert_works(world.f, world.x)


@each_phase
@each_object
@pytest.mark.usefixtures("uncompiled")
def test_methods_that_change_what_is_walked_and_who_walks_it(x, make, phase):
    for name in ACTS:
        world = World(x, make, phase)
        _, error = ends_well(world, getattr(world, name))
        assert error is None or str(error)


def raising(error):
    def act():
        raise error

    return act


REBUILDING = {Setstate, New, Setter, Elements, Pairs}


@each_phase
@each_object
@pytest.mark.usefixtures("uncompiled")
def test_methods_that_raise(x, make, phase):
    for error in (HostileError("mine"), StopIteration(), AttributeError("mine")):
        _, seen = ends_well(World(x, make, phase), raising(error))
        # It may be that only the rebuilding failed, and there it is a TypeError.
        assert seen is None or (make in REBUILDING and type(seen) is TypeError)


INTERRUPTS = [KeyboardInterrupt, SystemExit, MemoryError]


SEEN = {n: make for n, make in HOSTILE.items() if make not in (Delete, Callback)}


@each_phase
@pytest.mark.parametrize("make", SEEN.values(), ids=SEEN)
@pytest.mark.usefixtures("uncompiled")
def test_interrupts_in_methods_propagate(x, make, phase):
    for interrupt in [*INTERRUPTS, RecursionError]:
        world = World(x, make, phase)
        raised = []

        def act(raised=raised, interrupt=interrupt):
            raised.append(interrupt("from the method"))
            raise raised[0]

        error = None
        try:
            _, error = ends_well(world, act)
        except interrupt as caught:
            error = caught
        if not raised:
            assert error is None
        elif interrupt is RecursionError:
            # Another one, that says where it was. A function that holds such an object
            # goes by identity.
            by_identity = isinstance(make(), types.FunctionType)
            assert type(error) is interrupt or (error is None and by_identity)
        else:
            assert error is raised[0]


NONSENSE = [
    *(NotImplemented, 2**200, -1, "text", b"", object, object()),
    *((), (list,), (list, ()) * 4, (list, 5), (None, None), [list, ()], {}),
    *(Truth(), types.SimpleNamespace(), np.array([True, False])),
]


@each_phase
@each_object
@pytest.mark.usefixtures("uncompiled")
def test_methods_that_return_nonsense(x, make, phase):
    for value in NONSENSE:
        _, error = ends_well(World(x, make, phase), lambda value=value: value)
        if error is not None:
            assert isinstance(error, TypeError | AttributeError | ValueError)


@each_object
@pytest.mark.usefixtures("uncompiled")
def test_methods_in_results(x, make):
    """The objects are made in the function: their result is flattened and rebuilt."""

    @autojit.jit
    def f(x, armed):
        tree = {"k": [make(), x + 1], "n": 1}
        world.containers[:] = [tree["k"], tree]
        State.act, State.called = planned[0] if armed else None, 0
        return tree

    world, planned = World(x, make), [None]
    names = ["clear", "empty_and_collect", "enter_other", "clear_cache"]
    acts = [getattr(world, name) for name in names]
    acts += [raising(HostileError("mine")), lambda: 2**200, lambda: NotImplemented]
    for act in acts:
        world.f, _ = counted()
        planned[0] = act
        for armed in (False, True, False, True):
            result, error = attempt(f, x, armed)
            State.act = None
            if not armed:
                assert error is None
                np.testing.assert_array_equal(result["k"][1], x + 1)
            else:
                assert error is None or str(error)
    for interrupt in INTERRUPTS:
        planned[0] = raising(interrupt)
        try:
            f(x, True)
        except interrupt:
            assert State.called
        else:
            assert not State.called or make in (Delete, Callback)
        State.act = None
        np.testing.assert_array_equal(f(x, False)["k"][1], x + 1)


@pytest.mark.parametrize("make", [ReduceEx, Eq, Hash, Setstate, Elements])
def test_methods_that_misbehave_under_the_real_compiler(x, make):
    for name in ACTS:
        world = World(x, make, PHASES["hit"])
        ends_well(world, getattr(world, name))


# What is wrapped.


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("name", ACTS)
def test_a_callable_object_that_misbehaves(x, name):
    class Callable(ReduceEx):
        def __call__(self, y):
            return maybe(y + self.a)

    f = autojit.jit(Callable(2))
    world = World(x, ReduceEx)
    np.testing.assert_array_equal(f(x), x + 2)
    with acting(getattr(world, name)):
        attempt(f, x)
    for _ in range(2):
        np.testing.assert_array_equal(f(x), x + 2)


def test_a_repr_that_renames_the_class_in_the_message(x):
    """The message holds the name of the class and the repr, which changes it."""

    def represent(self):
        type(self).__name__ = type(self).__qualname__ = "renamed" * 10
        return "made"

    for i in range(20):
        cls = type(f"NotCallable{i}" * 5, (), {"__repr__": represent})
        with pytest.raises(TypeError, match="made"):
            autojit.jit(cls())


class Drops:
    """Lets a partial of `lender` let go of all that it lends to a call."""

    def __init__(self, lender):
        self.lender = lender

    def __reduce_ex__(self, protocol):
        self.lender[0].__setstate__((len, (), {}, None))
        gc.collect()
        return list, ()


def test_a_dispatcher_that_goes_while_it_runs(x):
    """The partial is all that holds it."""
    for _ in range(10):
        held = functools.partial(autojit.jit(lambda x, *objects: x + 1))
        np.testing.assert_array_equal(held(x, Drops([held]), [1], [2]), x + 1)


@pytest.mark.usefixtures("uncompiled")
def test_arguments_that_go_while_they_are_walked(x):
    f = autojit.jit(lambda x, *objects: (x + 1, list(objects)))
    for _ in range(10):
        lender = []
        lender.append(functools.partial(f, x, Drops(lender), [[1]], "text" * 3))
        result, error = attempt(lender[0])
        if error is None:
            np.testing.assert_array_equal(result[0], x + 1)
            # Its reduction gives another type: it goes through as itself.
            assert type(result[1][0]) is Drops
            assert result[1][1:] == [[[1]], "text" * 3]


# Classes that change, or go, while the way to take them apart is found out.


class Other:
    pass


def test_a_class_that_goes_while_it_is_looked_at(x):
    def make():
        class Evil:
            def __getattribute__(self, name):
                if name == "__reduce_ex__":
                    self.__class__ = Other
                    gc.collect()
                    made.extend(type(f"Made{i}", (), {}) for i in range(20))
                return object.__getattribute__(self, name)

        return Evil()

    made = []
    f, _ = counted()
    for _ in range(10):
        _, (back,) = f(x, [make()])
        assert type(back[0]) is Other
    assert_works(f, x)


def test_a_class_that_changes_while_it_is_looked_at(x):
    class Evil:
        changed = False

        def __init__(self):
            self.a = 1

        def __getattribute__(self, name):
            if name == "__reduce_ex__" and not Evil.changed:
                Evil.changed = True
                Evil.__setstate__ = lambda self, state: self.__dict__.update(b=2)
            return object.__getattribute__(self, name)

    f = autojit.jit(lambda obj: (x, sorted(obj.__dict__)))
    f(Evil())
    assert f(Evil())[1] == ["b"]


def state_methods_of_a_dataclass(get_module, set_module):
    """Make a class that seems to have those methods, and say of which modules."""

    @dataclasses.dataclass(frozen=True, slots=True)
    class Evil:
        a: int

    for name, module in (("getstate", get_module), ("setstate", set_module)):
        function = getattr(Evil, f"__{name}__")
        made = types.FunctionType(function.__code__, function.__globals__)
        made.__module__, made.__qualname__ = module, f"_dataclass_{name}"
        setattr(Evil, f"__{name}__", made)
    return Evil


def test_a_state_method_that_goes_while_it_is_looked_at():
    """Its module's name is an object, whose ``__str__`` deletes another method."""

    class Name:
        def __str__(self):
            if "__setstate__" in Evil.__dict__:
                del Evil.__setstate__
            gc.collect()
            return "dataclasses"

    for _ in range(10):
        Evil = state_methods_of_a_dataclass(Name(), "dataclasses")
        leaves, skeleton = autojit.flatten(Evil(1))
        assert leaves == []
        assert skeleton.unflatten([]).a == 1


@pytest.mark.parametrize("interrupt", INTERRUPTS)
def test_an_interrupt_while_a_class_is_looked_at(interrupt):
    name = type("Name", (), {"__str__": lambda self: raising(interrupt)()})()
    Evil = state_methods_of_a_dataclass(name, "dataclasses")
    with pytest.raises(interrupt):
        autojit.flatten(Evil(1))


def refuse(*args):
    raise HostileError("refused")


@pytest.mark.parametrize("hook", [None, refuse], ids=["none", "raises"])
def test_a_class_that_cannot_be_hashed(x, hook):
    meta = type("Meta", (type,), {"__hash__": hook})
    obj = meta("Evil", (HasA,), {})()
    f, traces = counted()
    for _ in range(2):
        _, (back,) = f(x, [obj])
        assert type(back[0]) is type(obj)
    assert len(traces) == 1


# Opaque for once.


def test_a_builtin_container_is_not_opaque_for_ever(x):
    """That it could not be reduced once says nothing about the next time."""
    refuses = [True]

    def reduce(obj):
        if refuses[0]:
            raise HostileError
        return collections.deque, (list(obj),)

    f = autojit.jit(lambda obj: (x, list(obj)))
    items = collections.deque([1])
    copyreg.pickle(collections.deque, reduce)
    try:
        assert f(items)[1] == [1]
        refuses[0] = False
        items.append(2)
        assert f(items)[1] == [1, 2]
    finally:
        del copyreg.dispatch_table[collections.deque]


# Nonsense that needs a class of its own.


class EvilTuple(tuple):
    __iter__ = refuse


class ShortTuple(tuple):
    def __iter__(self):
        return iter(())


class LyingTuple(tuple):
    __len__ = refuse


class NoClass:
    __class__ = property(refuse)


MISBEHAVING = {
    "raises": lambda: EvilTuple((list, ())),
    "short": lambda: ShortTuple((list, ())),
    "no length": lambda: LyingTuple((list, ())),
    "no class": NoClass,
    "arguments without class": lambda: (list, NoClass()),
    "arguments raise": lambda: (list, EvilTuple()),
    "callable without class": lambda: (NoClass(), ()),
}


@pytest.mark.parametrize("make", MISBEHAVING.values(), ids=MISBEHAVING)
@pytest.mark.usefixtures("uncompiled")
def test_a_reduction_that_misbehaves_itself_is_opaque(x, make):
    reduction = make()

    class Evil:
        def __reduce_ex__(self, protocol):
            return reduction

    f, _traces = counted()
    obj = Evil()
    for _ in range(2):
        result, (back,) = f(x, obj)
        np.testing.assert_array_equal(result, x + 1)
        assert back is obj or back == []
    assert f.cache_info().misses == 1


class Point(NamedTuple):
    a: int


class EvilPoint(Point):
    __slots__ = ()
    __iter__ = refuse


def test_a_namedtuple_in_a_set_is_not_iterated(x):
    f, traces = counted()
    for _ in range(2):
        _, (back,) = f(x, {EvilPoint(1)})
        assert [point.a for point in back] == [1]
    assert len(traces) == 1


@pytest.mark.parametrize(
    "state",
    [object(), 5, [1, 2], (), 1.5, "text"],
    ids=lambda state: type(state).__name__,
)
def test_a_partial_whose_dict_is_none(x, state):
    partial = functools.partial(list)
    partial.__setstate__((list, (), {}, state))
    f, _ = counted()
    for _ in range(2):
        result, error = attempt(f, x, partial)
        assert error is not None or result[1][0].func is list
    assert_works(f, x)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_a_repr_propagates(interrupt):
    evil = type("Evil", (Opaque,), {"__repr__": lambda self: raising(interrupt)()})()
    _, skeleton = autojit.flatten([evil])
    with pytest.raises(interrupt):
        repr(skeleton)


# Objects that go.


@pytest.mark.usefixtures("uncompiled")
def test_clearing_ends_though_what_goes_calls_again(x):
    """Each object that goes makes another specialization, with another object."""
    gone = []

    class Phoenix(Opaque):
        def __del__(self):
            gone.append(1)
            if len(gone) < 1000:
                f(x, Phoenix())

    f, _ = counted()
    f(x, Phoenix())
    f.clear_cache()
    assert len(gone) < 10
    gone[:] = [1] * 1000  # From now on they go for good.
    f.clear_cache()
    assert_works(f, x)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("maxsize", [1, 2, 7])
def test_what_goes_from_a_full_table_calls_again(x, maxsize):
    depth = []

    class Goes(Opaque):
        def __del__(self):
            if len(depth) < 20:
                depth.append(1)
                f(x, Goes())
                f(x, [len(depth)])

    f = autojit.jit(lambda x, obj: (x + 1, [obj]), maxsize=maxsize)
    for i in range(100):
        depth.clear()
        np.testing.assert_array_equal(f(x, Goes())[0], x + 1)
        assert f(x, [i])[1] == [[i]]
        assert f.cache_info().currsize <= maxsize
    depth[:] = [1] * 20
    f.clear_cache()
    assert f.cache_info().currsize == 0


@pytest.mark.usefixtures("uncompiled")
def test_matching_that_drops_what_is_matched(x):
    """``==`` on a hit clears the table, so that only the call holds its entry."""

    class Evil(Opaque):
        def __eq__(self, other):
            f.clear_cache()
            gc.collect()
            garbage.extend(bytearray(size) for size in range(1, 200))
            return True

        def __hash__(self):
            return 1

    garbage = []
    f, _ = counted()
    for _ in range(20):
        f(x, Evil())
        result, (back,) = f(x, Evil())
        np.testing.assert_array_equal(result, x + 1)
        assert type(back) is Evil
        garbage.clear()


def test_a_trace_that_drops_its_own_specialization(x):
    @autojit.jit
    def f(x, n):
        f.clear_cache()
        gc.collect()
        if n:
            return f(x, n - 1) + 1
        return x

    for _ in range(3):
        np.testing.assert_array_equal(f(x, 4), x + 4)
    assert f.cache_info().currsize <= 1


# Functions by value.


@pytest.mark.usefixtures("uncompiled")
def test_a_cell_that_changes_while_functions_are_compared(x):
    def make():
        first, second = Eq(), [[1], "text" * 2]
        return lambda: (first, second)

    def change():
        for fun in functions:
            for cell in fun.__closure__:
                cell.cell_contents = None
            fun.__defaults__ = ([1],)
            fun.__dict__.clear()
        gc.collect()

    f, _ = counted()
    for _ in range(20):
        functions = [make(), make()]
        f(x, functions[0])
        with acting(change):
            result, (back,) = f(x, functions[1])
        np.testing.assert_array_equal(result, x + 1)
        assert back is functions[1]
    assert_works(f, x)


CHANGES = [
    lambda fun: setattr(fun, "__defaults__", None),
    lambda fun: setattr(fun, "__defaults__", (1, 2)),
    lambda fun: setattr(fun, "__kwdefaults__", None),
    lambda fun: setattr(fun, "__kwdefaults__", {"k": 3, "l": 4}),
    lambda fun: setattr(fun, "__code__", fun.__code__.replace(co_name="n")),
    lambda fun: setattr(fun, "__name__", "renamed"),
    lambda fun: setattr(fun, "__doc__", 5),
    lambda fun: setattr(fun, "__module__", NoClass()),
    lambda fun: setattr(fun, "__annotations__", {"a": NoClass()}),
    lambda fun: setattr(fun, "__dict__", {"a": Eq()}),
    lambda fun: delattr(fun.__closure__[0], "cell_contents"),
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.usefixtures("uncompiled")
def test_a_function_that_changes_between_calls(x, change):
    """Its parts are exchanged for ones of other types and sizes."""

    def make(value):
        def inner(a=1, *, k=2):
            return value

        return inner

    f, _ = counted()
    f(x, make(1))
    changed = make(1)
    change(changed)
    for _ in range(2):
        assert f(x, changed)[1][0] is changed
        assert f(x, make(1))[0].shape == x.shape
    assert f.cache_info().currsize == 2
    assert_works(f, x)


@pytest.mark.parametrize("hold", [functools.partial, property])
def test_a_dispatcher_that_goes_while_it_is_called(x, hold):
    """What lends it lets it go in the midst of the call."""
    traces = 0

    def fun(x):
        nonlocal traces
        traces += 1
        if traces == 2:
            if hold is property:
                holder.__init__(None)
            else:
                holder.__setstate__((len, (), {}, {}))
            junk.extend(bytearray(200) for _ in range(1000))
        return x + 1

    junk = []
    holder = hold(autojit.jit(fun))
    call = holder.__get__ if hold is property else holder
    for array in (x, x, x[:2]):
        np.testing.assert_array_equal(call(array), array + 1)
    assert traces == 2


def test_arguments_that_go_while_it_is_called():
    """What lends them lets them go before the function is called as it is."""

    def argument():
        return [["n"] * 10, "abc"]

    def profile(frame, event, _):
        if event == "call" and frame.f_code.co_name == "flat":
            lender.__setstate__((f, (), {}, None))
            junk.extend([[i] * 5 for i in range(1000)])

    f = autojit.jit(lambda obj: obj)
    f(argument())
    junk = []
    lender = functools.partial(f, argument())
    with jax.disable_jit():
        old = sys.getprofile()
        sys.setprofile(profile)
        try:
            result = lender()
        finally:
            sys.setprofile(old)
    assert junk
    assert result == argument()


# Signals.


class Alarm(Exception):
    pass


@pytest.fixture
def alarm():
    """Return a function that raises an exception in the midst of calls of another."""

    def interrupt(call, error, times):
        def handler(number, frame):
            nonlocal raised
            raised += 1
            raise error

        raised = attempts = 0
        old = signal.signal(signal.SIGALRM, handler)
        try:
            while raised < times and attempts < 20 * times:
                attempts += 1
                try:
                    signal.setitimer(signal.ITIMER_REAL, 1e-6 + attempts % 97 * 2e-6)
                    for _ in range(20):
                        call()
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except error:
                    pass
                except TypeError as failure:
                    # It came while something was put together.
                    if not isinstance(failure.__cause__, error):
                        raise
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, old)
        return raised

    return interrupt


# Objects that run Python code, or much code, while they are taken apart.
MANY_KINDS = [
    lambda x: ReduceEx([1, x]),
    lambda x: collections.defaultdict(list, {i: [x] for i in range(9)}),
    lambda x: collections.OrderedDict(a=1, b=[x]),
    lambda x: collections.deque([1, x]),
    lambda x: Elements([1]),
    lambda x: Setstate({"a": 1}),
    lambda x: [Eq(), Hash()],
    lambda x: [Plain(a=x), {"k": (1, 2.5)}],
    lambda x: {"a": 1}.keys(),
    lambda x: in_a_cell(ReduceEx)(),
]


def assert_works_for_many_kinds(f, x):
    for make in MANY_KINDS:
        for _ in range(2):
            result, (back,) = f(x, make(x))
            np.testing.assert_array_equal(result, x + 1)
            assert type(back) is type(make(x))


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("error", [KeyboardInterrupt, Alarm])
def test_signals_in_the_midst_of_calls(x, alarm, error):
    f = autojit.jit(lambda x, obj: (x + 1, [obj]), maxsize=50)
    counter = itertools.count()

    def call():
        n = next(counter)
        try:
            f(x, MANY_KINDS[n % len(MANY_KINDS)](x))
            if n % 7 == 0:
                f(x, [n])
        except ValueError as wrapped:  # of JAX, in whose look-up the signal came
            if "Cache keys should be comparable" not in str(wrapped):
                raise
            raise error from wrapped

    assert alarm(call, error, 2000) > 1000
    assert f.cache_info().currsize <= 50
    assert_works_for_many_kinds(f, x)
    f.clear_cache()
    assert_works(counted()[0], x)


def test_signals_in_the_midst_of_compiled_calls(x, alarm):
    f = autojit.jit(lambda x, obj: (x + 1, [obj]))
    assert_works_for_many_kinds(f, x)

    def hit():
        for make in MANY_KINDS:
            f(x, make(x))

    alarm(hit, KeyboardInterrupt, 300)
    assert_works_for_many_kinds(f, x)
