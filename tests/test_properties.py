"""Random object graphs: shared parts, cycles, and every kind of state.

A graph is drawn as a plan, which is plain data, and built from it. To build twice gives
two graphs that are equal and share nothing; to change the plan gives a graph that
differs in one known place. So no copying machinery needs to be trusted.
"""

import collections
import copy
import functools
import math
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from array_api_extra._lib._helpers import jax_autojit as reference
from array_api_extra._lib._helpers import pickle_flatten
from graphs import any_leaves, equal_leaves, identical_leaves, same_graph, walk_leaves
from hypothesis import assume, example, given, note, settings
from hypothesis import strategies as st
from kinds import (
    Color,
    Data,
    Frozen,
    FrozenSlotData,
    Level,
    MyDict,
    MyList,
    MyTuple,
    Opaque,
    Plain,
    Point,
    Reduced,
    ReducedEx,
    SlotData,
    Slots,
    SlotsAndDict,
    SubPlain,
    double,
    triple,
)

import autojit

ARRAYS = [jnp.arange(3.0), jnp.ones(()), jnp.arange(2), jnp.zeros((1, 2))]
OPAQUE = [Opaque(), Opaque()]

# What has no identity and no inside. The last ones are equal in Python, but not here.
atoms = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.sampled_from(
        [
            ...,
            NotImplemented,
            range(3),
            range(0, 4, 2),
            Color.RED,
            Color.BLUE,
            Level.LOW,
            int,
            Plain,
            np,
            math,
            double,
            triple,
            len,
            np.dtype("f4"),
            np.dtype(">i2"),
            *OPAQUE,
        ]
    )
    | st.sampled_from([0, False, 0.0, -0.0, 0j, 1, True, 1.0, 1 + 0j, math.nan])
    | st.sampled_from([np.float32(0), np.float64(0), np.float64(-0.0), np.True_])
)
hashable_atoms = st.text(max_size=3) | st.integers(-9, 99)

bytearrays = st.binary(max_size=3)
numpy_arrays = st.sampled_from(
    [("f8", (2,)), ("f4", (2,)), ("i2", (0, 2)), (">i2", (2, 2)), ("U2", ())]
)


@dataclass(frozen=True)
class Node:
    """One object of a plan: its kind, the nodes it refers to, and plain data."""

    kind: str
    refs: tuple = ()
    data: object = None


def _instance(cls):
    return lambda: cls.__new__(cls)


# Objects that exist before their content does: any cycle can go through them.
# kind: (make the empty object, fill it, smallest and largest number of references)
LATER = {
    "list": (list, lambda o, node, refs: o.extend(refs), 0, 4),
    "MyList": (MyList, lambda o, node, refs: o.extend(refs), 0, 3),
    "deque": (collections.deque, lambda o, node, refs: o.extend(refs), 0, 3),
    "dict": (
        dict,
        lambda o, node, refs: o.update(zip(node.data, refs, strict=False)),
        0,
        4,
    ),
    "MyDict": (
        MyDict,
        lambda o, node, refs: o.update(zip(node.data, refs, strict=False)),
        0,
        3,
    ),
    "OrderedDict": (
        collections.OrderedDict,
        lambda o, node, refs: o.update(zip(node.data, refs, strict=False)),
        0,
        3,
    ),
    "defaultdict": (
        lambda: collections.defaultdict(list),
        lambda o, node, refs: o.update(zip(node.data, refs, strict=False)),
        0,
        3,
    ),
    "Plain": (
        _instance(Plain),
        lambda o, node, refs: o.__dict__.update(zip("abcd", refs, strict=False)),
        0,
        4,
    ),
    "SubPlain": (
        _instance(SubPlain),
        lambda o, node, refs: o.__dict__.update(zip("abcd", refs, strict=False)),
        0,
        2,
    ),
    "Slots": (
        _instance(Slots),
        lambda o, node, refs: [
            setattr(o, name, ref) for name, ref in zip("ab", refs, strict=False)
        ],
        0,
        2,
    ),
    "SlotsAndDict": (
        _instance(SlotsAndDict),
        lambda o, node, refs: [
            setattr(o, name, ref) for name, ref in zip("abcd", refs, strict=False)
        ],
        0,
        4,
    ),
    "Data": (
        _instance(Data),
        lambda o, node, refs: Data.__init__(o, *refs),
        1,
        2,
    ),
    "SlotData": (
        _instance(SlotData),
        lambda o, node, refs: SlotData.__init__(o, *refs),
        1,
        2,
    ),
    "ReducedEx": (
        lambda: ReducedEx(None),
        lambda o, node, refs: (
            o.extend(refs[:2]),
            o.pairs.update(zip("ab", refs[2:], strict=False)),
        ),
        0,
        4,
    ),
    "object array": (
        None,  # needs to know its length
        lambda o, node, refs: [o.__setitem__(i, ref) for i, ref in enumerate(refs)],
        0,
        3,
    ),
}

# Objects that are made from their content, which is made before.
AT_ONCE = {
    "tuple": (lambda node, refs: tuple(refs), 0, 3),
    "MyTuple": (lambda node, refs: MyTuple(refs), 0, 3),
    "Point": (lambda node, refs: Point(*refs), 2, 2),
    "slice": (lambda node, refs: slice(*refs), 3, 3),
    "Frozen": (lambda node, refs: Frozen(*refs), 1, 2),
    "FrozenSlotData": (lambda node, refs: FrozenSlotData(*refs), 1, 2),
    "Reduced": (lambda node, refs: Reduced(*refs), 1, 2),
    "partial": (
        lambda node, refs: functools.partial(
            double, *refs[:2], **dict(zip("xy", refs[2:], strict=False))
        ),
        0,
        4,
    ),
}
BY_VALUE = {"tuple", "Point", "slice"}

# Objects without references.
CLOSED = {
    "atom": lambda node: node.data,
    "array": lambda node: ARRAYS[node.data],
    "set": lambda node: set(node.data),
    "frozenset": lambda node: frozenset(node.data),
    "bytearray": lambda node: bytearray(node.data),
    "numpy array": lambda node: np.zeros(node.data[1], node.data[0]),
}


@st.composite
def plans(draw, max_nodes=9, cyclic=True):
    """Draw the plan of a graph; its first node is the root."""
    count = draw(st.integers(1, max_nodes))
    nodes = []
    for i in range(count):
        last = i == count - 1
        kinds = [*CLOSED, "atom", "array"]
        if cyclic or not last:
            kinds += [*LATER, *LATER]
        if not last:
            kinds += AT_ONCE
        kind = draw(st.sampled_from(kinds))
        if kind in CLOSED:
            data = draw(
                {
                    "atom": atoms,
                    "array": st.integers(0, len(ARRAYS) - 1),
                    "set": st.frozensets(hashable_atoms, max_size=4),
                    "frozenset": st.frozensets(hashable_atoms, max_size=4),
                    "bytearray": bytearrays,
                    "numpy array": numpy_arrays,
                }[kind]
            )
            nodes.append(Node(kind, (), data))
            continue
        low, high = (LATER.get(kind) or AT_ONCE[kind])[-2:]
        first = 0 if cyclic and kind in LATER else i + 1
        targets = st.integers(first, count - 1)
        refs = tuple(draw(st.lists(targets, min_size=low, max_size=high)))
        keys = None
        if kind.lower().endswith("dict"):
            keys = draw(
                st.lists(
                    hashable_atoms,
                    min_size=len(refs),
                    max_size=len(refs),
                    unique_by=lambda key: (str(type(key)), key),
                )
            )
            keys = tuple(keys)
        nodes.append(Node(kind, refs, keys))
    return rebuildable(tuple(nodes))


def rebuildable(plan):
    """Replace objects that would be among the arguments of their own reduction.

    These cannot be made again, neither by pickle nor by autojit.
    """
    others = {"Reduced": "Frozen", "MyTuple": "tuple"}
    nodes = list(plan)
    for i, node in enumerate(nodes):
        if node.kind in others and i in reachable(plan, node.refs):
            nodes[i] = replace(node, kind=others[node.kind])
    return tuple(nodes)


def build(plan):
    """Build the graph of a plan; two builds share opaque objects and arrays alone."""
    objects = [None] * len(plan)
    for i, node in enumerate(plan):
        if node.kind == "object array":
            objects[i] = np.empty(len(node.refs), dtype=object)
        elif node.kind in LATER:
            objects[i] = LATER[node.kind][0]()
        elif node.kind in CLOSED:
            objects[i] = CLOSED[node.kind](node)
    for i in reversed(range(len(plan))):
        node = plan[i]
        if node.kind in AT_ONCE:
            refs = [objects[j] for j in node.refs]
            objects[i] = AT_ONCE[node.kind][0](node, refs)
    for i, node in enumerate(plan):
        if node.kind in LATER:
            LATER[node.kind][1](objects[i], node, [objects[j] for j in node.refs])
    return objects[0]


def reachable(plan, roots=(0,)):
    """Return the nodes that hang off the roots, and how often each is referred to."""
    count = collections.Counter(roots)
    todo = list(count)
    while todo:
        for j in plan[todo.pop()].refs:
            count[j] += 1
            if count[j] == 1:
                todo.append(j)
    return count


SHARED_LIST = (Node("tuple", (1, 1)), Node("list", (2, 1)), Node("array", (), 0))
RING = (Node("Plain", (1,)), Node("Slots", (2, 0)), Node("dict", (0, 1), ("a", "b")))
FROZEN_RING = (Node("list", (1,)), Node("FrozenSlotData", (2,)), Node("list", (0, 1)))
DIAMOND = (
    Node("Data", (1, 2)),
    Node("Reduced", (3,)),
    Node("partial", (3,)),
    Node("OrderedDict", (), ()),
)


@given(plans())
@example(SHARED_LIST)
@example(RING)
@example(FROZEN_RING)
@example(DIAMOND)
def test_unflatten_gives_an_equal_graph_with_the_same_sharing(plan):
    graph = build(plan)
    leaves, skeleton = autojit.flatten(graph)
    result = skeleton.unflatten(leaves)
    assert same_graph(result, graph, identical_leaves)
    assert same_graph(graph, build(plan), identical_leaves)  # It was left alone.
    assert same_graph(skeleton.unflatten(leaves), result, identical_leaves)


@given(plans())
@example(RING)
def test_the_leaves_are_in_the_order_of_the_walk(plan):
    graph = build(plan)
    leaves, _ = autojit.flatten(graph)
    expected = walk_leaves(graph)
    ids = [id(leaf) for leaf in leaves]
    assert collections.Counter(ids) == collections.Counter(map(id, expected))
    if all(
        node.kind in {"list", "tuple", "dict", "Plain", "Data", *CLOSED}
        for node in plan
    ):
        assert ids == [id(leaf) for leaf in expected]


@given(plans())
@example(SHARED_LIST)
@example(RING)
def test_the_leaves_are_those_that_pickle_finds(plan):
    graph = build(plan)
    leaves, _ = autojit.flatten(graph)
    expected, _ = pickle_flatten(graph, jax.Array)
    ours, theirs = (collections.Counter(map(id, part)) for part in (leaves, expected))
    assert ours.keys() == theirs.keys()
    # Where one tuple occurs twice pickle looks into it once, autojit each time.
    if not any(n > 1 and plan[i].kind in BY_VALUE for i, n in reachable(plan).items()):
        assert ours == theirs


@given(plans())
@example(SHARED_LIST)
@example(RING)
def test_an_equal_copy_has_an_equal_skeleton(plan):
    leaves, skeleton = autojit.flatten(build(plan))
    for other in (build(plan), skeleton.unflatten(leaves)):
        _, of_other = autojit.flatten(other)
        assert of_other == skeleton
        assert hash(of_other) == hash(skeleton)


@given(plans())
def test_a_deep_copy_has_an_equal_skeleton(plan):
    # `copy` knows neither of reductions with six items nor of arrays in themselves.
    assume(all(node.kind not in ("ReducedEx", "object array") for node in plan))
    graph = build(plan)
    kept = {id(obj): obj for obj in (*ARRAYS, *OPAQUE, np, math)}
    twin = copy.deepcopy([graph], kept)[0]
    assume(same_graph(graph, twin))  # `deepcopy` does not share all that we do.
    _, one = autojit.flatten(graph)
    _, two = autojit.flatten(twin)
    assert one == two
    assert hash(one) == hash(two)


@given(plans(), st.data())
@example(SHARED_LIST, None)
def test_a_copy_changed_in_one_place_has_a_different_skeleton(plan, data):
    if data is None:
        changed = (*plan[:2], Node("atom", (), 0))
    else:
        changed = data.draw(changes(plan))
    note(f"changed to {changed}")
    one, two = build(plan), build(changed)
    alike = same_graph(one, two, any_leaves)
    _, first = autojit.flatten(one)
    _, second = autojit.flatten(two)
    assert (first == second) is alike
    assert (second == first) is alike
    assert (first != second) is not alike
    if alike:
        assert hash(first) == hash(second)


@st.composite
def changes(draw, plan):
    """Change a plan in one reachable place; often, but not always, to another graph."""
    return rebuildable(draw(_changes(plan)))


@st.composite
def _changes(draw, plan):
    i = draw(st.sampled_from(sorted(reachable(plan))))
    node = plan[i]
    ways = []
    if node.kind == "atom":
        ways += ["atom"] * 3
    if node.refs:
        ways += ["split", "redirect", "swap"]
    if node.kind in ("list", "tuple", "MyList"):
        ways += ["kind", "longer"]
    if node.kind in ("Plain", "SubPlain", "Data", "SlotData", "Frozen"):
        ways += ["kind"]
    if node.kind in LATER and node.data:
        ways += ["key"]
    if node.kind in ("set", "frozenset", "bytearray"):
        ways += ["content"]
    if node.kind == "array" or not ways:
        ways += ["replace"]
    way = draw(st.sampled_from(ways))
    if way in ("atom", "replace"):
        return _with(plan, i, Node("atom", (), draw(atoms)))
    if way == "kind":
        others = {
            "list": "MyList",
            "MyList": "list",
            "tuple": "MyTuple",
            "Plain": "SubPlain",
            "SubPlain": "Plain",
            "Data": "SlotData",
            "SlotData": "Data",
            "Frozen": "FrozenSlotData",
        }
        return _with(plan, i, replace(node, kind=others[node.kind]))
    if way == "longer":
        refs = (*node.refs, len(plan))
        return (*_with(plan, i, replace(node, refs=refs)), Node("atom", (), None))
    if way == "key":
        keys = list(node.data)
        keys[draw(st.integers(0, len(keys) - 1))] = "a new key"
        return _with(plan, i, replace(node, data=tuple(keys)))
    if way == "content":
        more = b"x" if node.kind == "bytearray" else {"a new element"}
        data = node.data + more if node.kind == "bytearray" else node.data | more
        return _with(plan, i, replace(node, data=data))
    refs = list(node.refs)
    at = draw(st.integers(0, len(refs) - 1))
    if way == "swap":
        refs[at], refs[0] = refs[0], refs[at]
        return _with(plan, i, replace(node, refs=tuple(refs)))
    if way == "redirect":
        first = 0 if node.kind in LATER else i + 1
        refs[at] = draw(st.integers(min(first, refs[at]), len(plan) - 1))
        return _with(plan, i, replace(node, refs=tuple(refs)))
    # One reference gets a copy of its own of what it refers to.
    copied = plan[refs[at]]
    assume(copied.kind in LATER or copied.kind in CLOSED)
    refs[at] = len(plan)
    return (*_with(plan, i, replace(node, refs=tuple(refs))), copied)


def _with(plan, i, node):
    return (*plan[:i], node, *plan[i + 1 :])


@given(plans(), plans())
def test_two_graphs_have_equal_skeletons_if_and_only_if_they_are_equal(one, two):
    alike = same_graph(build(one), build(two), any_leaves)
    _, first = autojit.flatten(build(one))
    _, second = autojit.flatten(build(two))
    assert (first == second) is alike


# These trace and compile, so that they get fewer examples.
compiling = settings(max_examples=max(20, settings().max_examples // 5))


def twice_as_much(graph):
    """Return the graph, its leaves doubled beside it."""
    return {"graph": graph, "doubled": [leaf * 2 for leaf in walk_leaves(graph)]}


@compiling
@given(plans(max_nodes=7))
@example(SHARED_LIST)
@example(RING)
@example(FROZEN_RING)
@example(DIAMOND)
def test_a_call_returns_what_the_function_and_the_reference_return(plan):
    expected = twice_as_much(build(plan))
    for wrap in (autojit.jit, autojit.jax_autojit, reference):
        result = wrap(twice_as_much)(build(plan))
        assert same_graph(result, expected, equal_leaves)


@compiling
@given(plans(max_nodes=7), st.data())
def test_calls_share_a_trace_if_and_only_if_their_graphs_are_equal(plan, data):
    changed = data.draw(changes(plan))
    traces = []

    @autojit.jit
    def f(graph):
        traces.append(1)
        return graph

    alike = same_graph(build(plan), build(changed), any_leaves)
    leaves_alike = alike and same_graph(build(plan), build(changed), identical_leaves)
    for graph in (plan, changed, plan, changed, changed):
        result = f(build(graph))
        assert same_graph(result, build(graph), equal_leaves)
    if leaves_alike:
        assert len(traces) == 1
    assert f.cache_info().currsize == (1 if alike else 2)
    assert f.cache_info().hits == (4 if alike else 3)
