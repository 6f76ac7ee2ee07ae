"""What a failed allocation leaves behind: a MemoryError, or nothing at all.

CPython can be told to fail each allocation from a certain one on, or a single one. So
every operation is run again and again, one allocation later each time, until it is no
longer reached. JAX does not promise to survive that, so what it would compile is
replaced: the function runs on the leaves themselves. All this happens in a process of
its own, since a crash would end the tests.
"""

import os
import shutil
import subprocess
import sys

import pytest
from without_jax import run

pytest.importorskip(
    "_testcapi", reason="this Python comes without _testcapi, which fails allocations"
)

DRIVER = """
import collections, copyreg, dataclasses, enum, functools, gc, operator, typing
from _testcapi import remove_mem_hooks, set_nomemory
import cloudpickle
import numpy as np

Y = Array()
# A plain dict. The one that is there asks a generator expression, and where there is no
# memory for one, CPython 3.13 crashes by itself.
cloudpickle.CloudPickler.dispatch_table = dict(cloudpickle.CloudPickler.dispatch_table)


class Attributes:
    pass


class Slots:
    __slots__ = ("a", "b")


def attributes():
    # Up to CPython 3.12 without a dict until one is asked for, and later on as well.
    made = Attributes()
    made.a = [1]
    made.b = X
    return made


def slots():
    made = Slots()
    made.b = X
    return made


class Point(typing.NamedTuple):
    a: object
    b: object


class SixParts(list):
    def __reduce_ex__(self, protocol):
        return SixParts, (), {"k": X}, iter([1, X]), iter([("a", 1)]), SixParts.set

    def __setitem__(self, key, value):
        pass

    def set(self, state):
        self.state = state


class OpaqueValue(Opaque):
    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return self.value == other.value

    def __hash__(self):
        return hash(self.value)

    def __repr__(self):
        return f"OpaqueValue({self.value!r})"


class Color(enum.Enum):
    RED = 1


def function(*args, **kwargs):
    return args


def cyclic():
    items = [X]
    items.append({"self": items, "again": items})
    return items


def object_array():
    array = np.empty(3, dtype=object)
    array[:] = [1, [2], X]
    return array


def closure(n=1):
    items = [n, X]

    def inner(y, *, k=(1, [2])):
        return items, n, y

    inner.note = {"n": n}
    return inner


def recursive():
    def one():
        return two

    def two():
        return one

    return one


def new_class():
    # An instance of a class of its own: its plan has to be made.
    cls = type("New", (), {"method": lambda self: self})
    made = cls()
    made.a = [X]
    return made


def new_data():
    made = dataclasses.make_dataclass("Data", ["a", "b"], frozen=True, slots=True)
    return made(1, X)


# Without what CPython itself crashes on where it finds no memory: an iterator over the
# items of a dict (which OrderedDict reduces to), and a bytearray that is
# not empty.
KINDS = {
    # First: what is made once in a process, the first time that it is needed.
    "partial": lambda: functools.partial(function, 1, [X], k=2),
    "method": lambda: Plain(a=X).__init__,
    "instance": lambda: Plain(a=[1], b=X),
    "attributes": attributes,
    "instance without state": Plain,
    "slots": slots,
    "constants": lambda: (None, 2**100, 0.5, 1j, "text", b"bytes", Color.RED, ...),
    "list": lambda: [1, [X], X],
    "dict": lambda: {"a": X, (1, "b"): [2]},
    "defaultdict": lambda: collections.defaultdict(list, a=X, b=[1]),
    "cyclic": cyclic,
    "shared": lambda: [[X]] * 3,
    "many": lambda: [[i] for i in range(40)],
    "leaves": lambda: [X] * 70,
    "set": lambda: {1, "b", (2, 3), frozenset([4])},
    "frozenset": lambda: frozenset([(i, str(i)) for i in range(5)]),
    "range and slice": lambda: (range(2, 2**70), slice(1, None, [X])),
    "bytearray": bytearray,
    "namedtuple": lambda: Point([1], X),
    "function": closure,
    "functions": lambda: [closure(2), recursive(), lambda: X],
    "numpy": lambda: [np.arange(6.0).reshape(2, 3), np.float32(1.5), np.dtype("f4")],
    "numpy fields": lambda: np.zeros(3, [("a", "i4"), ("b", "f8")]),
    "numpy objects": object_array,
    "reduced": lambda: Reduced([1], X),
    "six parts": SixParts,
    "deque": lambda: collections.deque([1, X], 5),
    "view": lambda: {"a": 1}.keys(),
    "opaque": lambda: [KEPT_OPAQUE, KEPT_OPAQUE],
    "opaque value": lambda: [OpaqueValue("a"), OpaqueValue(1)],
    "new class": new_class,
    "new data": new_data,
    "new namedtuple": lambda: collections.namedtuple("Named", "a b")(1, X),
    "new reduced": lambda: type("New", (), {"__reduce__": lambda self: (Plain, ())})(),
    "new opaque": lambda: type("New", (Opaque,), {})(),
}
KEPT_OPAQUE = Opaque()


def text(obj):
    # Of what a function would see.
    leaves, skeleton = autojit.flatten(obj)
    obj = skeleton.unflatten(leaves)
    leaves, skeleton = autojit.flatten(obj)
    where = [next((n for n, a in (("X", X), ("Y", Y)) if a is leaf), "?")
             for leaf in leaves]
    skeleton = repr(skeleton)
    # Functions and the like show their address.
    return " ".join(word for word in skeleton.split() if "0x" not in word), where


# Operations: what is prepared, what is done without memory, what is seen of the
# outcome, and whether the state is all right afterwards.


class Flatten:
    def prepare(self, make):
        return make()

    def call(self, obj):
        return functools.partial(core.flatten, obj, Array)

    def view(self, obj, result):
        leaves, skeleton = result
        return text(skeleton.unflatten(leaves))

    def check(self, obj):
        return None


class Unflatten(Flatten):
    def prepare(self, make):
        return autojit.flatten(make())

    def call(self, state):
        leaves, skeleton = state
        return functools.partial(skeleton.unflatten, leaves)

    def view(self, state, result):
        return text(result)


class Hash(Unflatten):
    def call(self, state):
        return functools.partial(hash, state[1])

    def view(self, state, result):
        return result == hash(state[1])


class Equal(Unflatten):
    def prepare(self, make):
        obj = make()
        return autojit.flatten(obj)[1], autojit.flatten(obj)[1]

    def call(self, state):
        return functools.partial(operator.eq, *state)

    def view(self, state, result):
        return result


class Repr(Unflatten):
    def call(self, state):
        return functools.partial(repr, state[1])

    def view(self, state, result):
        # Messages and reprs do not fail because of what cannot be shown in them.
        return type(result)


class Tree(Flatten):
    # One that JAX has put together: its object, and what that is taken apart into.
    def prepare(self, make):
        (child,), structure = core.flatten_tree(core.tree(make(), False))
        return structure, core.flatten_leaves(child)[0]

    def call(self, state):
        def call():
            structure, items = state
            tree = core.unflatten_tree(structure, (core.unflatten_leaves(None, items),))
            obj = tree.obj
            (child,), _ = core.flatten_tree(tree)
            return obj, core.flatten_leaves(child), child.paths

        return call

    def view(self, state, result):
        obj, (items, _), paths = result
        return text(obj), len(items), len(paths)


class Call:
    # What was called before, and with which bound of the table.
    before = ()
    maxsize = None

    def prepare(self, make):
        obj = make()
        f = autojit.jit(lambda obj, other: (obj, other, [Y]), maxsize=self.maxsize)
        for which in self.before:
            f((which or make)(), X)
        return f, obj, f.cache_info()

    def call(self, state):
        f, obj, _ = state
        return functools.partial(f, obj, X)

    def view(self, state, result):
        return text(result)

    def check(self, state):
        f, obj, start = state
        info = f.cache_info()
        sizes = {start.currsize, start.currsize + 1}
        if self.maxsize is not None:
            sizes = {min(size, self.maxsize) for size in sizes} | {self.maxsize - 1}
        if info.currsize not in sizes:
            return f"{start} became {info}"
        for known in (obj, ["another"], obj):
            if text(f(known, X)) != text((known, X, [Y])):
                return f"a wrong entry for {known!r}"
        again = f.cache_info()
        calls = again.hits + again.misses - info.hits - info.misses
        if calls != 3 or again.currsize > (self.maxsize or 4):
            return f"{info} became {again}"
        return None


class Miss(Call):
    pass


class Hit(Call):
    before = (None,)


class ByHash(Call):
    before = (None, list)


class Evict(Call):
    # An instance without state looks like any other whose state cannot be had.
    before = (Attributes,)
    maxsize = 1


class Result(Call):
    # The object is in the result alone.
    def prepare(self, make):
        obj = make()
        f = autojit.jit(lambda other: (obj, other, [Y]))
        f(X)
        return f, obj, f.cache_info()

    def call(self, state):
        return functools.partial(state[0], X)

    def check(self, state):
        f, obj, start = state
        if text(f(X)) != text((obj, X, [Y])) or f.cache_info().currsize != 1:
            return "a wrong result"
        return None


class Keywords(Call):
    def prepare(self, make):
        f = autojit.jit(lambda *, obj, other: (obj, other, [Y]))
        f(obj=make(), other=X)
        return f, make(), f.cache_info()

    def call(self, state):
        return functools.partial(state[0], other=X, obj=state[1])

    def check(self, state):
        f, obj, start = state
        if text(f(obj=obj, other=X)) != text((obj, X, [Y])):
            return "a wrong result"
        return None


class Wrap:
    def prepare(self, make):
        def function(x):
            return x

        function.note = make()
        bound = types.MethodType(function, make())
        partial = functools.partial(function, make())
        return function, bound, partial

    def call(self, state):
        return lambda: [autojit.jit(fun, maxsize=7) for fun in state]

    def view(self, state, result):
        return [(f.cache_info(), f.__wrapped__ is fun, f.__name__ if i == 0 else None,
                 sorted(f.__dict__), repr(f)[:12])
                for i, (f, fun) in enumerate(zip(result, state))]

    def check(self, state):
        f = autojit.jit(state[0])
        return None if f([X])[0] is X and f([X])[0] is X else "a wrong result"


class Ask:
    # What a dispatcher is asked for.
    def prepare(self, make):
        def function(x, y: int = 3) -> int:
            "Documented."

        f = autojit.jit(function)
        f(X, make())
        f(X, make())
        return f

    def call(self, f):
        return lambda: (f.cache_info(), f.__name__, f.__doc__, f.__annotations__,
                        f.__wrapped__.__name__, f.__module__)

    def view(self, f, result):
        return result

    def check(self, f):
        return None


class Clear(Ask):
    def call(self, f):
        def call():
            f.clear_cache()
            f.anything = 1
            return f.cache_info(), f.anything

        return call


hold = []
gc.disable()  # a collection may fill the free lists again


def no_free_lists():
    # CPython keeps some dicts, lists and tuples for the next one who needs them.
    hold.append([({}, [], (1, i), 1.0 * i) for i in range(100)])


def sweep(operation, make, width, problems):
    # Fails `width` allocations in a row, from the first one on, from the second one on
    # and so on; returns how often that was noticed. (Not all the rest: without any
    # memory CPython loops for ever in some exception handlers.)
    outcomes = []
    failures = quiet = n = 0
    while quiet < 8:
        state = operation.prepare(make)
        call = operation.call(state)
        no_free_lists()
        outcome = attempt(call, n, n + width)
        wrong = operation.check(state)
        if wrong:
            problems.append(f"after allocation {n}: {wrong}")
        if type(outcome) is list:
            quiet += 1
            outcomes.append((n, operation.view(state, *outcome)))
        else:
            quiet = 0
            failures += 1
            if outcome is not MemoryError:
                problems.append(f"allocation {n}: {outcome!r}")
        del hold[:], call, state, outcome
        n += 1
        if n > 3000:
            problems.append("no end")
            break
    state = operation.prepare(make)
    expected = operation.view(state, operation.call(state)())
    gc.collect()
    problems.extend(f"allocation {n}: {view} instead of {expected}"
                    for n, view in outcomes if view != expected)
    return failures


def blocks():
    gc.collect()
    return sys.getallocatedblocks()


def attempt(call, first, last):
    # Nothing in here that needs memory until there is some.
    fail_at(first, last)
    try:
        result = call()
    except MemoryError:
        fail_no_more()
        return MemoryError
    except BaseException:
        fail_no_more()
        return sys.exc_info()[1]
    fail_no_more()
    return [result]


fail_at, fail_no_more = set_nomemory, remove_mem_hooks


def sweep_all(names, kinds, leaks):
    for name in names:
        for kind in kinds:
            print("start", name, kind, sep="|", flush=True)
            problems = []
            failures = 0
            for width in (50, 1):
                args = globals()[name](), KINDS[kind], width, problems
                failures += sweep(*args)
                if leaks:
                    sweep(*args)  # fills what is kept once
                    more = []
                    for _ in range(4):
                        before = blocks()
                        sweep(*args)
                        more.append(blocks() - before)
                    # What fills up once does so less and less.
                    if len(set(more)) == 1 and more[0] > 5:
                        problems.append(f"{more} more blocks")
            print("end", name, kind, failures, *problems[:5], sep="|", flush=True)
"""

# What does not run by default is much like something that does.
QUICK = ["Unflatten", "Flatten", "Tree", "Miss", "Hit", "Result", "Wrap", "Clear"]
OPERATIONS = [*QUICK, "Hash", "Equal", "Repr", "ByHash", "Evict", "Keywords", "Ask"]
# What these do does not depend on the kind of object.
FOR_ONE_KIND = {"Wrap", "Ask", "Clear"}
# To free an instance takes memory in CPython 3.13, if someone has asked for its dict.
LEAKS_BY_ITSELF = {"instance", "attributes", "method", "new class"}


def each(operations, quick):
    """Run a test for each operation, by default for the quick ones alone."""
    slow = pytest.mark.slow
    return pytest.mark.parametrize(
        "operation",
        [n if n in quick else pytest.param(n, marks=slow) for n in operations],
    )


def sweep(operation, *, leaks=False, before="", after=""):
    """Run an operation on all kinds of object; return what went wrong with which."""
    kinds = "list(KINDS)"
    if operation in FOR_ONE_KIND:
        kinds = "['list', 'method']"
    elif leaks:
        kinds = f"[kind for kind in KINDS if kind not in {LEAKS_BY_ITSELF}]"
    elif operation == "Repr":  # that of a numpy array crashes without memory
        kinds = "[kind for kind in KINDS if not kind.startswith('numpy')]"
    found, seen, failures, first = {}, [], 0, "None"
    while True:
        done = run(
            f"{DRIVER}\n{after}\nkinds = {kinds}\n"
            f"kinds = kinds[kinds.index({first}) + 1:] if {first} else kinds\n"
            f"sweep_all([{operation!r}], kinds, {leaks})",
            before=before,
        )
        running = None
        for line in done.stdout.splitlines():
            what, _, kind, *rest = line.split("|", 4)
            running = kind if what == "start" else None
            if what == "end":
                seen.append(kind)
                failures += int(rest[0])
                if rest[1:]:
                    found[kind] = rest[1]
        if done.returncode == 0:
            return found, seen, failures
        if running is None:  # not a crash of the operation
            raise AssertionError(done.stdout + done.stderr)
        found[running] = f"crash ({done.returncode}): {done.stderr[:1000]}"
        first = repr(running)


@each(OPERATIONS, QUICK)
def test_a_failed_allocation_is_a_memory_error_or_does_no_harm(operation):
    found, seen, failures = sweep(operation)
    assert found == {}
    assert len(seen) == 2 if operation in FOR_ONE_KIND else len(seen) > 30
    if operation not in {"Hash", "Equal"}:  # these need no memory for most kinds
        assert failures > 2 * len(seen)


@pytest.mark.slow
@pytest.mark.skipif(
    sys.version_info < (3, 12),
    reason="a function whose cells cannot be made leaks its arguments in CPython 3.11",
)
@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name != "Repr"])
def test_a_failed_allocation_leaks_nothing(operation):
    found, _, _ = sweep(operation, leaks=True)
    assert found == {}


# C++ allocates by itself. The library is there before the core, whose `operator new`
# then is the library's.
NEW = """
#include <cstdlib>
#include <new>
static thread_local long count = 0, first = -1, last = -1;
extern "C" void fail_at(long from, long to) { count = 0; first = from; last = to; }
static bool fails() {
  if (first < 0) return false;
  long number = count++;
  return number >= first && number < last;
}
void* operator new(std::size_t size) {
  void* made = fails() ? nullptr : std::malloc(size != 0 ? size : 1);
  if (made == nullptr) throw std::bad_alloc();
  return made;
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return fails() ? nullptr : std::malloc(size != 0 ? size : 1);
}
void operator delete(void* made) noexcept { std::free(made); }
void operator delete(void* made, std::size_t) noexcept { std::free(made); }
"""
LOAD_NEW = """
import ctypes
new = ctypes.CDLL({path!r}, ctypes.RTLD_GLOBAL)
new.fail_at.argtypes = ctypes.c_long, ctypes.c_long
"""
USE_NEW = """
fail_at, fail_no_more = new.fail_at, functools.partial(new.fail_at, -1, -1)
"""


@pytest.fixture(scope="module")
def failing_new(tmp_path_factory):
    compiler = shutil.which("c++")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs a C++ compiler, and the way in which Linux finds symbols")
    if "asan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("the sanitizer has its own operator new")
    path = tmp_path_factory.mktemp("new") / "new.so"
    source = path.with_suffix(".cpp")
    source.write_text(NEW)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", path, source], check=True)
    return LOAD_NEW.format(path=str(path))


# Without those for which C++ allocates nothing.
USING_NEW = [
    name for name in OPERATIONS if name not in {"Hash", "Equal", "Ask", "Clear"}
]


@each(USING_NEW, ["Unflatten", "Flatten", "Wrap"])
def test_a_failed_new_is_a_memory_error(failing_new, operation):
    found, _, failures = sweep(operation, before=failing_new, after=USE_NEW)
    assert found == {}
    assert failures


@pytest.mark.slow
@pytest.mark.parametrize("operation", ["Unflatten", "Flatten", "Miss", "Hit", "Result"])
def test_a_failed_new_leaks_nothing(failing_new, operation):
    found, _, _ = sweep(operation, leaks=True, before=failing_new, after=USE_NEW)
    assert found == {}
