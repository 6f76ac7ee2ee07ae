"""Which object is which: sharing, cycles, copies and what stays identical."""

import collections
import functools
import gc
import weakref

import jax.numpy as jnp
import numpy as np
import pytest
from graphs import equal_leaves, identical_leaves, same_graph
from kinds import (
    SINGLETON,
    Color,
    Data,
    Frozen,
    FrozenSlotData,
    MyDict,
    MyList,
    Opaque,
    OpaqueUnhashable,
    Plain,
    Point,
    Reduced,
    ReducedEx,
    Slots,
    SlotsAndDict,
    double,
    object_array,
)

import autojit

# Objects that have an identity, each made anew, with an array inside if it can be.
SHARED = {
    "list": lambda x: [x, 1],
    "empty list": lambda x: [],
    "dict": lambda x: {"a": x},
    "empty dict": lambda x: {},
    "defaultdict": lambda x: collections.defaultdict(list, a=x),
    "set": lambda x: {1, 2},
    "bytearray": lambda x: bytearray(b"ab"),
    "numpy array": lambda x: np.arange(3),
    "instance": lambda x: Plain(a=x),
    "empty instance": lambda x: Plain(),
    "slots": lambda x: Slots(x, 1),
    "slots and dict": lambda x: SlotsAndDict(x, 1, c=2),
    "dataclass": lambda x: Data(x),
    "frozen dataclass": lambda x: Frozen(x),
    "frozen slotted dataclass": lambda x: FrozenSlotData(x),
    "partial": lambda x: functools.partial(double, x),
    "subclass of list": lambda x: MyList([x]),
    "subclass of dict": lambda x: MyDict(a=x),
    "deque": lambda x: collections.deque([x]),
    "OrderedDict": lambda x: collections.OrderedDict(a=x),
    "__reduce__": lambda x: Reduced(x),
    "__reduce_ex__": lambda x: ReducedEx(x),
}

VALUES = {
    "tuple": lambda x: (x, 1),
    "namedtuple": lambda x: Point(x, 1),
    "frozenset": lambda x: frozenset([1, 2]),
    "slice": lambda x: slice(1, 2),
    "range": lambda x: range(1000),
    "str": lambda x: "".join(["some", " text"]),
    "int": lambda x: int("1000000"),
    "float": lambda x: float("1.5"),
    "bytes": lambda x: bytes([1, 2]),
}

# Ways in which an object can occur twice in one call tree.
TWICE = {
    "in a list": lambda f, p, q: f([p, q]),
    "in a tuple": lambda f, p, q: f((p, q)),
    "two arguments": lambda f, p, q: f(p, q),
    "argument and keyword": lambda f, p, q: f(p, key=q),
    "at two depths": lambda f, p, q: f([[p], {"k": (1, q)}]),
    "attributes": lambda f, p, q: f(Plain(a=p, b=q)),
    "attributes of two instances": lambda f, p, q: f([Plain(a=p), Slots(1, q)]),
    "partial": lambda f, p, q: f(functools.partial(double, p, q=q)),
    "reduction": lambda f, p, q: f(Reduced(p, q)),
}


@pytest.fixture(params=SHARED.values(), ids=SHARED)
def make(request):
    return request.param


@pytest.fixture(params=TWICE.values(), ids=TWICE)
def twice(request):
    return request.param


def flatten_call(*args, **kwargs):
    return autojit.flatten((args, kwargs))


def is_stateless(obj):
    """Whether it is handed through, since it may be there to be told by `is`."""
    return type(obj) is Plain and not vars(obj)


def test_sharing_survives_flatten_and_unflatten(x, make, twice):
    def roundtrip(*args, **kwargs):
        leaves, skeleton = flatten_call(*args, **kwargs)
        return (args, kwargs), skeleton.unflatten(leaves)

    shared = make(x)
    for pair in ((shared, shared), (make(x), make(x))):
        before, after = twice(roundtrip, *pair)
        assert same_graph(before, after)


def test_sharing_is_part_of_the_skeleton(x, make, twice):
    shared = make(x)
    _, of_one = twice(flatten_call, shared, shared)
    _, of_two = twice(flatten_call, make(x), make(x))
    assert of_one != of_two
    again = make(x)
    _, of_one_again = twice(flatten_call, again, again)
    if is_stateless(again) and twice is TWICE["reduction"]:
        return  # its holder holds it beside the reduction, as others may
    assert of_one == of_one_again
    assert hash(of_one) == hash(of_one_again)


@pytest.mark.parametrize("make_value", VALUES.values(), ids=VALUES)
def test_values_have_no_identity(x, make_value, twice):
    value = make_value(x)
    _, of_one = twice(flatten_call, value, value)
    _, of_two = twice(flatten_call, make_value(x), make_value(x))
    assert of_one == of_two
    assert hash(of_one) == hash(of_two)


def test_a_shared_argument_is_one_object_in_the_function(x, make):
    seen = []

    @autojit.jit
    def f(pair, third):
        seen.append(pair[0] is pair[1] and pair[0] is third)
        return pair, [third]

    shared = make(x)
    (p, q), (r,) = f([shared, shared], third=shared)
    assert p is q
    assert q is r
    assert p is not shared
    (p, q), (r,) = f([make(x), make(x)], third=make(x))
    assert p is not q
    assert q is not r
    assert seen == [True, False]


def test_sharing_selects_the_specialization(x):
    @autojit.jit
    def f(pair, y):
        pair[0].append(y)
        return len(pair[1])

    for _ in range(3):
        a = [1]
        assert f([a, a], x) == 2
        assert f([[1], [1]], x) == 1
    assert f.cache_info().traces == 2


def test_one_of_twenty_is_not_twenty():
    f = autojit.jit(lambda objects: len({id(o) for o in objects}))
    assert f([[] for _ in range(20)]) == 20
    assert f([[]] * 20) == 1


def test_which_of_three_are_shared_matters(x):
    def pattern(*order):
        objects = [[] for _ in range(3)]
        return autojit.flatten([objects[i] for i in order])[1]

    patterns = [(0, 1, 2), (0, 0, 1), (0, 1, 0), (0, 1, 1), (0, 0, 0)]
    skeletons = [pattern(*order) for order in patterns]
    for i, one in enumerate(skeletons):
        for j, two in enumerate(skeletons):
            assert (one == two) is (i == j)
    assert pattern(2, 2, 0) == pattern(0, 0, 1)


def test_an_array_shared_by_two_places_is_two_leaves(x):
    traces = []

    @autojit.jit
    def f(a, b):
        traces.append(a is b)
        return a + b

    np.testing.assert_array_equal(f(x, x), x + x)
    np.testing.assert_array_equal(f(x, x + 1), x + x + 1)
    assert traces == [False]


def test_a_shared_tuple_keeps_what_it_shares(x):
    inner = [x]
    pair = (inner, 1)
    leaves, skeleton = autojit.flatten([pair, pair])
    first, second = skeleton.unflatten(leaves)
    assert first[0] is second[0]
    assert len(leaves) == 1


# Cycles.


# An object with an array, and what closes the cycle.
CYCLES = {
    "list": (lambda x: [x, 1], lambda a: a.append(a)),
    "dict": (lambda x: {"x": x}, lambda d: d.update(self=d)),
    "defaultdict": (
        lambda x: collections.defaultdict(list, x=x),
        lambda d: d.update(self=d),
    ),
    "instance": (lambda x: Plain(x=x), lambda p: setattr(p, "me", p)),
    "two lists": (lambda x: [x], lambda a: a.append([2, a])),
    "list by a tuple": (lambda x: [x], lambda a: a.append((a, 1))),
    "tuple by a list": (lambda x: ([x], 1), lambda pair: pair[0].append(pair)),
    "parent and children": (
        lambda x: Plain(x=x, children=[]),
        lambda p: p.children.extend(Slots(p, i) for i in range(3)),
    ),
    "own method": (
        lambda x: Plain(factor=x),
        lambda p: setattr(p, "method", p.scaled),
    ),
    "frozen dataclass": (
        lambda x: {"x": x},
        lambda a: a.update(frozen=FrozenSlotData(a, [a])),
    ),
    "object array": (lambda x: object_array([x], None), lambda a: a[0].append(a)),
    "key": (lambda x: Plain(x=x), lambda p: setattr(p, "d", {p: p})),
    "deque": (lambda x: collections.deque([x]), lambda d: d.append([d])),
    "partial": (lambda x: [x], lambda a: a.append(functools.partial(double, a))),
    "items, pairs and state of a reduction": (
        lambda x: ReducedEx(x),
        lambda r: (r.append(r), r.pairs.update(me=r), setattr(r, "state", [r])),
    ),
    "subclass of list": (
        lambda x: MyList([x]),
        lambda a: (a.append(a), setattr(a, "me", a)),
    ),
}


@pytest.fixture(params=CYCLES.values(), ids=CYCLES)
def cycle(request):
    make_it, close = request.param

    def make_cycle(x):
        obj = make_it(x)
        close(obj)
        return obj

    return make_cycle


def test_a_cycle_survives_flatten_and_unflatten(x, cycle):
    obj = cycle(x)
    leaves, skeleton = autojit.flatten(obj)
    assert leaves
    assert all(leaf is x for leaf in leaves)
    assert same_graph(skeleton.unflatten(leaves), obj, identical_leaves)


def test_equal_cycles_have_equal_skeletons(x, cycle):
    _, one = autojit.flatten(cycle(x))
    _, two = autojit.flatten(cycle(x + 1))
    assert one == two
    assert hash(one) == hash(two)
    assert autojit.flatten([cycle(x)])[1] != autojit.flatten([x])[1]


def test_a_cycle_is_the_same_cycle_in_the_function_and_in_the_result(x, cycle):
    seen = []

    @autojit.jit
    def f(obj, y):
        seen.append(obj)
        return obj, cycle(y * 2)

    for y in (x, x + 1):
        back, made = f(cycle(y), y)
        assert same_graph(back, cycle(y), equal_leaves)
        assert same_graph(made, cycle(y * 2), equal_leaves)
    assert len(seen) == 1
    assert same_graph(seen[0], cycle(x))
    assert f.cache_info().hits == 1


def test_cycles_of_two_lengths_differ():
    def ring(n):
        lists = [[] for _ in range(n)]
        for i in range(n):
            lists[i].append(lists[(i + 1) % n])
        return autojit.flatten(lists[0])[1]

    rings = [ring(n) for n in (1, 2, 3)]
    assert len(set(rings)) == 3
    assert ring(2) == rings[1]


# Copies.


def test_the_function_gets_copies_even_of_frozen_objects(x):
    seen = []

    @autojit.jit
    def f(obj, y):
        seen.append(obj)
        return y

    obj = Frozen([x], {"k": 1})
    f(obj, x)
    assert seen[0] is not obj
    assert seen[0].a is not obj.a
    assert seen[0].b is not obj.b


# An object, and how to change it in place.
CHANGES = {
    "list": (lambda x: [x, [2]], lambda o: o[1].append(3)),
    "list, an array comes": (lambda x: [x], lambda o: o.append(jnp.zeros(2))),
    "list, an array goes": (lambda x: [x, 2], lambda o: o.__setitem__(0, None)),
    "dict": (lambda x: {"a": {"b": 1}, "x": x}, lambda o: o["a"].update(b=2)),
    "dict, a key comes": (lambda x: {"a": x}, lambda o: o.update(new=1)),
    "dict, a key goes": (lambda x: {"a": x, "b": [1]}, lambda o: o.pop("a")),
    "set": (lambda x: {1, 2}, lambda o: o.add(3)),
    "set, all go": (lambda x: {1, 2}, lambda o: o.clear()),
    "bytearray": (lambda x: bytearray(b"ab"), lambda o: o.extend(b"c")),
    "bytearray, an item": (lambda x: bytearray(b"a"), lambda o: o.__setitem__(0, 99)),
    "numpy array": (lambda x: np.arange(3), lambda o: o.fill(7)),
    "object array": (lambda x: object_array([x], None), lambda o: o[0].append(2)),
    "instance": (lambda x: Plain(a=x), lambda o: setattr(o, "a", 2)),
    "instance, an attribute comes": (
        lambda x: Plain(a=x),
        lambda o: setattr(o, "new", jnp.zeros(2)),
    ),
    "slots": (lambda x: Slots(x, 2), lambda o: setattr(o, "a", 2)),
    "slots, one is emptied": (lambda x: Slots(1, x), lambda o: delattr(o, "b")),
    "dataclass": (lambda x: Data(x, [x]), lambda o: o.b.append(3)),
    "deque": (lambda x: collections.deque([x]), lambda o: o.append(2)),
    "subclass of list": (lambda x: MyList([x]), lambda o: o.append(2)),
    "partial": (
        lambda x: functools.partial(double, [x]),
        lambda o: o.args[0].append(2),
    ),
    "__reduce__": (lambda x: Reduced([x]), lambda o: o.a.append(2)),
    "__reduce_ex__": (lambda x: ReducedEx([x]), lambda o: o.append(2)),
}
each_change = pytest.mark.parametrize(
    ("make_it", "change"), CHANGES.values(), ids=CHANGES
)


@each_change
def test_a_later_change_by_the_caller_changes_no_skeleton(x, make_it, change):
    obj = make_it(x)
    leaves, skeleton = autojit.flatten(obj)
    value = hash(skeleton)
    change(obj)
    assert hash(skeleton) == value
    assert skeleton == autojit.flatten(make_it(x))[1]
    assert skeleton != autojit.flatten(obj)[1]
    assert same_graph(skeleton.unflatten(leaves), make_it(x), identical_leaves)


@each_change
def test_a_later_change_by_the_caller_changes_no_specialization(x, make_it, change):
    f = autojit.jit(lambda x, obj: obj)
    obj = make_it(x)
    f(x, obj)
    change(obj)
    changed = make_it(x)
    change(changed)
    assert same_graph(f(x, obj), changed, equal_leaves)
    change(f(x, make_it(x)))
    for _ in range(2):
        assert same_graph(f(x, make_it(x)), make_it(x), equal_leaves)
    assert f.cache_info().traces == 2


@each_change
def test_the_caller_does_not_see_what_the_function_changes(x, make_it, change):
    @autojit.jit
    def f(x, obj):
        change(obj)
        return obj

    changed = make_it(x)
    change(changed)
    obj = make_it(x)
    for _ in range(3):
        assert same_graph(f(x, obj), changed, equal_leaves)
        assert same_graph(obj, make_it(x), identical_leaves)
    assert f.cache_info().traces == 1


def test_what_the_function_keeps_and_changes_later_is_not_the_result(x):
    kept = []

    @autojit.jit
    def f(x):
        result = {"items": [x, 1]}
        kept.append(result)
        return result

    f(x)
    kept[0]["items"].append("changed later")
    assert len(f(x)["items"]) == 2


def test_each_call_returns_fresh_containers(x, make):
    @autojit.jit
    def f(x):
        return [constant, (constant,)]

    constant = make(jnp.zeros(2))
    first, second = f(x), f(x)
    assert first is not second
    assert first[0] is not second[0] or is_stateless(constant)
    assert first[0] is not constant or is_stateless(constant)
    assert first[0] is first[1][0]
    assert same_graph(first, second, equal_leaves)


HANDED_THROUGH = [
    *(Opaque(), OpaqueUnhashable(), SINGLETON, Color.RED, Plain, int, np, double, len),
    *(None, ...),
]


@pytest.mark.parametrize(
    "obj",
    HANDED_THROUGH,
    ids=lambda obj: getattr(obj, "__name__", type(obj).__name__),
)
def test_objects_that_are_handed_through_come_back_identical(x, obj):
    seen = []

    @autojit.jit
    def f(x, obj, *, nested):
        seen.append((obj, nested["k"][0]))
        return [x, obj, {"k": Plain(a=obj)}]

    for _ in range(2):
        _, same, nested = f(x, obj, nested={"k": (obj,)})
        assert same is obj
        assert nested["k"].a is obj
    assert len(seen) == 1
    assert seen[0][0] is obj
    assert seen[0][1] is obj


def test_an_opaque_object_made_in_the_trace_comes_back_identical_each_time(x):
    made = []

    @autojit.jit
    def f(x):
        made.append(Opaque())
        return x, made[-1]

    assert f(x)[1] is made[0]
    assert f(x)[1] is made[0]
    assert len(made) == 1


def test_a_skeleton_keeps_its_opaque_objects_alive():
    obj = Opaque()
    alive = weakref.ref(obj)
    _, skeleton = autojit.flatten([obj])
    del obj
    gc.collect()
    assert skeleton.unflatten([])[0] is alive()
    del skeleton
    gc.collect()
    assert alive() is None


def test_neither_leaves_nor_arguments_are_kept_alive_by_the_cache(x):
    f = autojit.jit(lambda tree: tree.a * 2)
    obj = Plain(a=x + 1, b=Plain(c=1))
    alive = [weakref.ref(part) for part in (obj, obj.a, obj.b)]
    for _ in range(3):
        f(obj)
    del obj
    gc.collect()
    assert [ref() for ref in alive] == [None, None, None]


def test_a_bare_object_is_a_sentinel(x):
    missing = object()

    @autojit.jit
    def f(x, default=missing):
        return x, default is missing

    assert f(x)[1]
    assert f(x, missing)[1]
    assert not f(x, object())[1]
