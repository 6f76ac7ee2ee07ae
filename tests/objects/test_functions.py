"""Functions in a call: compared by value, with all that they close over."""

import asyncio
import collections
import concurrent.futures
import copy
import dataclasses
import enum
import functools
import gc
import threading
import time
import types
import weakref

import equinox as eqx
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from graphs import same_graph
from kinds import (
    Color,
    Data,
    Frozen,
    HostileError,
    MyInt,
    MyList,
    Opaque,
    OpaqueValue,
    Plain,
    Point,
    Reduced,
    Slots,
    SubPlain,
    double,
    text,
    triple,
    with_attributes,
)
from numpy.testing import assert_array_equal

import autojit


def applied(**options):
    """Return a dispatcher that applies a function, and the functions it traced."""
    seen = []

    @autojit.jit(**options)
    def f(fn, x, *others):
        seen.append(fn)
        return fn(x)

    return f, seen


def skeleton(*objects):
    leaves, result = autojit.flatten(objects)
    assert leaves == [], "what a function holds is no leaf"
    return result


def assert_distinct(make):
    """Check that each object equals itself made anew, and no other.

    `make` returns all of them, made anew.
    """
    first = [skeleton(obj) for obj in make()]
    for i, obj in enumerate(make()):
        again = skeleton(obj)
        equal = [j for j, one in enumerate(first) if one == again]
        assert equal == [i], obj
        assert hash(again) == hash(first[i])


# Functions that are made anew, equal each time. Each takes one array.


def closing_over(value):
    return lambda x: (x + 1, value)[0]


def with_default(value):
    return lambda x, default=value: x + 1


def with_kwdefault(value):
    return lambda x, *, keyword=value: x + 1


def with_attribute(value):
    return with_attributes(lambda x: x + 1, attribute=value)


def with_annotation(value):
    return with_attributes(lambda x: x + 1, __annotations__={"x": value})


HOLDERS = {
    "closure": closing_over,
    "default": with_default,
    "keyword default": with_kwdefault,
    "attribute": with_attribute,
    "annotation": with_annotation,
}


def self_recursive(x):
    def fn(y, depth=2):
        return y if depth == 0 else fn(y + 1, depth - 1)

    return fn


def mutually_recursive(x):
    def even(y, depth=4):
        return y if depth == 0 else odd(y + 1, depth - 1)

    def odd(y, depth):
        return y if depth == 0 else even(y * 2, depth - 1)

    return even


def recursive_through_a_list(x):
    functions = []
    for i in range(3):
        functions.append(lambda y, i=i: y if i == 0 else functions[i - 1](y + i))
    return functions[-1]


def recursive_through_a_dict(x):
    table = {}
    table["leaf"] = lambda y: y + 1
    table["node"] = lambda y: table["leaf"](y) * 2
    return table["node"]


def recursive_through_an_attribute(x):
    def fn(y):
        return y + 1

    return with_attributes(fn, me=fn, all=[fn, {"me": fn}])


def recursive_through_a_default(x):
    def fn(y, me=None):
        return y + 1

    return with_attributes(fn, __defaults__=(fn,))


def recursive_through_an_instance(x):
    obj = Plain(n=1)
    obj.fn = lambda y: y + obj.n
    return obj.fn


def decorated(x):
    def decorate(fn):
        @functools.wraps(fn)
        def wrapper(*args, **kwargs):
            return fn(*args, **kwargs) + 1

        return wrapper

    @decorate
    @decorate
    def fn(y):
        """Return more than twice `y`."""
        return y * 2

    return fn


def scaled(y):
    """Return twice `y`: a function of this module."""
    return y * 2


def decorated_function_of_this_module(x):
    n = 3
    return functools.wraps(scaled)(lambda y: scaled(y) + n)


def generator_function(x):
    n = 3

    def fn(y):
        for i in range(n):
            yield y + i

    return fn


def async_function(x):
    n = 3

    async def fn(y):
        return y + n

    def run(y):
        try:
            fn(y).send(None)
        except StopIteration as stop:
            return stop.value

    return run


def async_generator_function(x):
    n = 3

    async def fn(y):
        yield y + n

    def run(y):
        async def first():
            return await anext(fn(y))

        return asyncio.run(first())

    return run


def with_an_empty_cell(x):
    def fn(y):
        return y if y.ndim else later

    if x is None:
        later = 1
    return fn


def two_that_share_a_cell(x):
    n = 1

    def inc():
        nonlocal n
        n += 1

    def fn(y):
        inc()
        return y + n

    return fn


def with_everything(x):
    n, items = 2, [1, {"k": (2.5, None)}]

    # All that a function can have; the annotations are only text.
    def fn(y: "array", a=items, /, *rest, b=Plain(n=n), **more) -> "array":  # noqa: B008, F821
        """Add."""
        return y + n + len(items)

    fn.note = items
    return fn


MADE_ANEW = {
    "lambda": lambda x: lambda y: y + 1,
    "lambda of a lambda": lambda x: (lambda g: lambda y: g(y))(lambda y: y * 3),
    "captured array": lambda x: lambda y: y + x,
    "array in a captured list": lambda x: (lambda a: lambda y: y + a[0])([x]),
    "array in a captured instance": lambda x: (lambda a: lambda y: y + a.x)(Plain(x=x)),
    "array in a default": lambda x: lambda y, x=x: y + x,
    "numpy array": lambda x: (lambda a: lambda y: y + a)(np.arange(3.0)),
    "module": lambda x: (lambda m: lambda y: m.sin(y))(jnp),
    "partial": lambda x: functools.partial(lambda n, y: y + n, 2),
    "partial with an array": lambda x: functools.partial(lambda n, y: y + n, x),
    "jax partial": lambda x: jax.tree_util.Partial(lambda n, y: y + n, x),
    "bound to an instance": lambda x: types.MethodType(
        lambda self, y: y * self.n, Plain(n=2)
    ),
    "self-recursive": self_recursive,
    "mutually recursive": mutually_recursive,
    "recursive through a list": recursive_through_a_list,
    "recursive through a dict": recursive_through_a_dict,
    "recursive through an attribute": recursive_through_an_attribute,
    "recursive through a default": recursive_through_a_default,
    "recursive through an instance": recursive_through_an_instance,
    "decorated": decorated,
    "decorated function of this module": decorated_function_of_this_module,
    "generator function": generator_function,
    "async function": async_function,
    "async generator function": async_generator_function,
    "empty cell": with_an_empty_cell,
    "shared cell": two_that_share_a_cell,
    "nested": lambda x: (lambda a: lambda b: lambda y: y + a + b)(1)(2),
    "everything": with_everything,
    "jax.grad": lambda x: jax.grad(lambda y: (y**2).sum()),
    "jax.vmap": lambda x: jax.vmap(lambda y: y * 2),
}


@pytest.mark.parametrize("make", MADE_ANEW.values(), ids=MADE_ANEW)
def test_a_function_made_anew_hits(x, make):
    one, two = (autojit.flatten(make(x))[1] for _ in range(2))
    assert one == two
    assert hash(one) == hash(two)
    f, _ = applied()
    expected = settled(make(x)(x))
    for _ in range(3):
        assert_array_equal(settled(f(make(x), x)), expected)
    assert f.cache_info()[:4] == (2, 1, 1, 1)


def settled(value):
    """Return the items of an iterator, and anything else as it is."""
    return list(value) if hasattr(value, "__next__") else value


@pytest.mark.parametrize("make", MADE_ANEW.values(), ids=MADE_ANEW)
def test_a_function_is_handed_through_whole(x, make):
    fn = make(x)
    if not isinstance(fn, types.FunctionType):
        fn = getattr(fn, "func", None) or fn.__func__
    seen = []
    autojit.jit(lambda tree: seen.append(tree["k"][0].fn))({"k": [Plain(fn=fn)]})
    assert len(seen) == 1
    assert seen[0] is fn
    assert autojit.flatten([fn])[1].unflatten([])[0] is fn


def test_a_lambda_that_is_written_twice_is_two_functions():
    one, two = (lambda x: x), (lambda x: x)
    assert skeleton(one) != skeleton(two)


# What a function may hold. No two are equal, and each equals itself made anew. Arrays
# in a function count by identity.

ARRAY = jnp.arange(3.0)
OTHER_ARRAY = jnp.arange(3.0)
KEY = jax.random.key(0)
LOCK = threading.Lock()
LOCAL_CLASS = type("Local", (), {})
OPAQUE = Opaque()


def held():
    """Return what a function may hold, made anew."""
    item, itself, fn = [1], [1], closing_over(1)
    itself.append(itself)
    return [
        *(None, ..., False, True, 0, 1, 0.0, -0.0, 1.0, float("nan"), 1j, 2**70),
        *(MyInt(1), "", text("some ", "text"), b"", bytes([1, 2]), bytearray(b"ab")),
        *((), [], {}, set(), frozenset(), (1, 2), [1, 2], [2, 1], [1.0, 2.0]),
        *([1, 2, 3], MyList([1, 2]), {1, 2}, frozenset([1, 2])),
        *({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1, "b": True}),
        collections.OrderedDict(a=1, b=2),
        *(collections.deque([1, 2]), collections.deque([1, 2], 5)),
        *(range(2), slice(1, 2), Point(1, 2), Color.RED, Color.BLUE),
        *([{"a": (1, [2, {3}])}], [{"a": (1, [2, {4}])}]),
        *(Plain, LOCAL_CLASS, np, len, double, triple),
        *(Plain(a=1), Plain(a=2), Plain(b=1), SubPlain(a=1), Slots(1, 2)),
        *(Data(1, 2), Frozen(1, 2), Reduced(1, 2)),
        *(np.arange(3), np.array([0, 1, 3]), np.arange(3, dtype=np.int16)),
        *(np.arange(3)[None], np.float32(1), np.int64(1), np.dtype("float32")),
        *(ARRAY, OTHER_ARRAY, [ARRAY], [OTHER_ARRAY], Plain(a=ARRAY), KEY),
        *(closing_over(1), closing_over(2), [closing_over(1)]),
        *([closing_over(1), closing_over(1)], [fn, fn]),
        *(functools.partial(fn, 1), functools.partial(closing_over(2), 1)),
        *(Plain(factor=2).scaled, Plain(factor=3).scaled),
        *([[1], [1]], [item, item], itself),
        *(LOCK, OPAQUE, OpaqueValue(1), OpaqueValue(2)),
    ]


def held_atoms():
    atoms = (bool, int, float, complex, str, bytes, tuple, list, dict)
    return [obj for obj in held() if isinstance(obj, atoms)][:30]


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
def test_functions_are_equal_exactly_when_what_they_hold_is(hold):
    assert_distinct(lambda: map(hold, held()))
    # An instance without state is one like others as long as nothing else holds it.
    one, two = skeleton(hold(Plain())), skeleton(hold(Plain()))
    assert one == two != skeleton(hold(SubPlain()))
    assert hash(one) == hash(two)


def test_each_closure_is_traced_once_and_never_taken_for_another():
    f = autojit.jit(lambda fn: fn.__closure__[0].cell_contents)
    for _ in range(2):
        for obj, again in zip(held_atoms(), held_atoms(), strict=True):
            result = f(closing_over(obj))
            assert (type(result), repr(result)) == (type(again), repr(again))
    assert f.cache_info().traces == 30


# Two functions that differ in one place.


def function(code, namespace):
    return types.FunctionType(code, namespace, "fn")


def plain_function(**changes):
    """Return a function made anew, with some of its attributes changed."""

    def fn(x, a=1, *, b=2):
        """Add."""
        return x + a + b

    return with_attributes(fn, **changes)


# Code whose names are those of the dict that it is put into, and undefined here. This
# is why the linter is told to let them be, here and where there is a `namespace`.
CODE = (lambda x: x + constant).__code__  # noqa: F821
EQUAL_CODE = CODE.replace()
NESTED_CODE = (lambda x: (lambda: x * constant)()).__code__  # noqa: F821
CALLS_HELPER = (lambda x: helper(x)).__code__  # noqa: F821
READS_ALONE = (lambda: constant).__code__  # noqa: F821
SPACE, OTHER_SPACE = {"constant": 1}, {"constant": 1}


def different_in_one_place():
    changes = [
        {},
        {"__code__": (lambda x, a=1, *, b=2: x).__code__},
        {"__defaults__": (2,)},
        {"__defaults__": (True,)},
        {"__defaults__": None},
        {"__defaults__": (1, 1)},
        {"__kwdefaults__": {"b": 3}},
        {"__kwdefaults__": None},
        {"__kwdefaults__": {"c": 2}},
        {"note": 1},
        {"note": 2},
        {"remark": 1},
        {"__name__": "other"},
        {"__qualname__": "other"},
        {"__module__": "other"},
        {"__module__": None},
        {"__doc__": "Do."},
        {"__doc__": None},
        {"__annotations__": {"x": int}},
        {"__annotations__": {"x": float}},
    ]
    of_code = (CODE, SPACE), (CODE, OTHER_SPACE), (EQUAL_CODE, SPACE)
    return [plain_function(**c) for c in changes] + [function(*c) for c in of_code]


def test_functions_that_differ_in_one_place_differ():
    assert_distinct(different_in_one_place)


def test_functions_that_differ_in_one_place_share_no_trace(x):
    names = "name", "doc", "defaults", "kwdefaults", "module", "qualname", "annotations"

    def f(x, fn):
        return [getattr(fn, "note", None), *(getattr(fn, f"__{n}__") for n in names)]

    g = autojit.jit(f)
    for _ in range(2):
        for fn in different_in_one_place():
            assert g(x, fn) == f(x, fn)
    count = len(different_in_one_place())
    assert g.cache_info()[:4] == (count, count, count, count)


def test_the_globals_that_a_function_reads(x):
    """What was traced with one value of a global is not for another."""
    namespace = {"constant": 1.0}
    f, seen = applied()
    for value in (1.0, 2.0, 1.0, 2.0):
        namespace["constant"] = value
        assert_array_equal(f(function(CODE, namespace), x), x + value)
    for value in (1.0, 2.0, 1.0):
        namespace["constant"] = value
        assert_array_equal(f(function(NESTED_CODE, namespace), x), x * value)
    same = function(CODE, namespace)
    assert_array_equal(f(same, x), x + 1)
    namespace["constant"] = 5.0
    assert_array_equal(f(same, x), x + 1)  # as `jax.jit` has it
    assert len(seen) == 4


def by_default(x, fn=None):
    return fn(x)


def by_keyword_default(x, *, fn):
    return fn(x)


def composed(*functions):
    def fn(x):
        for function in functions:
            x = function(x)
        return x

    return fn


# A helper of a module that holds another function, the one that reads a global. `copy`
# puts a function into the module.
HELPERS = {
    "itself": lambda act, copy: act,
    "wrapper": lambda act, copy: (lambda inner: lambda x: inner(x))(act),
    "default": lambda act, copy: copy(by_default, defaults=(act,)),
    "keyword": lambda act, copy: copy(by_keyword_default, kwdefaults={"fn": act}),
    "cell": lambda act, copy: composed(act),
    "partial": lambda act, copy: composed(functools.partial(act)),
    "containers": lambda act, copy: (lambda acts: lambda x: acts[0]["act"](x))(
        [{"act": act}]
    ),
    "method": lambda act, copy: composed(
        types.MethodType(copy(lambda fn, x: fn(x)), act)
    ),
}


@pytest.mark.parametrize("name", [{}, {"__name__": "somewhere"}], ids=["", "named"])
@pytest.mark.parametrize("hold", HELPERS.values(), ids=HELPERS)
def test_the_globals_that_functions_read_which_others_hold(x, hold, name):
    """What the lambda calls is the same object each time; what that reads is not."""
    namespace = {"constant": 1.0, **name}

    def copy(fn, defaults=None, kwdefaults=None):
        made = types.FunctionType(
            fn.__code__, namespace, fn.__name__, defaults, fn.__closure__
        )
        made.__kwdefaults__ = kwdefaults
        return made

    act = copy(lambda x: x * constant)  # noqa: F821 (in `namespace`)
    helper = hold(act, copy)
    namespace["helper"] = copy(helper, helper.__defaults__, helper.__kwdefaults__)
    f, seen = applied()
    for value in (1.0, 2.0, 1.0):
        namespace["constant"] = value
        assert_array_equal(f(function(CALLS_HELPER, namespace), x), x * value)
    assert len(seen) == 2


def test_a_function_of_a_module_that_is_no_more_than_its_code():
    namespace = {"__name__": "somewhere"}
    f = autojit.jit(lambda fn: fn())
    for value in (1, 2, 1):
        namespace["constant"] = value
        assert f(types.FunctionType(READS_ALONE, namespace)) == value


def test_a_global_that_changes_between_two_shapes(x):
    namespace = {"__name__": "somewhere", "constant": 1}
    f, _ = applied()
    fn = function(CODE, namespace)
    assert_array_equal(f(fn, x), x + 1)
    namespace["constant"] = 2
    assert_array_equal(f(fn, x[:2]), x[:2] + 2)
    namespace["constant"] = 1
    assert_array_equal(f(function(CODE, namespace), x[:2]), x[:2] + 1)


def test_other_globals_do_not_matter(x):
    namespace = {"constant": 1.0}
    f, seen = applied()
    for value in (1, 2, 3):
        namespace["unrelated"] = value
        assert_array_equal(f(function(CODE, namespace), x), x + 1)
    assert len(seen) == 1


def test_names_of_attributes_are_no_names_of_globals(x):
    """Only what the code reads as a global counts."""
    namespace = {"a": 0, "constant": 1.0}
    code = (lambda x: x.a * constant).__code__  # noqa: F821 (in `namespace`)
    f = autojit.jit(lambda fn, obj: fn(obj))
    for value in range(3):
        namespace["a"] = value
        assert_array_equal(f(function(code, namespace), Plain(a=x)), x)
    assert f.cache_info().traces == 1
    long = "lambda x: (" + ",".join(f"name_{i}" for i in range(300)) + ",)[x]"
    long_code = eval(long, {}).__code__  # arguments of more than a byte
    names = {f"name_{i}": 0 for i in range(300)}
    g = autojit.jit(lambda fn, i: fn(i))
    for last in (1, 2, 2, 1):
        names["name_299"] = last
        assert g(function(long_code, names), 299) == last
    assert g.cache_info().traces == 2


def test_an_empty_cell_equals_an_empty_cell_alone():
    def make(fill, value=None):
        def fn():
            return later

        if fill:
            later = value
        return fn

    assert_distinct(lambda: [make(False), make(True), make(True, ()), make(True, ...)])


def test_a_cell_that_is_filled_after_the_call(x):
    def make():
        def fn(y):
            return y + later if filled() else y  # noqa: F821

        def filled():
            try:
                return later is not None
            except NameError:
                return False

        def fill(value):
            nonlocal later
            later = value

        later = None
        del later
        return fn, fill

    f, seen = applied()
    one, fill_one = make()
    assert_array_equal(f(one, x), x)
    fill_one(5)
    two, fill_two = make()
    assert_array_equal(f(two, x), x)
    assert len(seen) == 1
    fill_two(5)
    three, fill_three = make()
    fill_three(5)
    assert_array_equal(f(three, x), x + 5)
    assert_array_equal(f(make()[0], x), x)
    assert len(seen) == 2


# Where a function may stand.

PLACES = {
    "argument": lambda f, x, fn: f(x, fn),
    "keyword": lambda f, x, fn: f(x, key=fn),
    "list": lambda f, x, fn: f(x, [1, fn]),
    "tuple": lambda f, x, fn: f(x, (fn, x)),
    "dict": lambda f, x, fn: f(x, {"a": fn}),
    "dict key": lambda f, x, fn: f(x, {fn: 1}),
    "set": lambda f, x, fn: f(x, {fn}),
    "frozenset": lambda f, x, fn: f(x, frozenset([fn, 1])),
    "attribute": lambda f, x, fn: f(x, Plain(a=x, fn=fn)),
    "slot": lambda f, x, fn: f(x, Slots(fn, x)),
    "dataclass": lambda f, x, fn: f(x, Data(x, [fn])),
    "namedtuple": lambda f, x, fn: f(x, Point(x, fn)),
    "deque": lambda f, x, fn: f(x, collections.deque([fn])),
    "factory of a defaultdict": lambda f, x, fn: f(x, collections.defaultdict(fn)),
    "object array": lambda f, x, fn: f(x, np.array([fn, None], dtype=object)),
    "function of a partial": lambda f, x, fn: f(x, functools.partial(fn, 1)),
    "argument of a partial": lambda f, x, fn: f(x, functools.partial(double, fn)),
    "keyword of a partial": lambda f, x, fn: f(x, functools.partial(double, fn=fn)),
    "function of a method": lambda f, x, fn: f(x, types.MethodType(fn, Plain(a=x))),
    "self of a method": lambda f, x, fn: f(x, types.MethodType(double, fn)),
    "reduction": lambda f, x, fn: f(x, Reduced(fn)),
    "closure": lambda f, x, fn: f(x, closing_over(fn)),
    "list in a closure": lambda f, x, fn: f(x, closing_over([fn])),
    "default": lambda f, x, fn: f(x, with_default(fn)),
    "keyword default": lambda f, x, fn: f(x, with_kwdefault(fn)),
    "attribute of a function": lambda f, x, fn: f(x, with_attribute(fn)),
    "equinox module": lambda f, x, fn: f(x, eqx.nn.Lambda(fn)),
    "property": lambda f, x, fn: f(x, Plain(p=[{"a": (fn, fn)}])),
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_function_is_compared_by_value_wherever_it_stands(x, place):
    f = autojit.jit(lambda x, *args, **kwargs: None)
    for n in (1, 2, 1, 2):
        place(f, x, closing_over(n))
    place(f, x, closing_over(True))
    place(f, x, closing_over(2))
    assert f.cache_info()[:4] == (3, 3, 3, 3)


def test_a_function_as_a_key_finds_its_value(x):
    f = autojit.jit(lambda x, table, fn: x + table[fn])
    for n in (1, 2, 1):
        fn, other = closing_over(1), closing_over(1)
        assert_array_equal(f(x, {fn: n, other: 7}, fn), x + n)
    assert f.cache_info().traces == 2


def test_a_static_method_and_a_class_method_by_themselves(x):
    def make(n):
        class Local:
            @staticmethod
            def static(y):
                return y + n

            @classmethod
            def cls(cls, y):
                return y * n

        return Local

    f, _ = applied()
    for n in (2, 3, 2):
        local = make(n)
        for _ in range(2):
            assert_array_equal(f(local.static, x), x + n)
            assert_array_equal(f(local.cls, x), x * n)
    # A static method is a function, as good as any other. A class method is bound to
    # its class, and a class is equal to itself alone.
    assert f.cache_info().traces == 2 + 3


@pytest.mark.parametrize("wrap", [staticmethod, classmethod, property])
def test_descriptors_go_through(x, wrap):
    f = autojit.jit(lambda x, d: x)
    one, other = wrap(closing_over(1)), wrap(closing_over(2))
    for descriptor, traces in ((one, 1), (one, 1), (one, 1), (other, 2)):
        assert_array_equal(f(x, descriptor), x)
        assert f.cache_info().traces == traces


def test_a_cached_function_is_compared_by_identity(x):
    def make(n):
        return functools.lru_cache(lambda k: k + n)

    f = autojit.jit(lambda x, fn: x + fn(1))
    one = make(2)
    for _ in range(3):
        assert_array_equal(f(x, one), x + 3)
    assert f.cache_info().traces == 1
    for fn, result in ((make(3), 4), (make(2), 3), (one, 3)):
        assert_array_equal(f(x, fn), x + result)
    assert f.cache_info().traces == 3


def test_a_generic_function_is_used_as_it_is(x):
    def make(n):
        @functools.singledispatch
        def fn(value):
            return value + n

        @fn.register
        def _(value: str):
            return n

        return fn

    f = autojit.jit(lambda x, fn: fn(x) + fn("text"))
    fn = make(2)
    for _ in range(3):
        assert_array_equal(f(x, fn), x + 4)
        fn(1.0)  # fills its cache
    assert f.cache_info().traces == 1
    assert_array_equal(f(x, make(3)), x + 6)


# Sharing.


def test_a_function_is_an_object_with_an_identity():
    f = autojit.jit(lambda a, b: a is b)
    for _ in range(3):
        fn = closing_over(1)
        assert f(fn, fn) is True
        assert f(fn, closing_over(1)) is False
        assert f(closing_over(1), closing_over(1)) is False
    assert f.cache_info().traces == 2


SHARED = {
    "list": lambda x: [1],
    "dict": lambda x: {"a": 1},
    "set": lambda x: {1},
    "instance": lambda x: Plain(a=1),
    "bytearray": lambda x: bytearray(b"a"),
    "numpy array": lambda x: np.arange(2),
    "function": lambda x: closing_over(1),
    "partial": lambda x: functools.partial(double, [1]),
    "deque": lambda x: collections.deque([1]),
    "list with an array": lambda x: [x],
}

TWO_HOLDERS = {
    "two closures": lambda p, q: [closing_over(p), closing_over(q)],
    "two cells": lambda p, q: lambda: (p, q),
    "one cell": lambda p, q: closing_over([p, (q,)]),
    "closure and default": lambda p, q: lambda a=p: (a, q),
    "closure and keyword default": lambda p, q: lambda *, a=p: (a, q),
    "default and attribute": lambda p, q: plain_function(__defaults__=(p,), note=q),
    "two defaults": lambda p, q: lambda a=p, b=q: None,
    "attributes of two": lambda p, q: [with_attribute(p), with_attribute(q)],
    "closure and closure of a closure": lambda p, q: (lambda inner: lambda: (p, inner))(
        closing_over(q)
    ),
}


@pytest.mark.parametrize("make", SHARED.values(), ids=SHARED)
@pytest.mark.parametrize("hold", TWO_HOLDERS.values(), ids=TWO_HOLDERS)
def test_what_two_places_of_functions_share_counts(x, make, hold):
    def held_twice():
        shared = make(x)
        return hold(shared, shared)

    assert_distinct(lambda: [held_twice(), hold(make(x), make(x))])


def two_closures(share):
    a = []
    b = a if share else []
    return [lambda: a.append(1), lambda: len(b)]


def a_closure_and_a_default(share):
    a = []

    def fn(default=a if share else []):
        a.append(1)
        return len(default)

    return [fn]


def counter():
    n = 0

    def increment():
        nonlocal n
        n += 1

    return increment, lambda: n


def two_that_share_a_variable(share):
    """What is in the cells is equal, but one cell is not two."""
    increment, get = counter()
    return [increment, get if share else counter()[1]]


@pytest.mark.parametrize(
    "make", [two_closures, a_closure_and_a_default, two_that_share_a_variable]
)
def test_what_functions_share_they_share_in_the_trace(x, make):
    f = autojit.jit(lambda x, functions: x + sum(fn() or 0 for fn in functions))
    for _ in range(3):
        for share in (True, False):
            assert_array_equal(f(x, make(share)), x + share)
    assert f.cache_info().traces == 2


@pytest.mark.parametrize("swap", [False, True])
def test_what_a_new_function_shares_with_one_that_is_known(x, swap):
    """The known one is equal to itself; what the other shares with it still counts."""

    @autojit.jit
    def f(x, functions):
        one, two = functions
        return x, one() is two()

    items = [1]
    known = lambda: items  # noqa: E731

    def call(held):
        functions = [known, lambda: held]
        return f(x, functions[::-1] if swap else functions)[1]

    for _ in range(2):
        for held in ([1], items, [2]):
            assert call(held) is (held is items)
    items.append(2)
    for _ in range(2):
        for held in ([1], [1, 2], items):
            assert call(held) is (held is items)


def test_which_of_the_lists_of_a_known_function_a_new_one_holds(x):
    def holding(value):
        return lambda: value

    a, b = [1], [2]
    known = holding((a, b))
    f = autojit.jit(lambda known, new, x: x + new()[0])
    for _ in range(2):
        for held in a, b:
            assert_array_equal(f(known, holding(held), x), x + held[0])
    assert f.cache_info().traces == 2


@pytest.mark.parametrize("swap", [False, True])
def test_a_list_that_a_known_function_fills_and_a_new_one_reads(x, swap):
    items = []

    def fill():
        items.append(1)

    def f(functions, x):
        for fn in functions:
            x = x + (fn() or 0)
        return x

    g = autojit.jit(f)
    for _ in range(4):
        before = len(items)
        functions = [fill, lambda: len(items)][:: -1 if swap else 1]
        # The new function holds another list than before: this is traced each time.
        assert_array_equal(g(functions, x), x + before + (not swap))
        assert len(items) == before + 1


def reads_one(n):
    return lambda: n


def reading(cell):
    """Return a function made anew that reads a cell."""
    return types.FunctionType(reads_one(0).__code__, SPACE, "f", None, (cell,))


def test_cells_of_functions_that_are_shared_in_another_way():
    def order(*numbers):
        cells = [types.CellType(0) for _ in range(3)]
        return [reading(cells[number]) for number in numbers]

    orders = [(0, 1, 2), (0, 0, 1), (0, 1, 0), (0, 1, 1), (0, 0, 0)]
    assert_distinct(lambda: [order(*numbers) for numbers in orders])
    assert skeleton(order(2, 2, 0)) == skeleton(order(0, 0, 1))


def test_cycles_of_two_lengths_differ():
    def ring(length):
        cells = [types.CellType() for _ in range(length)]
        functions = [reading(cell) for cell in cells]
        for i, cell in enumerate(cells):
            cell.cell_contents = functions[(i + 1) % length]
        return functions[0]

    assert_distinct(lambda: map(ring, (1, 2, 3)))


def test_a_cycle_is_not_its_unrolling(x):
    def make(again):
        def fn(y, depth=2):
            return y if depth == 0 else (again or fn)(y + 1, depth - 1)

        return fn

    f = autojit.jit(lambda x, fn: (fn(x), fn.__closure__[1].cell_contents is fn))
    for _ in range(2):
        f(x, make(None))
        f(x, make(make(None)))
    assert f.cache_info().traces == 2


def test_an_array_that_is_captured_and_passed(x):
    f, seen = applied()
    for y in (x, x + 1, x + 2):
        assert_array_equal(f(lambda a: a + x, y), y + x)
    assert len(seen) == 1


# Arrays that a function holds are constants, by identity.


def test_captured_arrays_count_by_identity(x):
    f, seen = applied()

    def make(w):
        return lambda y: y * w

    one, two = x + 1, x + 1
    for _ in range(2):
        for w in (one, two, x):
            assert_array_equal(f(make(w), x), x * w)
    assert len(seen) == 3


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
@pytest.mark.parametrize(
    "inside",
    [lambda x: [x], lambda x: {"k": (x,)}, lambda x: Plain(w=x), lambda x: (x, [x])],
    ids=["list", "dict", "instance", "twice"],
)
def test_arrays_deep_in_a_function_are_no_leaves_and_count_by_identity(x, hold, inside):
    one, two = x + 1, x + 1
    assert autojit.flatten(hold(inside(one)))[0] == []
    assert skeleton(hold(inside(one))) == skeleton(hold(inside(one)))
    assert skeleton(hold(inside(one))) != skeleton(hold(inside(two)))


def test_a_function_sees_the_concrete_array_that_it_captured(x):
    seen = Opaque()  # by identity: a list would be another one after each trace
    seen.arrays = []
    w = x * 3

    def make():
        return lambda y: seen.arrays.append(w) or y + w

    f, _ = applied()
    for y in (x, x + 1, jnp.ones((2, 3))):
        assert_array_equal(f(make(), y), y + w)
    assert len(seen.arrays) == 2
    assert all(array is w for array in seen.arrays)


def test_an_instance_in_a_closure_gets_another_array(x):
    model = Plain(w=x, n=2)
    f, seen = applied()
    for w in (x, x + 1, x + 2):
        model.w = w
        assert_array_equal(f(lambda y: y * model.w, x), x * w)
    assert len(seen) == 3


def test_a_captured_array_of_an_outer_trace(x):
    f, _ = applied()

    @jax.jit
    def outer(a):
        return f(lambda y: y * a, a + 1) + f(lambda y: y * a, a)

    expected = (x + 1) * x + x * x
    for _ in range(2):
        assert_array_equal(outer(x), expected)
    assert_array_equal(outer(x + 1), (x + 2) * (x + 1) + (x + 1) ** 2)
    assert_array_equal(jax.vmap(outer)(x[None])[0], expected)
    for loss, gradient in (
        (lambda a: f(lambda y: (y * a).sum(), a), 2 * x),
        (lambda a: f(lambda y: (y * a).sum(), x), x),
        (lambda a: f(lambda y: (y * a * a).sum(), x), 2 * x * x),
    ):
        assert_array_equal(jax.grad(loss)(x), gradient)


def test_a_captured_array_of_an_outer_trace_in_a_loop(x):
    f, _ = applied()

    def body(carry, row):
        return f(lambda y: y + row, carry), f(lambda y: y * carry, row)

    rows = jnp.stack([x, x + 1])
    total, products = jax.lax.scan(body, x, rows)
    assert_array_equal(total, x + x + x + 1)
    assert_array_equal(products, jnp.stack([x * x, (x + 1) * (x + x)]))


def test_a_captured_reference(x):
    ref = jax.new_ref(x)

    def make():
        def fn(y):
            ref[...] += y
            return ref[...]

        return fn

    f, seen = applied()
    for i in range(1, 4):
        assert_array_equal(f(make(), x), x * (i + 1))
    assert len(seen) == 1


# A function that has changed since is itself nevertheless, as for `jax.jit`.


def changing():
    """Return a function and what changes it."""
    n = 1

    def fn(x, a=1, *, b=1):
        return x + n + items[0] + obj.value + a + b + getattr(fn, "c", 0)

    def set_n():
        nonlocal n
        n = 10

    items, obj = [1], Plain(value=1)

    def other(x, a=1, *, b=1):
        return x * 100 if (fn, items, n, obj) else None

    changes = {
        "cell": set_n,
        "list in a cell": lambda: items.__setitem__(0, 10),
        "list in a cell grows": lambda: items.append(1),
        "instance in a cell": lambda: setattr(obj, "value", 10),
        "new attribute of an instance": lambda: setattr(obj, "new", 10),
        "defaults": lambda: setattr(fn, "__defaults__", (10,)),
        "keyword defaults": lambda: fn.__kwdefaults__.update(b=10),
        "attribute": lambda: setattr(fn, "c", 10),
        "__dict__": lambda: setattr(fn, "__dict__", {"c": 10}),
        "name": lambda: setattr(fn, "__name__", "changed"),
        "docstring": lambda: setattr(fn, "__doc__", "changed"),
        "annotations": lambda: fn.__annotations__.update(x=int),
        "code": lambda: setattr(fn, "__code__", other.__code__),
    }
    return fn, changes


# With other code it is another function, see below.
CHANGE_NAMES = [name for name in changing()[1] if name != "code"]


def changed(name):
    fn, changes = changing()
    changes[name]()
    return fn


@pytest.mark.parametrize("name", CHANGE_NAMES)
def test_a_changed_function_is_still_itself(x, name):
    def outcomes(jit):
        """Return what some calls return, and how many traces there were by then."""
        traces, results = [], []
        f = jit(lambda fn, x: traces.append(1) or fn(x))
        fn, changes = changing()

        def call(function, y):
            results.append((f(function, y).tolist(), len(traces)))

        call(fn, x)
        changes[name]()
        call(fn, x)
        call(double, x)
        call(fn, x)
        call(fn, x[:2])  # traces with what the function is now
        return results

    theirs = functools.partial(jax.jit, static_argnums=0)
    assert outcomes(autojit.jit) == outcomes(theirs)


@pytest.mark.parametrize("name", CHANGE_NAMES)
def test_a_changed_function_changes_no_specialization(x, name):
    f, seen = applied()
    fn, changes = changing()
    assert_array_equal(f(fn, x), x + 5)
    changes[name]()
    for _ in range(2):
        assert_array_equal(f(changing()[0], x), x + 5)
    assert len(seen) == 1
    for _ in range(2):
        assert_array_equal(f(changed(name), x), changed(name)(x))
    assert len(seen) == 2
    assert_array_equal(f(changing()[0], x), x + 5)
    assert len(seen) == 2


@pytest.mark.parametrize("name", CHANGE_NAMES)
def test_a_changed_function_changes_no_skeleton(name):
    fn, changes = changing()
    before = skeleton(fn)
    value = hash(before)
    changes[name]()
    assert hash(before) == value
    assert before == skeleton(changing()[0])
    assert before != skeleton(changed(name))
    assert before == skeleton(fn)  # it is the same function


@pytest.mark.parametrize("name", CHANGE_NAMES)
def test_a_new_shape_is_traced_with_the_function_of_the_call(x, name):
    f, seen = applied()
    fn, changes = changing()
    assert_array_equal(f(fn, x), x + 5)
    changes[name]()
    second = changing()[0]
    y = x[:2]
    assert_array_equal(f(second, y), y + 5)
    assert len(seen) == 2
    assert seen[1] is second
    third = changing()[0]
    assert_array_equal(f(third, y), y + 5)
    assert_array_equal(f(third, x), x + 5)
    assert len(seen) == 2


@pytest.mark.parametrize(
    "name", [name for name in changing()[1] if "grows" not in name]
)
def test_what_a_changed_function_traced_is_not_shared_with_what_it_was(x, name):
    """It is traced, changed and traced again for another shape, as itself."""
    f, _ = applied()
    fn, changes = changing()
    y = x[:2]
    assert_array_equal(f(fn, x), x + 5)
    changes[name]()
    assert_array_equal(f(fn, y), changed(name)(y))
    assert_array_equal(f(changing()[0], y), y + 5)
    assert_array_equal(f(changed(name), y), changed(name)(y))
    assert_array_equal(f(changing()[0], x), x + 5)


def test_a_function_with_other_code_is_another_one(x):
    f, seen = applied()
    fn, changes = changing()
    assert_array_equal(f(fn, x), x + 5)
    changes["code"]()
    f(fn, x)  # as it was, as under `jax.jit`, or as it is
    for _ in range(2):
        assert_array_equal(f(changing()[0], x), x + 5)
        assert_array_equal(f(changed("code"), x), x * 100)
        assert_array_equal(f(changing()[0], x[:2]), x[:2] + 5)
        assert_array_equal(f(changed("code"), x[:2]), x[:2] * 100)
    assert len(seen) <= 7


def test_a_changed_function_that_was_found_again(x):
    def adding(n):
        def add(x):
            return x + n

        def change(value):
            nonlocal n
            n = value

        return add, change

    f, _ = applied()
    fn, change = adding(1)
    assert_array_equal(f(fn, x), x + 1)
    change(2)
    assert_array_equal(f(fn, x[:2]), x[:2] + 2)
    f(double, x)
    assert_array_equal(f(fn, x), x + 1)  # found by its hash
    f(double, x)
    assert_array_equal(f(adding(2)[0], x), x + 2)


def test_a_function_that_was_found_by_value_and_then_changed(x):
    """What the second is traced with is not shared with the first."""

    def scaled(by):
        def scale(x):
            return (x + 1) * scale.by

        return with_attributes(scale, by=by)

    f, _ = applied()
    one, two = scaled(1), scaled(1)
    for fn in one, two:
        assert_array_equal(f(fn, x), x + 1)
    two.by = 5
    assert_array_equal(f(two, x[:2]), (x[:2] + 1) * 5)
    assert_array_equal(f(one, x[:2]), x[:2] + 1)


def test_a_specialization_found_by_value_traces_the_function_of_the_call(x):
    f, seen = applied()
    functions = [closing_over(1) for _ in range(4)]
    for i, fn in enumerate(functions):
        assert_array_equal(f(fn, jnp.ones(i + 1)), jnp.full(i + 1, 2.0))
    assert len(seen) == 4
    assert all(a is b for a, b in zip(seen, functions, strict=True))
    assert f.cache_info().currsize == 1


def test_nested_functions_of_the_call_are_used_for_a_new_shape(x):
    seen = []

    @autojit.jit
    def f(x, tree):
        seen.append((tree["fn"], tree["obj"].fn, tree["partial"].func))
        return x + 1

    made = []
    for n in (2, 3, 4):
        a, b, c = closing_over(1), closing_over(2), closing_over(3)
        made.append((a, b, c))
        tree = {"fn": a, "obj": Plain(fn=b), "partial": functools.partial(c, [x])}
        f(jnp.ones(n), tree)
    assert seen == made
    assert f.cache_info().currsize == 1


def test_methods_of_the_call_are_used_for_a_new_shape(x):
    f, seen = applied()
    for n in (2, 3):
        fn = types.MethodType(lambda self, y: y * self.n, Plain(n=n - n + 2))
        assert_array_equal(f(fn, jnp.ones(n)), jnp.full(n, 2.0))
        assert seen[-1].__func__ is fn.__func__
    assert f.cache_info().currsize == 1


def test_a_new_trace_after_clear_caches_uses_the_function_of_the_call(x):
    f, seen = applied()
    for _ in range(2):
        fn = closing_over(1)
        f(fn, x)
        assert seen[-1] is fn
        jax.clear_caches()
    assert f.cache_info().currsize == 1


# Functions that change themselves while they are traced.


def counting_in_a_list():
    calls = []

    def fn(x):
        calls.append(x.shape)
        return x + len(calls)

    return fn


def counting_in_a_variable():
    n = 0

    def fn(x):
        nonlocal n
        n += 1
        return x + n

    return fn


def counting_in_an_attribute():
    def fn(x):
        fn.n += 1
        return x + fn.n

    fn.n = 0
    return fn


def counting_in_a_default():
    def fn(x, calls=[]):  # noqa: B006
        calls.append(1)
        return x + len(calls)

    return fn


def counting_in_an_instance():
    obj = Plain(n=0)

    def fn(x):
        obj.n += 1
        return x + obj.n

    return fn


COUNTING = [
    counting_in_a_list,
    counting_in_a_variable,
    counting_in_an_attribute,
    counting_in_a_default,
    counting_in_an_instance,
]


# How such a function is used, and what is returned if this is its first trace.
USES = {
    "alone": (lambda f, fn, x: f(fn, x), lambda x: x + 1),
    "beside a new lambda": (lambda f, fn, x: f(fn, x, lambda y: y), lambda x: x + 1),
    "unused": (lambda f, fn, x: f(lambda y: y * 2, x, fn), lambda x: x * 2),
    "in a new lambda": (lambda f, fn, x: f(lambda y: fn(y), x), lambda x: x + 1),
    "in a new default": (lambda f, fn, x: f(lambda y, g=fn: g(y), x), lambda x: x + 1),
}


@pytest.mark.parametrize(("use", "expected"), USES.values(), ids=USES)
@pytest.mark.parametrize("make", COUNTING)
def test_a_function_that_its_trace_changes_is_traced_once(x, make, use, expected):
    f, seen = applied()
    fn = make()
    for _ in range(4):
        assert_array_equal(use(f, fn, x), expected(x))
    assert len(seen) == 1


@pytest.mark.parametrize("make", COUNTING)
def test_a_function_that_its_trace_changes_in_all_uses_by_turns(x, make):
    f, seen = applied()
    fn = make()
    rounds = [[use(f, fn, x).tolist() for use, _ in USES.values()] for _ in range(3)]
    assert rounds[0] == rounds[1] == rounds[2]
    assert len(seen) == len(USES)


@pytest.mark.parametrize("make", COUNTING)
def test_a_function_that_its_trace_changes_made_anew(x, make):
    f, seen = applied()
    for others in ((), (lambda: 1,)):
        for _ in range(4):
            assert_array_equal(f(make(), x, *others), x + 1)
    assert len(seen) == 2
    assert_array_equal(f(make(), x[:2]), x[:2] + 1)
    assert_array_equal(f(make(), x), x + 1)
    assert len(seen) == 3


def test_functions_that_count_together(x):
    f, _ = applied()
    calls = []
    one = lambda y: calls.append(1) or y + 1  # noqa: E731
    two = lambda y: calls.append(2) or y + 2  # noqa: E731
    for _ in range(3):
        assert_array_equal(f(one, x, two), x + 1)
        assert_array_equal(f(two, x, one), x + 2)
    assert calls == [1, 2]


# Functions that cannot be taken apart.


class Refuses:
    def __init__(self):
        self.n = 1

    def __reduce_ex__(self, protocol):
        raise HostileError("not me")


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
@pytest.mark.parametrize(
    "make",
    [Opaque, Refuses, threading.Lock, object, lambda: (i for i in [1])],
    ids=["Opaque", "Refuses", "lock", "object", "generator"],
)
def test_a_function_that_holds_something_opaque(x, hold, make):
    f, seen = applied()
    one, two = hold(make()), hold(make())
    for fn, traces in ((one, 1), (one, 1), (one, 1), (two, 2), (one, 2)):
        f(fn, x)
        assert len(seen) == traces


def test_whether_an_argument_is_what_a_function_holds(x):
    """The function can tell, also of values that are equal."""
    f = autojit.jit(lambda fn, value, x: (fn(value), x + 1)[0])

    def holding(held):
        return lambda value: value is held

    one, two = OpaqueValue(1), OpaqueValue(1)
    for _ in range(2):
        for held, value in ((one, one), (one, two), (two, two), (two, one)):
            assert f(holding(held), value, x) is (held is value)
    assert f.cache_info().traces == 2


@pytest.mark.parametrize(
    "make",
    [lambda: [1], lambda: bytearray(b"a"), lambda: np.ones(2), lambda: np.void(b"a")],
    ids=["list", "bytearray", "numpy array", "numpy void"],
)
def test_what_a_function_holds_is_in_the_result_of_its_own_caller(x, make):
    f = autojit.jit(lambda fn, x: (lambda held: lambda: held)(fn()))
    for _ in range(2):
        held = make()
        assert f(lambda held=held: held, x)() is held


@pytest.mark.parametrize(
    "ask",
    [
        lambda fn: fn(),
        lambda fn: [1, {"k": fn()}],
        lambda fn: lambda: fn()(),
        lambda fn: type("Made", (), {"run": staticmethod(fn())}),
    ],
    ids=["itself", "in a list", "in a closure", "in a class"],
)
def test_what_a_function_holds_comes_back_to_its_own_caller(x, ask):
    """It has a state that no equal function shares."""

    def make():
        count = 0

        def inner():
            nonlocal count
            count += 1
            return count

        return lambda: inner

    def run(result):
        while not callable(result):
            result = result[1]["k"]
        return result.run() if isinstance(result, type) else result()

    f = autojit.jit(lambda fn, x: (ask(fn), x + 1)[0])
    for _ in range(2):
        one, two = make(), make()
        results = [f(fn, x) for fn in (one, two)]
        assert [run(result) for result in (*results, results[0])] == [1, 1, 2]
        assert one()() == 3
        assert f.cache_info().hits == 0
        f(one, x)
        assert f.cache_info().hits == 1
        f.clear_cache()


def with_an_inner_function():
    def inner():
        pass

    return (lambda: inner), inner


def test_what_a_function_holds_comes_back_for_a_new_shape(x):
    """Also if a call that was a hit stands for the function by then."""
    f = autojit.jit(lambda fn, x: fn() if x.shape == (2,) else None)
    made = [with_an_inner_function() for _ in range(3)]
    for fn, _ in made[:2]:
        assert f(fn, x) is None
    assert f.cache_info().traces == 1
    for fn, inner in made[::-1] * 2:
        assert f(fn, x[:2]) is inner


def test_what_a_function_holds_comes_back_if_another_call_comes_while_it_is_traced(x):
    made = [with_an_inner_function() for _ in range(3)]
    nested = []

    @autojit.jit
    def f(fn, x):
        if not nested:
            nested.append(None)
            nested.append(f(made[1][0], x[:1]))
        return fn()

    for fn, inner in (made[0], *made, *made):
        assert f(fn, x) is inner
    assert nested[1] is made[1][1]


def test_what_a_function_holds_comes_back_in_another_thread(x):
    made = [with_an_inner_function() for _ in range(3)]
    began, come = threading.Event(), threading.Event()

    @autojit.jit
    def f(fn, x):
        began.set()
        assert come.wait(60)
        time.sleep(0.2)  # until the other thread, which comes, waits for this trace
        return fn()

    def other():
        assert began.wait(60)
        come.set()
        return f(made[1][0], x)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(f, made[0][0], x), pool.submit(other)]
        results = [future.result(60) for future in futures]
    assert results == [made[0][1], made[1][1]]
    for fn, inner in made:
        assert f(fn, x) is inner


def test_a_wrapper_is_that_of_its_own_caller(x):
    """Of a function that has no state, which others equal."""
    f = autojit.jit(lambda fn: functools.wraps(fn)(lambda x: fn(x)))
    one, two = (lambda x: x + 1 for _ in range(2))
    results = f(one), f(two), f(one)
    assert [result.__wrapped__ for result in results] == [one, two, one]


def test_a_class_of_a_result_is_that_of_its_own_caller(x):
    def make(fn):
        class Made:
            run = staticmethod(fn())

        return Made()

    f = autojit.jit(make)
    for _ in range(2):
        fn, inner = with_an_inner_function()
        assert f(fn).run is inner


def test_an_opaque_object_of_a_result_is_that_of_its_own_caller(x):
    """An argument, what captures it in the result, and what an argument holds."""
    f = autojit.jit(lambda obj, x: (obj, lambda: obj))
    of_function = autojit.jit(lambda fn, x: (fn(), x + 1)[0])
    one, two = OpaqueValue(1), OpaqueValue(1)
    for obj in (one, two, one, two):
        direct, captured = f(obj, x)
        assert direct is obj
        assert captured() is obj
        assert of_function((lambda held: lambda: held)(obj), x) is obj


def test_a_chain_of_functions(x):
    def chain(length):
        fn = double
        for _ in range(length):
            fn = (lambda inner: lambda y: inner(y) + 1)(fn)
        return fn

    f, seen = applied()
    for length in (50, 51, 50):
        assert_array_equal(f(chain(length), x), x * 2 + length)
    assert len(seen) == 2


def test_a_chain_of_functions_that_is_too_deep(x):
    fn = double
    for _ in range(100_000):
        fn = closing_over(fn)
    f, seen = applied()
    for _ in range(2):
        try:
            assert_array_equal(f(fn, x), x + 1)
        except RecursionError:
            assert seen == []
    assert_array_equal(f(double, x), x * 2)
    cells = []
    while fn is not double:  # taken apart by hand: C would do it recursively
        cells.append(fn)
        fn = fn.__closure__[0].cell_contents
    while cells:
        cells.pop().__closure__[0].cell_contents = None


# Life.


def test_the_specialization_goes_and_frees_what_the_function_held(x):
    f, seen = applied(maxsize=1)
    held = Opaque()
    gone = weakref.ref(held)
    fn = closing_over(held)
    gone_too = weakref.ref(fn)
    f(fn, x)
    del fn, held
    f(double, x)
    f(double, x)
    seen.clear()
    gc.collect()
    assert gone() is None
    assert gone_too() is None


def test_functions_that_were_found_equal_do_not_pile_up(x):
    f, seen = applied()
    f(closing_over([1]), x)
    gone = []
    for _ in range(10):
        fn = closing_over([1])
        gone.append(weakref.ref(fn))
        f(fn, x)
    del fn
    seen.clear()
    gc.collect()
    assert sum(ref() is not None for ref in gone) <= 1


def test_a_function_is_not_changed_by_the_call(x):
    fn = with_everything(x)
    before = {name: getattr(fn, name) for name in ATTRIBUTES}
    contents = copy.deepcopy([cell.cell_contents for cell in fn.__closure__])
    f, _ = applied()
    f(fn, x)
    f(with_everything(x), x)
    assert all(getattr(fn, name) is before[name] for name in ATTRIBUTES)
    assert [cell.cell_contents for cell in fn.__closure__] == contents


ATTRIBUTES = ("__code__", "__defaults__", "__kwdefaults__", "__dict__", "__name__")


# Many.


def test_a_thousand_closures_have_a_thousand_skeletons():
    made = {skeleton(closing_over(n)): n for n in range(1000)}
    assert len(made) == 1000
    for n in (0, 1, 500, 999):
        assert made[skeleton(closing_over(n))] == n
    assert skeleton(closing_over(1000)) not in made


@pytest.mark.parametrize("count", [50, pytest.param(300, marks=pytest.mark.slow)])
def test_many_closures_are_as_many_specializations(count):
    f = autojit.jit(lambda fn: fn.__closure__[0].cell_contents)
    for _ in range(3):
        for n in range(count):
            assert f(closing_over(n)) == n
    assert f.cache_info()[:4] == (2 * count, count, count, count)


# What people do.


def test_a_layer_with_a_lambda_as_activation(x):
    @dataclasses.dataclass
    class Layer:
        w: jax.Array
        activation: object

    f = autojit.jit(lambda layer, x: layer.activation(layer.w @ x))
    for scale in (2.0, 3.0, 2.0):
        layer = Layer(jnp.eye(3), lambda h: jnp.tanh(h) * scale)  # noqa: B023
        np.testing.assert_allclose(f(layer, x), jnp.tanh(x) * scale, rtol=1e-6)
    assert f.cache_info().traces == 2


def test_an_equinox_module_with_a_lambda_made_anew(x):
    f = autojit.jit(lambda model, x: model(x))
    linear = eqx.nn.Linear(3, 2, key=jax.random.key(0))

    def make(slope):
        activation = eqx.nn.Lambda(lambda h: jnp.maximum(h, slope * h))
        return eqx.nn.Sequential([linear, activation])

    for slope in (0.1, 0.2, 0.1):
        np.testing.assert_allclose(f(make(slope), x), make(slope)(x), rtol=1e-5)
    assert f.cache_info().traces == 2


def test_an_optimizer_made_anew(x):
    @autojit.jit
    def step(optimizer, params, state):
        updates, state = optimizer.update({"w": params["w"]}, state, params)
        return optax.apply_updates(params, updates), state

    def run(rate):
        optimizer = optax.sgd(rate, momentum=0.9)
        params = {"w": x}
        for _ in range(2):
            params, _ = step(optimizer, params, optimizer.init(params))
        return params["w"]

    first, other, again = run(0.1), run(0.2), run(0.1)
    assert_array_equal(first, again)
    assert not jnp.array_equal(first, other)
    assert step.cache_info().traces == 2


def test_a_callback_defined_in_a_loop(x):
    class Mode(enum.Enum):
        ADD = 1
        MULTIPLY = 2

    f, seen = applied()
    for mode in [*Mode, *Mode]:

        def fn(y):
            return y + 2 if mode is Mode.ADD else y * 2  # noqa: B023

        assert_array_equal(f(fn, x), x + 2 if mode is Mode.ADD else x * 2)
    assert len(seen) == 2


# Random functions, against a comparison in plain Python.

SPACES = {"n": 1}, {"n": 1}


def _templates():
    a = b = None
    functions = lambda x: x, lambda x: (x, a), lambda x: (a, x), lambda x: (x, a, b)
    return [fn.__code__ for fn in functions]


TEMPLATES = _templates()


# A recipe is made of lists, so that it can be copied and changed in one place.
atoms = st.sampled_from(
    [None, True, 1, 1.0, 0.0, -0.0, "a", "b", ARRAY, OTHER_ARRAY]
).map(lambda value: ["atom", value])
backs = st.integers(0, 9).map(lambda n: ["back", n])


def _nodes(children):
    few = st.lists(children, max_size=3)
    cells = st.lists(
        st.one_of(children, st.integers(0, 3).map(lambda n: ["cell", n])),
        min_size=2,
        max_size=2,
    )
    return st.one_of(
        st.tuples(st.sampled_from(["list", "tuple", "dict", "Plain"]), few).map(list),
        st.integers(1, 3).map(lambda n: ["numpy", n]),
        st.tuples(
            st.just("function"),
            st.integers(0, len(TEMPLATES) - 1),
            st.integers(0, 1),
            cells,
            few,
            st.lists(children, max_size=2),
            st.lists(children, max_size=2),
        ).map(list),
    )


recipes = st.recursive(st.one_of(atoms, backs), _nodes, max_leaves=12)


def build(recipe):
    """Build what a recipe says; the same each time, of objects made anew."""
    objects, cells = [], []

    def made(obj):
        objects.append(obj)
        return obj

    def make(recipe):
        kind, *parts = recipe
        if kind == "atom":
            return parts[0]
        if kind == "back":
            return objects[parts[0] % len(objects)] if objects else None
        if kind == "tuple":
            return tuple(map(make, parts[0]))
        if kind == "numpy":
            return made(np.arange(parts[0]))
        if kind == "list":
            new = made([])
            new.extend(map(make, parts[0]))
            return new
        if kind == "dict":
            new = made({})
            for i, part in enumerate(parts[0]):
                new[i] = make(part)
            return new
        if kind == "Plain":
            new = made(Plain(made=True))
            for i, part in enumerate(parts[0]):
                setattr(new, "abc"[i], make(part))
            return new
        template, space, in_cells, defaults, kwdefaults, attributes = parts
        code = TEMPLATES[template]
        closure, new_cells = [], []
        for _, part in zip(code.co_freevars, in_cells, strict=False):
            if part[0] == "cell" and cells:
                closure.append(cells[part[1] % len(cells)])
            else:
                closure.append(types.CellType(None))
                new_cells.append((closure[-1], part))
                cells.append(closure[-1])
        new = made(types.FunctionType(code, SPACES[space], "f", None, tuple(closure)))
        for cell, part in new_cells:
            if part[0] != "cell":
                cell.cell_contents = make(part)
        new.__defaults__ = tuple(map(make, defaults))
        new.__kwdefaults__ = {"kw"[i]: make(p) for i, p in enumerate(kwdefaults)}
        for i, part in enumerate(attributes):
            setattr(new, "de"[i], make(part))
        return new

    return make(recipe)


def parts_of(recipe):
    """Return each part of a recipe that is a recipe."""
    found = [recipe]
    for part in recipe[1:]:
        if isinstance(part, list):
            for child in part:
                found += parts_of(child)
    return found


@hypothesis.given(recipes, st.data())
def test_random_functions_are_equal_exactly_when_they_should_be(recipe, data):
    def made(recipe):
        return closing_over(build(recipe))

    one, again = skeleton(made(recipe)), skeleton(made(recipe))
    assert one == again
    assert hash(one) == hash(again)

    other = copy.deepcopy(recipe, {id(ARRAY): ARRAY, id(OTHER_ARRAY): OTHER_ARRAY})
    part = data.draw(st.sampled_from(parts_of(other)))
    part[:] = data.draw(recipes)
    two = skeleton(made(other))
    same = same_graph(made(recipe), made(other))
    assert (one == two) is same
    assert hash(one) == hash(two) or not same


_random = autojit.jit(lambda fn: None, maxsize=None)


# Each example is compiled.
@hypothesis.settings(max_examples=hypothesis.settings.default.max_examples // 5)
@hypothesis.given(recipes)
def test_random_functions_made_anew_hit(recipe):
    _random(closing_over(build(recipe)))
    before = _random.cache_info()
    for _ in range(2):
        _random(closing_over(build(recipe)))
    after = _random.cache_info()
    assert after.hits == before.hits + 2
    assert after.misses == before.misses
