"""Bounds on what is kept: programs, memory maps, bytes of static data; and on time."""

import collections
import functools

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from without_jax import run

import autojit


@pytest.fixture
def limits():
    """Give back the limits afterwards."""
    before = autojit.process_info()
    yield autojit.set_limits
    autojit.set_limits(max_programs=before.max_programs, max_maps=before.max_maps)


def test_what_there_is_and_the_defaults(x):
    f = autojit.jit(lambda y, n: y + n)
    before = autojit.process_info()
    f(x, 1)
    f(x, 2)
    f(jnp.ones(2), 2)
    info = autojit.process_info()
    assert info.programs == before.programs + 3
    f.clear_cache()
    assert autojit.process_info().programs == before.programs
    assert info.max_programs == 4096
    with open("/proc/sys/vm/max_map_count") as file:
        assert info.max_maps == int(file.read()) // 2
    assert 100 < info.maps < info.max_maps


def test_the_least_recently_used_of_all_functions_go(x, limits):
    def function(k):
        return autojit.jit(lambda y, n: y * k + n)

    limits(max_programs=None)
    functions = [function(k) for k in range(4)]
    for n in range(4):
        for f in functions:
            f(x, n)
    functions[0](x, 0)
    limits(max_programs=9)
    # All others were used before; of ours the first went, but for the one used last.
    left = [f.cache_info().currsize for f in functions]
    assert autojit.process_info().programs <= 9
    assert sum(left) <= 9
    assert left[0] >= 1
    traces = functions[0].cache_info().traces
    functions[0](x, 0)
    assert functions[0].cache_info().traces == traces
    functions[0](x, 1)
    assert functions[0].cache_info().traces == traces + 1
    for k, f in enumerate(functions):
        for n in range(4):
            assert_array_equal(f(x, n), x * k + n)


def test_shapes_count_too(limits):
    limits(max_programs=8)
    f = autojit.jit(lambda y: y + 1)
    for n in range(1, 20):
        assert_array_equal(f(jnp.asarray(np.zeros(n))), np.ones(n))
        assert autojit.process_info().programs <= 8


def test_tables_without_a_dispatcher_are_bounded_too(x, limits):
    limits(max_programs=10)
    functions = [lambda y, k=k: y + k for k in range(20)]
    for k, function in enumerate(functions):
        assert_array_equal(autojit.jit(function)(x), x + k)
        assert autojit.process_info().programs <= 10


def test_too_many_maps(x, limits):
    f = autojit.jit(lambda y, n: y + n)
    for n in range(12):
        f(x, n)
    before = autojit.process_info().programs
    limits(max_maps=autojit.process_info().maps - 1)
    assert autojit.process_info().programs <= before // 2
    for n in range(12):
        assert_array_equal(f(x, n), x + n)


@pytest.mark.parametrize(
    ("set_bound", "name"),
    [
        (autojit.set_limits, "max_programs"),
        (autojit.set_limits, "max_maps"),
        (functools.partial(autojit.jit, len), "maxbytes"),
    ],
    ids=["max_programs", "max_maps", "maxbytes"],
)
def test_bounds_that_make_no_sense(set_bound, name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        set_bound(**{name: 0})
    for value in ("1", 1.5):
        with pytest.raises(TypeError, match=f"{name} must be an int or None, got"):
            set_bound(**{name: value})


def test_dispatchers_that_are_called_while_others_go(x, limits):
    limits(max_programs=1)
    inner = autojit.jit(lambda y, n: y + n)
    outer = autojit.jit(lambda y, n: inner(y, n) + inner(y, n + 1))
    for n in range(5):
        assert_array_equal(outer(x, n), 2 * x + 2 * n + 1)


# --- bytes ---


def test_bytes_of_static_data_are_bounded(x):
    f = autojit.jit(lambda a, y: y + a.size, maxbytes=1000)
    for n in range(10):
        f(np.full(50, n), x)  # 400 bytes, and some for the objects around it
        assert 400 < f.cache_info().currbytes <= 1000
    assert f.cache_info().currsize == 1
    assert f.cache_info().maxbytes == 1000
    f(np.full(50, 9), x)
    assert f.cache_info().traces == 10
    f.clear_cache()
    assert f.cache_info().currbytes == 0


def test_the_one_used_last_stays_whatever_its_size(x):
    f = autojit.jit(lambda a, y: y + a[0], maxbytes=10)
    array = np.ones(1000)
    for _ in range(3):
        f(array, x)
    assert f.cache_info()[:4] == (2, 1, 1, 1)
    f(np.zeros(1000), x)
    f(array, x)
    assert f.cache_info().currsize == 1
    assert f.cache_info().traces == 3


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.zeros(10_000, np.uint8),
        lambda: b"a" * 10_000,
        lambda: "a" * 10_000,
        lambda: bytearray(10_000),
        lambda: [list(range(1000))],
        lambda: (lambda data: lambda: data)(np.zeros(10_000, np.uint8)),
    ],
    ids=["numpy", "bytes", "str", "bytearray", "list", "closure"],
)
def test_each_kind_of_data_counts(x, make):
    f = autojit.jit(lambda obj, y: y)
    f(make(), x)
    assert 10_000 < f.cache_info().currbytes < 100_000


def test_no_bounds(x):
    f = autojit.jit(lambda y: y, maxbytes=None, maxsize=None)
    f(x)
    assert f.cache_info()[4:] == (None, f.cache_info().currbytes, None)


# --- work grows with the objects, not with the ways to them ---

Pair = collections.namedtuple("Pair", ["one", "two"])
NEST = {
    "tuple": lambda t: (t, t),
    "namedtuple": lambda t: Pair(t, t),
    "tuple of both": lambda t: (Pair(t, 1), Pair(2, t)),
    "frozenset": lambda t: frozenset([(t, 0), (t, 1)]),
    "slice": lambda t: slice(t, t, None),
    "with a list": lambda t: (t, [t]),
    "with a dict": lambda t: (t, {"k": (t, 1)}),
}


def nested(nest, innermost, levels=40):
    for _ in range(levels):
        innermost = nest(innermost)
    return innermost


def innermost(obj):
    while isinstance(obj, (tuple, slice, frozenset)):
        if isinstance(obj, slice):
            obj = obj.start
        elif isinstance(obj, frozenset):
            obj = min(obj, key=lambda pair: pair[1])
        else:
            obj = obj[0]
    return obj


@pytest.mark.parametrize("nest", NEST.values(), ids=NEST)
def test_values_that_are_met_along_many_ways(x, nest):
    f = autojit.jit(lambda obj, y: (obj, innermost(obj) + y))
    for _ in range(3):
        obj, y = f(nested(nest, 1), x)
        assert_array_equal(y, x + 1)
        assert innermost(obj) == 1
    assert f.cache_info().traces == 1
    assert_array_equal(f(nested(nest, 2), x)[1], x + 2)
    obj = nested(nest, 1)
    hash(autojit.flatten(obj)[1])
    assert len(repr(autojit.flatten(obj)[1])) < 10_000_000
    function = (lambda obj: lambda y: innermost(obj) + y)(obj)
    g = autojit.jit(lambda function, y: function(y))
    assert_array_equal(g(function, x), x + 1)


def test_arrays_that_are_met_along_many_ways(x):
    f = autojit.jit(lambda obj: (innermost(obj) * 2, obj))
    for i in range(3):
        y, obj = f(nested(NEST["tuple"], x + i))
        assert_array_equal(y, (x + i) * 2)
        assert_array_equal(innermost(obj), x + i)
    assert f.cache_info().traces == 1
    leaves, skeleton = autojit.flatten(nested(NEST["tuple"], x))
    assert len(leaves) < 1_000_000
    assert_array_equal(innermost(skeleton.unflatten(leaves)), x)


def test_a_few_equal_tuples_are_one_value(x):
    f = autojit.jit(lambda obj, y: y)
    shared = tuple(range(100))
    f([shared] * 100, x)
    f([tuple(range(100)) for _ in range(100)], x)
    assert f.cache_info().traces == 1


def test_a_cycle_through_values(x):
    items = []
    pair = ((items, 1), (items, 1))
    items.append((pair, pair))
    pair = nested(NEST["tuple"], pair, 20)
    seen = autojit.jit(lambda obj, y: (obj, y))(pair, x)[0]
    for _ in range(20):
        seen = seen[0]
    assert seen[0][0] is seen[1][0]
    assert seen[0][0][0][0][0][0] is seen[0][0]


def test_a_cycle_through_values_that_are_met_along_many_ways(x):
    items = []
    pair = nested(NEST["tuple"], (items,))
    items.append(pair)
    seen = autojit.jit(lambda obj, y: (obj, y))(pair, x)[0]
    found = innermost(seen)
    assert innermost(found[0]) is found


SLOW = {
    "flatten": "autojit.flatten(items)",
    "hash": "hash(skeleton)",
    "equal": "skeleton == other",
    "repr": "repr(skeleton)",
    "sets": "autojit.flatten(elements)",
}


@pytest.mark.parametrize("statement", SLOW.values(), ids=SLOW)
def test_a_long_walk_looks_for_signals(statement):
    code = f"""
import gc, itertools, signal

# No bytecode runs at the end, which would look for signals.
reduced = []
hashes = itertools.count()

class Last:
    __reduce_ex__ = reduced.append
    __hash__ = hashes.__next__

    def __eq__(self, other):
        return self is other

class LastOfSet:
    __reduce_ex__ = reduced.append

    def __hash__(self):
        return 2**60 - 1

autojit.flatten([Last(), LastOfSet()])  # now the classes are known
gc.disable()  # an exception in one of its callbacks would be ignored
items = [*range(5 * 10**6), Last()]
if "skeleton" in {statement!r}:
    skeleton = autojit.flatten(items)[1]
    other = autojit.flatten([*range(5 * 10**6), Last()])[1]  # other integers
if "elements" in {statement!r}:
    elements = {{*((i, i) for i in range(10**6)), LastOfSet()}}
reduced.clear()
last_hash = next(hashes)

class Stopped(BaseException):
    pass

def stop(*args):
    raise Stopped

signal.signal(signal.SIGVTALRM, stop)
try:
    # Of the time that this process gets, so that the walk has begun.
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.002)
    {statement}
    print("finished")
except Stopped:
    on_the_way = not reduced and next(hashes) == last_hash + 1
    print("on the way" if on_the_way else "at the end")
"""
    done = run(code)
    assert done.stdout == "on the way\n", done.stderr
