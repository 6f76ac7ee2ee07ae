"""Each kind of object in each position of a call tree and of a result.

The kinds are those of `KINDS`, of JAX and of the libraries. For each of them: the
function sees an equal object of the same type with tracers in place of the arrays; an
equal object made anew is a hit and a different one is not; and as a result it comes
back equal and of the same type.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest
from graphs import equal_leaves, identical_leaves, same_graph
from jax_kinds import JAX_KINDS
from kinds import (
    KINDS,
    Data,
    Plain,
    Point,
    Slots,
    closure_over,
    function_with_attribute,
    function_with_default,
    function_with_keyword_default,
)
from library_kinds import LIBRARY_KINDS

import autojit

# itertools warn that they will not be reducible for ever.
pytestmark = pytest.mark.filterwarnings("ignore:.*itertools:DeprecationWarning")

ALL_KINDS = {**KINDS, **JAX_KINDS, **LIBRARY_KINDS}
HOLDERS = {name: kind for name, kind in ALL_KINDS.items() if kind.inner is not None}


@pytest.fixture(params=ALL_KINDS.values(), ids=ALL_KINDS)
def kind(request):
    return request.param


class Position(NamedTuple):
    """Where an object stands in a call, or in a result."""

    put: Callable  # makes an argument of an object
    get: Callable  # finds the object in the argument
    # Whether the object is in a function, which is handed through whole: then it is
    # seen as the very object, with its arrays as constants.
    constant: bool = False


KEY = Position(lambda obj: {obj: 1}, lambda arg: next(iter(arg)))
NESTED = {
    "dict key": KEY,
    "dict value": Position(lambda obj: {"a": [], "b": obj}, lambda arg: arg["b"]),
    "element of a list": Position(lambda obj: [0, obj], lambda arg: arg[1]),
    "element of a tuple": Position(lambda obj: ((obj,), 0), lambda arg: arg[0][0]),
    "field of a namedtuple": Position(lambda obj: Point(0, obj), lambda arg: arg.b),
    "attribute": Position(lambda obj: Plain(a=1, b=obj), lambda arg: arg.b),
    "slot": Position(lambda obj: Slots(0, obj), lambda arg: arg.b),
}
IN_FUNCTIONS = {
    "closure cell": Position(
        closure_over, lambda arg: arg.__closure__[0].cell_contents, constant=True
    ),
    "default": Position(
        function_with_default, lambda arg: arg.__defaults__[0], constant=True
    ),
    "keyword default": Position(
        function_with_keyword_default,
        lambda arg: arg.__kwdefaults__["default"],
        constant=True,
    ),
    "attribute of a function": Position(
        function_with_attribute, lambda arg: arg.attribute, constant=True
    ),
}
IN_CALLS = {"argument": Position(lambda obj: obj, lambda arg: arg), **NESTED}

# An instance without state that a function or another object holds equals itself only:
# others may be there to be told from it, as `test_sentinels.py` has it.
STATELESS = [
    KINDS[name] for name in ("empty instance", "empty slots", "__getstate__ of None")
]


def hashable(obj):
    try:
        hash(obj)
    except (TypeError, ValueError):  # The latter is raised by a memoryview.
        return False
    return True


def placed(kind, positions, x):
    """Return where an object of the kind may stand, and what it holds there.

    That is `x`, or in a key what can be hashed.
    """
    result = {}
    for name, position in positions.items():
        held = x
        if position is KEY and kind.inner is not None and not hashable(kind.make(x)):
            held = "held"
        if position is not KEY or hashable(kind.make(held)):
            result[name] = position, held
    return result


def another(x):
    """Return another array; what is none stays."""
    return x + 1 if isinstance(x, jax.Array) else x


def is_tracer(a, b):
    return isinstance(a, jax.core.Tracer)


def skeleton_of(obj):
    return autojit.flatten(obj, LEAF_TYPES)[1]


# `flatten` by itself takes out what it is told to.
LEAF_TYPES = (jax.Array, jax.Ref)


def test_the_function_sees_an_equal_object(kind, x):
    """With tracers in place of the arrays; and an equal object shares the trace."""
    places = placed(kind, IN_CALLS, x)
    seen = {}

    @autojit.jit
    def f(*args, key):
        parts = zip(places.items(), args, strict=True)
        seen.update({name: position.get(arg) for (name, (position, _)), arg in parts})
        seen["keyword"] = key

    def call(y):
        passed = {"keyword": kind.make(y)}
        args = []
        for name, (position, held) in places.items():
            passed[name] = kind.make(y if held is x else held)
            args.append(position.put(passed[name]))
        f(*args, key=passed["keyword"])
        return passed

    passed = call(x)
    call(x if kind.whole else another(x))
    assert f.cache_info()[:4] == (1, 1, 1, 1) or kind in STATELESS
    for name, obj in seen.items():
        if kind.whole:
            assert obj is passed[name], name
        else:
            held = places[name][1] if name in places else x
            assert kind.same(obj, kind.make(held), is_tracer), name


def test_functions_that_are_passed_keep_the_very_object(kind, x):
    """In closure, defaults and attributes; arrays there are constants, by identity."""
    seen = []

    @autojit.jit
    def f(*functions):
        parts = zip(IN_FUNCTIONS.values(), functions, strict=True)
        seen.append([position.get(function) for position, function in parts])

    objects = [kind.make(x) for _ in IN_FUNCTIONS]
    for passed in (objects, [kind.make(x) for _ in IN_FUNCTIONS]):
        parts = zip(IN_FUNCTIONS.values(), passed, strict=True)
        f(*(position.put(obj) for position, obj in parts))
    assert f.cache_info()[:4] == (1, 1, 1, 1) or kind in STATELESS
    for name, obj, passed in zip(IN_FUNCTIONS, seen[0], objects, strict=True):
        assert obj is passed, name


def test_skeletons_are_equal_for_equal_objects_only(kind, x):
    wrong = []
    places = placed(kind, {**IN_CALLS, **IN_FUNCTIONS}, x)
    for name, (position, held) in places.items():
        one = skeleton_of(position.put(kind.make(held)))
        two = skeleton_of(position.put(kind.make(held)))
        differs = one != two or hash(one) != hash(two)
        if differs and not (kind in STATELESS and position.constant):
            wrong.append(f"{name}: an equal one differs")
        for i, make in enumerate(kind.others):
            other = make(held)
            if position is KEY and not hashable(other):
                continue
            if skeleton_of(position.put(other)) == one:
                wrong.append(f"{name}: other {i} is equal")
        if kind.arrays(x) and held is x:
            arrays = skeleton_of(position.put(kind.make(another(x))))
            # Arrays that a function captures are constants.
            if (arrays == one) is position.constant:
                wrong.append(f"{name}: other arrays")
    assert wrong == []


def test_different_objects_do_not_share_a_trace(kind, x):
    seen = []
    f = autojit.jit(lambda obj: seen.append(1))
    makers = (kind.make, *kind.others)
    objects = [make(x) for make in makers]
    for _ in range(2):
        for obj in (*objects, objects[-1]):
            f(obj)
    assert len(seen) == f.cache_info().currsize == len(makers)


def came_back(kind, result, made):
    if kind.iterates and not kind.whole:
        return same_graph(list(result), list(made), equal_leaves)
    return kind.same(result, made, equal_leaves)


def check_results(kind, places, f, argument, x):
    """Check what comes back from all positions of a result; return the last of them."""
    for y in (x, x if kind.whole else another(x)):
        results = f(argument(y))
        for name, (position, held) in places.items():
            result = position.get(results[name])
            made = kind.make(held if held is not x else y)
            assert came_back(kind, result, made), f"{name}: {result!r}"
    assert f.cache_info()[:4] == (1, 1, 1, 1)


def test_an_argument_comes_back_as_part_of_a_result(kind, x):
    if not kind.returns:
        return
    places = placed(kind, NESTED, x)

    @autojit.jit
    def f(objects):
        return {n: position.put(objects[n]) for n, (position, _) in places.items()}

    def objects(y):
        makers = places.items()
        return {n: kind.make(held if held is not x else y) for n, (_, held) in makers}

    check_results(kind, places, f, objects, x)


def test_what_is_made_in_the_trace_comes_back_as_part_of_a_result(kind, x):
    if kind.whole or not kind.returns or (kind.arrays(x) and kind.inner is None):
        return  # The last: it is made of concrete arrays only.
    places = placed(kind, NESTED, x)

    @autojit.jit
    def f(y):
        return {
            n: position.put(kind.make(held if held is not x else y))
            for n, (position, held) in places.items()
        }

    check_results(kind, places, f, lambda y: y, x)


def test_an_argument_comes_back_as_the_result(kind, x):
    if not kind.returns:
        return
    f = autojit.jit(lambda obj: obj)
    for y in (x, x if kind.whole else another(x)):
        made = kind.make(y)
        if isinstance(made, Iterator):
            # It was run while tracing.
            if not kind.whole:
                assert same_graph(list(f(made)), list(kind.make(y)), equal_leaves)
        else:
            assert came_back(kind, f(made), kind.make(y))
            assert f.cache_info().traces == 1


def test_flatten_finds_the_arrays_and_unflatten_puts_them_back(kind, x):
    leaves, skeleton = autojit.flatten(kind.make(x), LEAF_TYPES)
    assert len(leaves) == skeleton.num_leaves == kind.arrays(x)
    # Some kinds of libraries hold other arrays beside, or instead.
    own = kind.inner is not None or kind in KINDS.values()
    assert not own or all(leaf is x for leaf in leaves)
    same_leaves = identical_leaves if own else equal_leaves
    assert kind.same(skeleton.unflatten(leaves), kind.make(x), same_leaves)


@pytest.mark.parametrize("holder", HOLDERS.values(), ids=HOLDERS)
def test_one_kind_nested_in_another(holder, x):
    wrong = []
    for name, kind in ALL_KINDS.items():
        try:
            obj = holder.make(kind.make(x))
        except (TypeError, ValueError):
            assert not hashable(kind.make(x)), name
            continue
        leaves, skeleton = autojit.flatten(obj, LEAF_TYPES)
        back = holder.inner(skeleton.unflatten(leaves))
        again = skeleton_of(holder.make(kind.make(x)))
        if not kind.same(
            back, kind.make(x), identical_leaves if kind.inner else equal_leaves
        ):
            wrong.append(f"{name}: came through as {back!r}")
        differs = again != skeleton or hash(again) != hash(skeleton)
        if differs and kind not in STATELESS:  # `obj` is still there, and holds one.
            wrong.append(f"{name}: an equal one differs")
        if skeleton_of(holder.make(kind.others[0](x))) == skeleton:
            wrong.append(f"{name}: a different one is equal")
    assert wrong == []


def test_a_kind_in_three_others(kind, x):
    if not kind.returns:
        return

    @autojit.jit
    def f(tree):
        return tree, jnp.sum(tree.b)

    for y in (x, x if kind.whole else x + 1):
        tree, total = f(tree=Data([Plain(a=Slots({"k": kind.make(y)}, y))], b=y))
        assert came_back(kind, tree.a[0].a.a["k"], kind.make(y))
        assert total == y.sum()
    assert f.cache_info().traces == 1
