"""What a function may return: iterators, functions, aliases, no hidden tracers."""

import collections
import contextlib
import functools
import itertools
import re
import threading
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graphs import equal_leaves, same_graph
from kinds import (
    Data,
    Frozen,
    MyDict,
    MyList,
    Opaque,
    OpaqueUnhashable,
    OpaqueValue,
    Plain,
    Point,
    Reduced,
    ReducedEx,
    Slots,
    double,
)
from numpy.testing import assert_array_equal

import autojit


def is_tracer(obj):
    return isinstance(obj, jax.core.Tracer)


def same(a, b):
    return same_graph(a, b, equal_leaves)


# Nested iterators. Each is made of a list of items that may be arrays.


def generator(items):
    yield from items


def generator_with_return(items):
    yield from items
    return "lost"


def unchanged(item):
    return item


def swapped(a, b):
    return b, a


class Iterator:
    """An iterator of one's own: an ordinary instance, with its state."""

    def __init__(self, items):
        self.items = items
        self.position = 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.position == len(self.items):
            raise StopIteration
        self.position += 1
        return self.items[self.position - 1]


CONSUMED = {
    "generator": generator,
    "generator expression": lambda items: (item for item in items),
    "generator with return": generator_with_return,
    "map": lambda items: map(unchanged, items),
    "map of two": lambda items: map(lambda a, b: (a, b), items, items[::-1]),
    "filter": lambda items: filter(lambda item: not isinstance(item, str), items),
    "filter of None": lambda items: filter(None, ["a", 0, "b"]),
    "zip": lambda items: zip(items, range(9), strict=False),
    "enumerate": lambda items: enumerate(items, 3),
    "accumulate": lambda items: itertools.accumulate(items, lambda a, b: b),
    "dropwhile": lambda items: itertools.dropwhile(lambda a: isinstance(a, str), items),
    "takewhile": lambda items: itertools.takewhile(lambda a: a is not None, items),
    "filterfalse": lambda items: itertools.filterfalse(lambda a: a is None, items),
    "starmap": lambda items: itertools.starmap(swapped, [(a, 1) for a in items]),
    "empty generator": lambda items: generator([]),
    "map of a generator": lambda items: map(unchanged, generator(items)),
    "zip of generators": lambda items: zip(generator(items), generator(items)),  # noqa: B905
    "generator of lists": lambda items: ([item, 1] for item in items),
    "generator of dicts": lambda items: ({"k": item} for item in items),
}

# Those that pickle can take apart. They come back as whatever gives the same items.
REDUCED = {
    "list iterator": iter,
    "tuple iterator": lambda items: iter(tuple(items)),
    "reversed": reversed,
    "dict values": lambda items: iter(dict(enumerate(items)).values()),
    "chain": lambda items: itertools.chain(items, items),
    "islice": lambda items: itertools.islice(items, 2),
    "zip_longest": lambda items: itertools.zip_longest(items, items[:1]),
    "compress": lambda items: itertools.compress(items, [1, 0, 1]),
    "pairwise": itertools.pairwise,
    "product": lambda items: itertools.product(items, items),
    "permutations": itertools.permutations,
    "combinations": lambda items: itertools.combinations(items, 2),
    "of one's own": Iterator,
}

NESTS = {
    "list": (lambda it: [1, it], lambda r: r[1]),
    "tuple": (lambda it: (it, 1), lambda r: r[0]),
    "dict": (lambda it: {"k": it}, lambda r: r["k"]),
    "instance": (lambda it: Plain(a=1, it=it), lambda r: r.it),
    "slots": (lambda it: Slots(it, 1), lambda r: r.a),
    "dataclass": (lambda it: Data(it), lambda r: r.a),
    "frozen dataclass": (lambda it: Frozen(it), lambda r: r.a),
    "namedtuple": (lambda it: Point(1, it), lambda r: r.b),
    "list subclass": (lambda it: MyList([it]), lambda r: r[0]),
    "deque": (lambda it: collections.deque([it]), lambda r: r[0]),
    "partial": (lambda it: functools.partial(double, it), lambda r: r.args[0]),
    "reduced": (lambda it: Reduced(it), lambda r: r.a),
    "deep": (lambda it: [{"a": (Plain(b=[it]),)}], lambda r: r[0]["a"][0].b[0]),
}


def items_of(x):
    return [x + 1, "s", (x, 2.5)]


@pytest.mark.filterwarnings("ignore:Pickle, copy, and deepcopy:DeprecationWarning")
@pytest.mark.parametrize(
    "make", [*CONSUMED.values(), *REDUCED.values()], ids=[*CONSUMED, *REDUCED]
)
@pytest.mark.parametrize("nested", [False, True])
def test_an_iterator_comes_back_as_one_over_the_results(x, make, nested):
    traces = []

    @autojit.jit
    def f(x):
        traces.append(1)
        it = make(items_of(x))
        return {"it": it} if nested else it

    for y in (x, x + 1, x + 2):
        result = f(y)["it"] if nested else f(y)
        assert iter(result) is result
        items = list(result)
        assert same(items, list(make(items_of(y))))
        assert not any(map(is_tracer, jax.tree.leaves(items)))
        assert list(result) == []
    assert len(traces) == 1


@pytest.mark.parametrize(("nest", "get"), NESTS.values(), ids=NESTS)
def test_an_iterator_may_stand_anywhere(x, nest, get):
    kinds = [CONSUMED[name] for name in ("generator", "map", "zip", "accumulate")]
    f = autojit.jit(lambda x: [nest(make(items_of(x))) for make in kinds])
    for y in (x, x + 1):
        for make, first, second in zip(kinds, f(y), f(y), strict=True):
            assert get(first) is not get(second)
            next(get(first))
            assert same(list(get(second)), list(make(items_of(y))))
            assert len(list(get(first))) == 2
    assert f.cache_info().traces == 1


def test_a_nested_generator_runs_inside_of_the_trace_and_once(x):
    events = []

    @autojit.jit
    def f(x):
        def run():
            for i in range(3):
                events.append(is_tracer(x))
                yield x * i

        return {"a": run(), "n": 1}

    result = f(x)
    assert events == [True] * 3
    assert same(list(result["a"]), [x * i for i in range(3)])
    assert same(list(f(x + 1)["a"]), [(x + 1) * i for i in range(3)])
    assert events == [True] * 3


def test_iterators_in_iterators(x):
    @autojit.jit
    def f(x):
        return [(generator([x + i, i]) for i in range(3)), 1]

    for y in (x, x + 1):
        outer, _ = f(y)
        assert iter(outer) is outer
        inner = list(outer)
        assert [iter(it) is it for it in inner] == [True] * 3
        assert [same(list(it), [y + i, i]) for i, it in enumerate(inner)] == [True] * 3


def test_iterators_of_two_places_run_in_their_order(x):
    order = []

    def run(name):
        order.append(name)
        yield name

    @autojit.jit
    def f(x):
        return [run("a"), {"k": run("b"), "l": (run("c"),)}, Plain(d=run("d"))]

    for _ in range(2):
        result = f(x)
        assert next(result[1]["l"][0]) == "c"
        assert next(result[2].d) == "d"
        assert next(result[0]) == "a"
    assert order == ["a", "b", "c", "d"]


def test_an_iterator_that_occurs_twice_is_one_iterator(x):
    kinds = [generator, CONSUMED["map"], CONSUMED["zip"], iter]

    @autojit.jit
    def f(x):
        iterators = [make(items_of(x)) for make in kinds]
        return iterators, {"again": iterators[:]}

    for y in (x, x + 1):
        first, second = f(y)
        for it, again in zip(first, second["again"], strict=True):
            assert it is again
            assert len(list(it)) == 3


def test_two_iterators_over_one_list_are_two(x):
    @autojit.jit
    def f(x):
        items = items_of(x)
        return generator(items), generator(items), items

    for y in (x, x + 1):
        one, two, items = f(y)
        assert one is not two
        assert same(list(one), items_of(y))
        assert same(list(two), items_of(y))
        assert same(items, items_of(y))


def test_what_a_generator_yields_twice_is_one_object(x):
    @autojit.jit
    def f(x):
        shared = [x]
        return {"it": (shared for _ in range(2)), "shared": shared}

    result = f(x)
    one, two = result["it"]
    assert one is two
    assert one is result["shared"]


def test_a_generator_that_has_begun_gives_the_rest(x):
    @autojit.jit
    def f(x):
        it = generator([x, x + 1, x + 2])
        return {"first": next(it), "rest": it}

    for y in (x, x + 1):
        result = f(y)
        assert_array_equal(result["first"], y)
        assert same(list(result["rest"]), [y + 1, y + 2])


def test_a_generator_that_changes_what_is_returned_beside_it(x):
    """It runs before anything is taken apart, or the two would not fit together."""

    @autojit.jit
    def f(x):
        done = []

        def run():
            for i in range(2):
                done.append(x + i)
                yield i

        return {"it": run(), "done": done}

    for y in (x, x + 1):
        result = f(y)
        assert list(result["it"]) == [0, 1]
        assert same(result["done"], [y, y + 1])


def test_an_infinite_iterator_that_pickle_takes_apart_is_not_consumed(x):
    """Only its state is carried out."""

    class Endless:
        def __init__(self, x):
            self.x = x

        def __iter__(self):
            return self

        def __next__(self):
            return self.x

    f = autojit.jit(lambda x: [Endless(x + 1)])
    for y in (x, x + 1):
        (result,) = f(y)
        assert_array_equal(next(result), y + 1)
        assert type(result) is Endless


def test_an_iterator_over_untouched_arrays_gives_these_arrays(x):
    f = autojit.jit(lambda x: [generator([x, x + 1])])
    for y in (x, x + 1):
        first, second = f(y)[0]
        assert first is y
        assert_array_equal(second, y + 1)


@pytest.mark.parametrize(
    "transform",
    [jax.jit, jax.vmap, lambda f: jax.grad(lambda x: (f(x) * x).sum() / 2)],
    ids=["jit", "vmap", "grad"],
)
def test_a_nested_iterator_inside_of_a_transformation(x, transform):
    f = autojit.jit(lambda x: {"it": (x * i for i in range(3))})
    g = transform(lambda x: sum(f(x)["it"]))
    for y in (x, x + 1):
        assert_array_equal(g(y), y * 3)


def test_a_nested_iterator_of_a_dispatcher_in_a_dispatcher(x):
    inner = autojit.jit(lambda x: {"it": generator([x, x + 1])})
    outer = autojit.jit(lambda x: [inner(x * 2)["it"], sum(inner(x)["it"])])
    for y in (x, x + 1):
        it, total = outer(y)
        assert same(list(it), [y * 2, y * 2 + 1])
        assert_array_equal(total, y + y + 1)


# Iterators that came in.


def test_a_generator_that_came_in_comes_back_as_itself(x):
    f = autojit.jit(lambda tree: Plain(got=[tree["a"][0].it], again=tree, x=x + 1))
    it, other = (i for i in range(3)), (i for i in range(3))
    for traces, generator in [(1, it), (1, it), (2, other)]:
        result = f({"a": [Plain(it=generator, x=x)]})
        assert result.got[0] is generator
        assert result.again["a"][0].it is generator
        assert f.cache_info().traces == traces
    assert list(it) == [0, 1, 2]


def test_a_generator_that_came_in_and_is_the_whole_result_is_consumed(autojit_like, x):
    it = (i for i in range(3))
    f = autojit_like(lambda x, it: it)
    assert list(f(x, it)) == [0, 1, 2]
    assert list(it) == []


def test_a_generator_that_came_in_in_a_closure_comes_back_as_itself(x):
    f = autojit.jit(lambda x, fn: [fn()])
    it = (i for i in range(3))
    for _ in range(2):
        assert f(x, lambda: it)[0] is it
    assert list(it) == [0, 1, 2]


def test_a_generator_that_came_in_and_is_read_in_the_trace(x):
    @autojit.jit
    def f(x, it):
        return {"first": x + next(it), "rest": it, "mapped": map(str, [next(it)])}

    it = (i for i in range(5))
    result = f(x, it)
    assert_array_equal(result["first"], x)
    assert result["rest"] is it
    assert list(result["mapped"]) == ["1"]
    assert list(it) == [2, 3, 4]


def test_a_generator_over_one_that_came_in_is_consumed(x):
    f = autojit.jit(lambda x, it: [(x + i for i in it)])
    it = (i for i in range(3))
    assert same(list(f(x, it)[0]), [x, x + 1, x + 2])
    assert list(it) == []
    assert same(list(f(x + 1, it)[0]), [x + 1, x + 2, x + 3])


def test_an_open_file_comes_back_as_itself(x, tmp_path):
    (tmp_path / "file").write_text("line 1\nline 2\n")
    f = autojit.jit(lambda x, file: {"file": file})
    with open(tmp_path / "file") as file:
        for _ in range(2):
            assert f(x, file)["file"] is file
        assert file.readline() == "line 1\n"


# Results that alias each other, arguments and themselves.


def in_itself(x):
    a = [x, 1]
    a.append(a)
    return a


def in_itself_by_a_dict(x):
    d = {"x": x}
    d["self"] = (d, [d])
    return d


def in_itself_by_an_instance(x):
    p = Plain(x=x)
    p.children = [Plain(parent=p, y=x + 1), Slots(p, x)]
    return p


def in_itself_by_a_subclass(x):
    d = MyDict(x=x)
    d.me = d
    d["me"] = MyList([d])
    return d


def in_itself_by_a_reduction(x):
    r = ReducedEx(x)
    r.append(r)
    r["me"] = r
    r.state = [r]
    return r


def in_itself_by_a_method(x):
    p = Plain(factor=x)
    p.scale = p.scaled
    return p


def shared_at_depths(x):
    a, b = [x], {"b": x + 1}
    return {"a": a, "l": [a, (b, a), x], "p": Plain(a=a, b=b, c=Slots(b, a))}


ALIASING = [
    in_itself,
    in_itself_by_a_dict,
    in_itself_by_an_instance,
    in_itself_by_a_subclass,
    in_itself_by_a_reduction,
    in_itself_by_a_method,
    shared_at_depths,
]


@pytest.mark.parametrize("make", ALIASING)
def test_aliases_in_a_result_are_kept(x, make):
    f = autojit.jit(lambda x: make(x * 2))
    for y in (x, x + 1, x):
        assert same(f(y), make(y * 2))
    assert f.cache_info().traces == 1


@pytest.mark.parametrize("make", ALIASING)
def test_aliases_of_a_result_and_an_argument_are_kept(x, make):
    """They are aliases of the copy that the function has, not of the caller's own."""

    def f(tree, y):
        return [tree, {"again": tree, "made": make(y), "y": y}, tree]

    g = autojit.jit(f)
    for y in (x, x + 1):
        tree = make(y)
        result = g(tree, y)
        assert same(result, f(tree, y))
        assert result[0] is result[2]
        assert result[0] is not tree
        assert same(tree, make(y))


def test_arguments_that_share_are_returned_so(x):
    f = autojit.jit(lambda a, b: {"b": b, "pair": (a, b), "inner": b["a"]})
    for y in (x, x + 1):
        a = [y]
        result = f(a, {"a": a})
        assert result["pair"][0] is result["inner"]
        assert result["pair"][1] is result["b"]
        assert result["b"]["a"] is result["inner"]
        other = f([y], {"a": [y]})
        assert other["pair"][0] is not other["inner"]


def test_a_result_that_is_put_into_an_argument(x):
    @autojit.jit
    def f(tree):
        result = {"tree": tree, "x": tree["x"] * 2}
        tree["result"] = result
        return result

    for y in (x, x + 1):
        tree = {"x": y}
        result = f(tree)
        assert result["tree"]["result"] is result
        assert_array_equal(result["x"], y * 2)
        assert list(tree) == ["x"]


def test_a_result_that_contains_itself_and_an_iterator(x):
    @autojit.jit
    def f(x):
        a = [x]
        a.append(part for part in [a, x + 1])
        a.append(a)
        return a

    for y in (x, x + 1):
        result = f(y)
        assert result[2] is result
        first, second = result[1]
        assert first is result
        assert_array_equal(second, y + 1)


def test_two_results_share_nothing_mutable(x):
    made = []

    @autojit.jit
    def f(x, items):
        made.append([1])
        return {"made": made[-1], "items": items, "again": [items]}

    first, second = f(x, [1]), f(x, [1])
    first["made"].append(2)
    first["items"].append(2)
    assert first["again"][0] == [1, 2]
    assert second["made"] == [1]
    assert second["items"] == [1]
    assert f(x, [1])["made"] == [1]


def test_an_exception_is_a_result_like_any_other(x):
    f = autojit.jit(lambda x: [ValueError("text", x * 2, [x])])
    for y in (x, x + 1):
        (error,) = f(y)
        assert type(error) is ValueError
        assert same(list(error.args), ["text", y * 2, [y]])


# Functions as results.


def test_a_function_that_came_in_comes_back_as_itself(x):
    f = autojit.jit(lambda tree: [tree["k"].fn, tree, tree["k"].x + 1])
    for n in (1, 2, 1, 2):
        fn = lambda y, n=n: y + n  # noqa: E731
        got, again, _ = f({"k": Plain(fn=fn, x=x)})
        assert got is fn
        assert again["k"].fn is fn
    assert f.cache_info().traces == 2


def test_which_of_two_equal_functions_comes_back(x):
    f = autojit.jit(lambda x, fns: [fns[1], fns[0]])
    for _ in range(2):
        one, two = ((lambda y: y) for _ in range(2))
        back = f(x, [one, two])
        assert back[0] is two
        assert back[1] is one


def test_a_function_that_came_back_is_not_one_that_has_changed(x):
    def make():
        n = 1

        def fn():
            return n

        def set_n(value):
            nonlocal n
            n = value

        return fn, set_n

    f = autojit.jit(lambda x, fn: [fn])
    first, set_first = make()
    assert f(x, first)[0]() == 1
    set_first(5)
    second, _ = make()
    assert f(x, second)[0]() == 1
    assert f(x, first)[0]() == 5


def test_a_function_made_in_the_trace_comes_back_whole(x):
    made = []

    @autojit.jit
    def f(x, n):
        made.append(lambda y: y + n)
        return {"fn": made[-1], "x": x}

    assert f(x, 2)["fn"] is made[0]
    assert f(x + 1, 2)["fn"] is made[0]
    assert_array_equal(f(x, 2)["fn"](x), x + 2)
    assert f(x, 3)["fn"] is made[1]
    assert len(made) == 2


def test_a_function_with_a_concrete_array_comes_back(x):
    w = x * 3
    f = autojit.jit(lambda x: {"fn": lambda y: y + w, "default": lambda y, w=w: y * w})
    for _ in range(2):
        result = f(x)
        assert_array_equal(result["fn"](x), x + w)
        assert_array_equal(result["default"](x), x * w)


def test_a_partial_carries_arrays_out(x):
    """What the error about a traced array in a closure should make people write."""
    f = autojit.jit(lambda x: {"fn": functools.partial(lambda w, y: w + y, x * 2)})
    for y in (x, x + 1):
        assert_array_equal(f(y)["fn"](1.0), y * 2 + 1)


OPAQUE = {
    "cached function": lambda: functools.lru_cache(lambda y: y),
    "lock": threading.Lock,
    "opaque": Opaque,
    "unhashable": OpaqueUnhashable,
    "jitted": lambda: jax.jit(lambda y: y),
    "dispatcher": lambda: autojit.jit(lambda y: y),
    "custom rule": lambda: jax.custom_jvp(lambda y: y),
    "class": lambda: type("Local", (), {"attribute": jnp.ones(2)}),
    "module": lambda: types.ModuleType("made"),
    "generator": lambda: (i for i in range(3)),
}


@pytest.mark.parametrize("name", OPAQUE)
def test_what_is_opaque_comes_back_identical(x, name):
    obj = OPAQUE[name]()
    f = autojit.jit(lambda x, obj: {"a": [obj], "b": Plain(obj=obj, x=x), "c": obj})
    for _ in range(2):
        result = f(x, obj)
        assert result["a"][0] is obj
        assert result["b"].obj is obj
        assert result["c"] is obj
    if name == "generator":
        return  # one that the function holds did not come in, and is run
    held = autojit.jit(lambda x: (x, [obj]))
    for _ in range(2):
        assert held(x)[1][0] is obj


def test_an_opaque_object_that_equals_another_comes_back_identical(x):
    f = autojit.jit(lambda x, obj: {"x": x, "obj": [obj]})
    for _ in range(3):
        obj = OpaqueValue(1)
        assert f(x, obj)["obj"][0] is obj
    assert f.cache_info().traces == 1


def test_an_opaque_object_with_concrete_arrays_is_no_error(x):
    obj = Opaque()
    obj.array, obj.me, obj.items = x, obj, [x, {"k": (x, obj)}]
    f = autojit.jit(lambda x, obj: (x + 1, [obj], {"made": hold(x=None, of=obj)}))
    for _ in range(2):
        result = f(x, obj)
        assert result[1][0] is obj
        assert result[2]["made"].of is obj


# Tracers in hiding. Each makes something that hides an array where it can't be carried
# out, and says what the error has to name: the path from there, and perhaps a type.


def hold(**attributes):
    obj = Opaque()
    obj.__dict__.update(attributes)
    return obj


def closure(held):
    return lambda: held


class OpaqueSlots(Opaque):
    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


class OpaqueList(list):
    def __reduce_ex__(self, protocol):
        raise TypeError("cannot be reduced")


def with_attribute(x):
    def fn():
        pass

    fn.note = x
    return fn


def with_kwdefault(x):
    return lambda *, key=x: key


def self_recursive(x):
    def fn(n):
        return x if n == 0 else fn(n - 1)

    return fn


def mutually_recursive(x):
    def even(n):
        return x if n == 0 else odd(n - 1)

    def odd(n):
        return even(n - 1)

    return odd


def decorated(x):
    @functools.wraps(double)
    def wrapper(y):
        return double(y) + x

    return wrapper


@types.coroutine
def pause():
    yield


def coroutine(x):
    async def run():
        await pause()
        return x

    it = run()
    it.send(None)  # begun, or Python warns that nobody awaits it
    return it


async def async_generator(x):
    yield x


def running_async_generator(x):
    async def run():
        y = x + 1
        yield 1
        yield y

    it = run()
    with contextlib.suppress(StopIteration):
        it.__anext__().send(None)
    return it


IN_FUNCTIONS = {
    "closure": (lambda x: lambda: x, ".__closure__[0]"),
    "default": (lambda x: lambda y=x: y, ".__defaults__[0]"),
    "keyword default": (with_kwdefault, ".__kwdefaults__['key']"),
    "attribute": (with_attribute, "note"),
    "second cell": (lambda x: (lambda a, b: lambda: (a, b))(1, x), ".__closure__[1]"),
    "list in a closure": (lambda x: closure([1, x]), ".__closure__[0][1]"),
    "dict in a closure": (lambda x: closure({"k": x}), ".__closure__[0]['k']"),
    "instance in a closure": (lambda x: closure(Plain(w=x)), ".__closure__[0].w"),
    "closure of a closure": (
        lambda x: closure(lambda: x),
        ".__closure__[0].__closure__[0]",
    ),
    "default of a default": (
        lambda x: lambda y=lambda z=x: z: y,
        ".__defaults__[0].__defaults__[0]",
    ),
    "partial in a closure": (
        lambda x: closure(functools.partial(double, x)),
        ".__closure__[0]",
    ),
    "self-recursive": (self_recursive, ".__closure__[1]"),
    "mutually recursive": (mutually_recursive, ".__closure__[0].__closure__"),
    "decorated": (decorated, ".__closure__[0]"),
    "function of a partial": (
        lambda x: functools.partial(lambda y: y + x, 1),
        ".func.__closure__[0]",
    ),
    "function of a method": (
        lambda x: types.MethodType(lambda self: x, Plain()),
        ".__func__.__closure__[0]",
    ),
    "static method": (lambda x: staticmethod(lambda: x), ""),
}

IN_OPAQUE_OBJECTS = {
    "attribute": (lambda x: hold(a=x), "Opaque"),
    "list in an attribute": (lambda x: hold(a=[1, {"k": (x,)}]), "Opaque"),
    "instance in an attribute": (lambda x: hold(a=Plain(b=Slots(x, 1))), "Opaque"),
    "opaque in opaque": (lambda x: hold(a=hold(b=x)), "Opaque"),
    "function in opaque": (lambda x: hold(fn=lambda: x), "Opaque"),
    "slot": (OpaqueSlots, "OpaqueSlots"),
    "item": (lambda x: OpaqueList([1, x]), "OpaqueList"),
    "cached function": (
        lambda x: functools.lru_cache(lambda: x),
        "functools._lru_cache_wrapper",
    ),
    "coroutine": (coroutine, "coroutine"),
    "async generator": (async_generator, "async_generator"),
    "async generator that runs": (running_async_generator, "async_generator"),
    "dispatcher": (lambda x: autojit.jit(lambda y: y + x), "Dispatcher"),
    "jitted": (lambda x: jax.jit(lambda y: y + x), "PjitFunction"),
    "custom rule": (lambda x: jax.custom_jvp(lambda y: y + x), "custom_jvp"),
    "class": (lambda x: type("Local", (), {"value": x}), "type"),
    "opaque in a closure": (lambda x: closure(hold(a=x)), "Opaque"),
    "cycle": (lambda x: (lambda o: (setattr(o, "o", o), o)[1])(hold(x=x)), "Opaque"),
}

# Where it hides, and the path to there.
HIDING = {
    "result": (lambda obj: obj, "result"),
    "item": (lambda obj: [1, obj], "result[1]"),
    "dict": (lambda obj: {"fn": obj, "n": 1}, "result['fn']"),
    "attribute": (lambda obj: Plain(a=Slots(1, obj)), "result.a.b"),
    "deep": (lambda obj: {"k": [Data(1, (obj,))]}, "result['k'][0].b[0]"),
}


def assert_names(error, path):
    """Check that a message names a path, whole: no other path that begins with it."""
    assert re.search(rf"(?<!\w){re.escape(path)}", str(error)), str(error)


@pytest.mark.parametrize(
    ("hide", "named"),
    [*IN_FUNCTIONS.values(), *IN_OPAQUE_OBJECTS.values()],
    ids=[*IN_FUNCTIONS, *(f"opaque {name}" for name in IN_OPAQUE_OBJECTS)],
)
def test_a_hidden_tracer_is_an_error_that_names_the_path(x, hide, named):
    @autojit.jit
    def f(x, place):
        if place is None:
            return [nest(hide(1.0)) for nest, _ in HIDING.values()]
        nest, _ = HIDING[place]
        return nest(hide(x * 2))

    for place, (_, path) in HIDING.items():
        for _ in range(2):
            with pytest.raises(jax.errors.UnexpectedTracerError) as caught:
                f(x, place)
            if named.startswith("."):
                assert_names(caught.value, path + named)
            else:
                assert_names(caught.value, path)
                assert named in str(caught.value)
            assert isinstance(caught.value, TypeError)
    assert f.cache_info().currsize == 0
    f(x, None)
    f(x + 1, None)
    assert f.cache_info()[:2] == (1, 1)


def put_into_the_opaque(x, obj, fn):
    obj.value = x
    return [obj]


def put_into_the_function(x, obj, fn):
    fn.note = x
    return {"fn": fn}


def in_the_method_of_a_class(x, obj, fn):
    class Made:
        def get(self):
            return x

    return [Made()]


def in_a_base_class(x, obj, fn):
    class Base:
        held = x

    class Derived(Base):
        pass

    return [Derived]


# Functions of an array, an opaque object and a function, and what the error names.
HIDERS = {
    "untouched": (lambda x, obj, fn: {"fn": lambda: x}, r"result\['fn'\]"),
    "untouched, opaque": (lambda x, obj, fn: [x, hold(a=x)], r"result\[1\]"),
    "argument, opaque": (put_into_the_opaque, r"result\[0\].*Opaque"),
    "argument, function": (put_into_the_function, "note"),
    "generator": (
        lambda x, obj, fn: [(lambda: x for _ in range(2))],
        r"result\[0\]",
    ),
    "method of a class": (in_the_method_of_a_class, r"result\[0\]\.get"),
    "base class": (in_a_base_class, r"result\[0\]\.held"),
}


@pytest.mark.parametrize(("fun", "path"), HIDERS.values(), ids=HIDERS)
def test_what_else_hides_a_tracer_is_an_error_that_names_it(x, fun, path):
    f, obj = autojit.jit(fun), Opaque()

    def fn():
        pass

    for _ in range(2):
        with pytest.raises(jax.errors.UnexpectedTracerError, match=path):
            f(x, obj, fn)


def test_a_method_of_an_argument_in_a_closure_hides_its_arrays(x):
    f = autojit.jit(lambda model, x: {"y": x, "predict": lambda z: model.w * z})
    with pytest.raises(jax.errors.UnexpectedTracerError) as caught:
        f(Plain(w=x), x)
    assert_names(caught.value, "result['predict'].__closure__[0].w")
    assert_array_equal(f(Plain(w=2.0), x)["predict"](x), 2 * x)


def test_a_hidden_tracer_of_an_inner_trace(x):
    inner = autojit.jit(lambda x: {"fn": lambda: x})
    outer = autojit.jit(lambda x: inner(x)["fn"]())
    for call in (outer, jax.jit(outer), jax.vmap(outer)):
        with pytest.raises(jax.errors.UnexpectedTracerError) as caught:
            call(x)
        assert_names(caught.value, "result['fn'].__closure__[0]")


# Tracers of a trace outside are no business of ours.

OUTER = {
    "jit": jax.jit,
    "vmap": jax.vmap,
    "grad": lambda f: jax.grad(lambda x: f(x).sum()),
    "jit of grad": lambda f: jax.jit(jax.grad(lambda x: f(x).sum())),
    "dispatcher": autojit.jit,
    "scan": lambda f: lambda x: jax.lax.scan(lambda c, r: (c, f(r)), 0, x)[1],
}


@pytest.fixture(params=OUTER.values(), ids=OUTER)
def outer(request):
    return request.param


returns_opaque = autojit.jit(lambda x, obj: {"x": x * 2, "obj": [obj]})
returns_function = autojit.jit(lambda x, fn: {"x": fn(x), "fn": fn})
uses_opaque = autojit.jit(lambda x, obj: x * obj.value)


def in_an_opaque_argument(y):
    obj = hold(value=y, items=[y])
    result = returns_opaque(y, obj)
    assert result["obj"][0] is obj
    return result["x"] * obj.value


def in_a_function(y):
    def fn(z):
        return z * y

    fn.note = y
    result = returns_function(y * 2, fn)
    assert result["fn"] is fn
    return result["x"] + result["fn"](1.0)


def in_an_opaque_argument_that_is_not_returned(y):
    return uses_opaque(y + 1, hold(value=y))


@pytest.mark.parametrize(
    ("fun", "plain"),
    [
        (in_an_opaque_argument, lambda y: y * 2 * y),
        (in_a_function, lambda y: y * 2 * y + y),
        (in_an_opaque_argument_that_is_not_returned, lambda y: (y + 1) * y),
    ],
    ids=["opaque", "function", "opaque, not returned"],
)
def test_a_tracer_of_an_outer_trace_goes_through(x, outer, fun, plain):
    expected = outer(plain)(x)
    for _ in range(2):
        np.testing.assert_allclose(outer(fun)(x), expected)


def test_a_tracer_of_this_trace_beside_one_of_an_outer_trace(x, outer):
    @autojit.jit
    def inner(x, obj):
        obj.mine = x * 2
        return [obj]

    def f(y):
        return inner(y, hold(value=y))[0].value

    with pytest.raises(jax.errors.UnexpectedTracerError, match="Opaque"):
        outer(f)(x)


@pytest.mark.parametrize(
    "part",
    [lambda: jax.sharding.PartitionSpec("a"), lambda: Plain(factor=2).scaled],
    ids=["constants", "a method"],
)
def test_what_is_the_same_for_all_callers_does_not_bind_a_result_to_one(part, x):
    def make():
        made = Plain(part=part())
        made.function = lambda: made
        return made

    f = autojit.jit(lambda obj, x: (obj, x + 1))
    for _ in range(3):
        obj = make()
        back, _ = f(obj, x)
        assert back.function is obj.function
    assert f.cache_info().traces == 1
