"""Memory and the number of living objects level off, whatever is done how often.

Most of it runs without JAX, in a process of its own: what JAX keeps is not ours.
"""

import pytest
from without_jax import run

DRIVER = """
import collections, functools, gc, warnings, weakref

SCALE = float(sys.argv[1])


class Raises:
    def __init__(self, method, error):
        self.method, self.error = method, error

    def __reduce_ex__(self, protocol):
        if self.method == "reduce":
            raise self.error.with_traceback(None)
        return list, (), None, self.items()

    def items(self):
        yield 1
        raise self.error.with_traceback(None)


class RaisesInSetstate:
    error = None

    def __setstate__(self, state):
        raise self.error.with_traceback(None)


def in_setstate(error):
    RaisesInSetstate.error = error
    made = RaisesInSetstate()
    made.a = X
    return made


class RaisesInEq(Opaque):
    def __init__(self, error):
        self.error = error

    def __eq__(self, other):
        raise self.error.with_traceback(None)

    def __hash__(self):
        return 1


def resident():
    # In units of 1024 bytes.
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmRSS"):
                return int(line.split()[1])


def living():
    gc.collect()
    gc.collect()
    return len(gc.get_objects()), sys.getallocatedblocks()


def levels_off(name, step, times, fill=25, slack=60):
    # The first fifth fills what is bounded; after it, all stays as it is. What CPython
    # itself keeps for later fills up by chance: then one of the next rounds has to do.
    times = int(times * SCALE)
    first = max(times // 5, fill)
    times = max(times, first + fill)
    for i in range(first):
        step(i)
    for attempt in range(5):
        before = (*living(), resident())
        for i in range(first, times):
            step(i)
        after = (*living(), resident())
        grown = [now - then for now, then in zip(after, before)]
        print(name, times, *grown, sep="|", flush=True)
        bounds = slack, max(2 * slack, (times - first) // 100), 3000
        if all(more <= bound for more, bound in zip(grown, bounds)):
            return
    raise AssertionError(f"{name}: objects, blocks, KiB: {before} became {after}")
"""

# Each gives the step that is repeated, and how often in a full run.
STEPS = {
    "hits": """
f = autojit.jit(lambda *args, **kwargs: args)
trees = [
    lambda: (X, 1, 2.5, "text"),
    lambda: ([X, {"a": [X, 1]}], {1, 2}),
    lambda: (Plain(a=X, b=[1]), (1, (2, X))),
]
def step(i):
    f(*trees[0]())
levels_off("one", step, 1_000_000)
def step(i):
    f(*trees[i % 3]())
levels_off("three", step, 300_000)
""",
    "hits of all kinds": """
import numpy as np
f = autojit.jit(lambda *args: args)
opaque = Opaque()
kinds = [
    lambda: Reduced([X]), lambda: opaque, lambda: functools.partial(len, [X], k=1),
    lambda: np.arange(5), lambda: collections.OrderedDict(a=X), lambda: {(1, 2), "a"},
    lambda: (lambda: (i for i in [X])), lambda: [Plain(), Plain(a=1)],
    lambda: {"a": 1}.keys(), lambda: range(3), lambda: bytearray(b"text"),
    lambda: collections.deque([X], 3), lambda: np.zeros(2, [("a", "i4"), ("b", "f8")]),
    lambda: Plain(a=1).__init__,
]
def step(i):
    f(X, kinds[i % len(kinds)]())
levels_off("kinds", step, 300_000)
def step(i):
    leaves, skeleton = autojit.flatten(kinds[i % len(kinds)](), Array)
    skeleton.unflatten(leaves)
    hash(skeleton), repr(skeleton)
levels_off("flatten", step, 100_000)
""",
    "specializations": """
f = autojit.jit(lambda *args: args, maxsize=100)
def step(i):
    f(X, i, [i, str(i)], Plain(a=i))
    assert f.cache_info().currsize <= 100
levels_off("bounded", step, 100_000, fill=110)
def step(i):
    f(X, Opaque(), Reduced(i), lambda: i)
levels_off("opaque", step, 50_000, fill=110)
f = autojit.jit(lambda *args: args, maxsize=None)
def step(i):
    f(X, i)
    if i % 100 == 99:
        f.clear_cache()
levels_off("cleared", step, 100_000)
""",
    "functions": """
def step(i):
    def fun(x, y):
        return i, x
    f = autojit.jit(fun)
    f(X, i)
    f(X, [i])
levels_off("closures", step, 10_000)
def step(i):
    f = autojit.jit(lambda x: (x, f))
    f(X)
levels_off("cycles", step, 10_000)
def step(i):
    class Local:
        def __init__(self):
            self.a = [X, i]
        @autojit.jit
        def method(self, x):
            return x, self.a
    Local().method(X)
levels_off("local classes", step, 3_000)
def step(i):
    f = autojit.jit(functools.partial(lambda a, x: x, Plain(a=i)))
    f(X)
    Plain(f=f).f(X)
levels_off("partials", step, 10_000)
class Owner:
    def __init__(self, i):
        self.i = i
    def method(self, x):
        return x
def step(i):
    autojit.jit(Owner(i).method, maxsize=20)(X)
levels_off("methods", step, 10_000)
def module_level(x, y):
    return x
def step(i):
    autojit.jit(module_level)(X, 1)
    autojit.jit(module_level, maxsize=5)(X, 1)
levels_off("one function", step, 60_000)
assert autojit.jit(module_level).cache_info().currsize == 1
def step(i):
    autojit.jit(module_level, maxsize=i + 1)(X, 1)
levels_off("options", step, 10_000, fill=4200)  # that many tables are kept
kept = []
def step(i):
    def fun(x):
        return x
    autojit.jit(fun)(X)
    kept.append(fun)
    if len(kept) == 5000:
        kept.clear()
levels_off("kept functions", step, 20_000, fill=5000)
def step(i):
    f = autojit.jit(lambda x: x)
    f(X)
    f.f = f
    f.ref = weakref.ref(f)
levels_off("attributes", step, 10_000)
def step(i):
    f = autojit.jit(autojit.jit(lambda x, y: x))
    f(X, f)
levels_off("dispatchers of dispatchers", step, 10_000)
""",
    "trees": """
import copy
import autojit._tree
core = autojit._core
X.dtype = float
def put_together(structure, items):
    return core.unflatten_tree(structure, (core.unflatten_leaves(None, items),))
def step(i):
    tree = core.tree(Plain(a=[X, i % 3], r=Reduced(X)), i % 2 == 0)
    for _ in range(2):
        (child,), structure = core.flatten_tree(tree)
        items, _ = core.flatten_leaves(child)
        tree = put_together(structure, items)
        tree.obj.a.append(1)
        child.paths
    other = core.flatten_tree(core.tree(Plain(a=[X]), False))[1]
    assert structure != other
    repr(structure), repr(other), repr(tree), hash(structure)
    tree.obj.tree = tree  # a cycle
    marks = put_together(structure, "abc"[: len(items)])
    marks.obj.a[0] = marks
    core.flatten_tree(marks)
    copy.deepcopy(marks)
levels_off("trees", step, 10_000)
def step(i):
    structure = core.flatten_tree(core.tree([X, i], False))[1]
    for items in ((), (X, X)):
        try:
            put_together(structure, items).obj
        except ValueError:
            continue
        raise AssertionError
levels_off("wrong leaves", step, 10_000)
class BadNew:
    def __reduce__(self):
        return Plain, (1, 2, 3)
def step(i):
    (child,), structure = core.flatten_tree(core.tree([X, BadNew()], False))
    tree = put_together(structure, core.flatten_leaves(child)[0])
    try:
        tree.obj
    except TypeError:
        return
    raise AssertionError
levels_off("not put together", step, 10_000)
def step(i):
    made = [core.tree(X, False)]
    for _ in range(100):
        made.append(core.tree(made[-1], False))
levels_off("nested", step, 1_000)
""",
    "exceptions": """
class Mine(Exception):
    pass
def fun(x, obj, fail=None):
    if fail is not None:
        raise fail.with_traceback(None)
    return x, obj
f = autojit.jit(fun, maxsize=20)
def failing(call, *expected):
    def step(i):
        try:
            call(i)
        except expected:
            return
        raise AssertionError
    return step
def working(call):
    return call
deep = []
for _ in range(100_000):
    deep = [deep]
class BadNew:
    def __reduce__(self):
        return Plain, (1, 2, 3)
class Cyclic:
    def __reduce__(self):
        return Plain, (self,)
class Hopeless:
    def __reduce_ex__(self, protocol):
        raise RecursionError("mine")
mine, interrupt, memory = Mine("mine"), KeyboardInterrupt(), MemoryError()
mine.obj = f
result = autojit.jit(lambda x, make: [x, make()])
_, skeleton = autojit.flatten([X, 1], Array)
PATHS = {
    "function": failing(lambda i: f(X, i, Mine(i)), Mine),
    "function, one": failing(lambda i: f(X, 1, mine), Mine),
    "missing": failing(lambda i: f(), TypeError),
    "keyword": failing(lambda i: f(X, 1, spam=i), TypeError),
    "interrupt in reduce": failing(
        lambda i: f(X, [X, Raises("reduce", interrupt)]), KeyboardInterrupt),
    "memory in reduce": failing(lambda i: f(X, Raises("reduce", memory)), MemoryError),
    "error in reduce": working(lambda i: f(X, [X, Raises("reduce", mine)])),
    "items": working(lambda i: f(X, Raises("items", mine))),
    "interrupt in items": failing(
        lambda i: f(X, Raises("items", interrupt)), KeyboardInterrupt),
    "state": failing(lambda i: f(X, [1, in_setstate(mine)]), TypeError),
    "interrupt in state": failing(
        lambda i: f(X, [1, in_setstate(interrupt)]), KeyboardInterrupt),
    "error in eq": working(lambda i: f(X, RaisesInEq(mine))),
    "interrupt in eq": lambda i: (
        f(X, RaisesInEq(interrupt)) if i % 2 == 0 else
        failing(lambda i: f(X, RaisesInEq(interrupt)), KeyboardInterrupt)(i),
        f.clear_cache() if i % 2 else None),
    "new": failing(lambda i: f(X, [[BadNew()]]), TypeError),
    "cyclic": failing(lambda i: f(X, [[Cyclic()]]), TypeError),
    "recursion": failing(lambda i: f(X, Hopeless()), RecursionError),
    "result": failing(lambda i: result(X, BadNew), TypeError),
    "interrupt in result": failing(
        lambda i: result(X, lambda: Raises("reduce", interrupt)), KeyboardInterrupt),
    "leaves": failing(lambda i: skeleton.unflatten([]), ValueError),
    "wrap": failing(lambda i: autojit.jit(3), TypeError),
    "attribute": failing(lambda i: f.spam, AttributeError),
    "leaf type": failing(lambda i: autojit.flatten([X], 5), TypeError),
}
# Each set of arguments of `interrupt in eq` starts with an empty table.
for name, step in PATHS.items():
    f.clear_cache()
    levels_off(name, step, 10_000)
levels_off("deep", failing(lambda i: f(X, deep), RecursionError), 300)
class RaisesInKey:
    def __init__(self, n):
        self.n = n
    def __eq__(self, other):
        raise mine.with_traceback(None)
    def __hash__(self):
        return 1
def step(i):
    try:
        f(X, {RaisesInKey(0): 1, "k": X})
        f(X, {RaisesInKey(0): i})
    except (Mine, TypeError):
        pass
levels_off("key", step, 10_000)
def warns(x, obj):
    warnings.warn("mine")
    return x
warnings.simplefilter("error")
def step(i):
    try:
        autojit.jit(warns)(X, i % 3)
    except UserWarning:
        pass
levels_off("warnings as errors", step, 10_000)
""",
}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize(
    "scale", [0.02, pytest.param(1, marks=pytest.mark.slow)], ids=["less", "in full"]
)
def test_memory_levels_off(name, scale):
    done = run(DRIVER + STEPS[name], str(scale), timeout=1800)
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert done.stdout.count("|") >= 4
