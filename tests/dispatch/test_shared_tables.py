"""Dispatchers of one function share its specializations, for as long as it lives."""

import copy
import functools
import gc
import itertools
import pickle
import types
import warnings
import weakref

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from kinds import Opaque, Plain, with_attributes
from notes import Notes
from numpy.testing import assert_array_equal

import autojit


def make_function():
    """Return a function, and the list of its traces."""
    traces = Notes()

    def fun(x, n=1):
        traces.append(n)
        return x + n

    return fun, traces


@pytest.fixture
def uncompiled(monkeypatch):
    """Leave out what JAX does: each call runs the function on the arrays themselves."""
    monkeypatch.setattr(jax, "jit", lambda fun, **options: fun)


def test_two_dispatchers_of_one_function_share(x):
    fun, traces = make_function()
    one, two = autojit.jit(fun), autojit.jit(fun)
    assert one is not two
    assert_array_equal(one(x, 2), x + 2)
    assert_array_equal(two(x, 2), x + 2)
    assert_array_equal(two(x, 3), x + 3)
    assert_array_equal(one(x, 3), x + 3)
    assert_array_equal(one(x[:2], 3), x[:2] + 3)
    assert_array_equal(two(x[:2], 3), x[:2] + 3)
    assert traces == [2, 3, 3]
    assert one.cache_info()[:5] == two.cache_info()[:5] == (4, 2, 3, 2, 4096)


def test_the_cache_is_cleared_for_all(x):
    fun, traces = make_function()
    one, two = autojit.jit(fun), autojit.jit(fun)
    one(x)
    two.clear_cache()
    assert one.cache_info().currsize == two.cache_info().currsize == 0
    one(x)
    two(x)
    assert traces == [1, 1]
    assert autojit.jit(fun).cache_info() == one.cache_info()
    assert one.cache_info().currsize == 1


def test_each_way_to_wrap_shares(x):
    fun, traces = make_function()
    for wrapped in (
        autojit.jit(fun),
        autojit.jit()(fun),
        autojit.jit(fun, inline=False, keep_unused=False, compiler_options=None),
        autojit.jit(maxsize=4096)(fun),
        autojit.jit(fun, forward=True, donate_argnums=None, donate_argnames=None),
    ):
        wrapped(x)
        assert wrapped.cache_info().currsize == 1
    assert traces == [1]
    for _ in range(2):
        autojit.jax_autojit(fun)(x)
    assert len(traces) == 2


OPTIONS = [
    {"inline": True},
    {"keep_unused": True},
    {"maxsize": 7},
    {"maxsize": 8},
    {"maxsize": None},
    {"forward": False},
    {"compiler_options": {"xla_cpu_enable_fast_math": True}},
    {"compiler_options": {"xla_cpu_enable_fast_math": False}},
    {"donate_argnums": 0},
    {"donate_argnums": 1},
    {"donate_argnums": (0, 1)},
    {"inline": True, "keep_unused": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_equal_options_share(x, options):
    fun, traces = make_function()
    for _ in range(3):
        f = autojit.jit(fun, **copy.deepcopy(options))
        f(x + 1)
        assert f.cache_info().currsize == 1
        assert f.cache_info().maxsize == options.get("maxsize", 4096)
    assert traces == [1]


def test_other_options_share_nothing(x):
    fun, traces = make_function()
    dispatchers = [autojit.jit(fun, **options) for options in ({}, *OPTIONS)]
    for n, f in enumerate(dispatchers, 1):
        f(x + 1)
        assert len(traces) == n
        assert f.cache_info()[:4] == (0, 1, 1, 1)
    for f in dispatchers:
        f(x + 1)
        assert f.cache_info()[:4] == (1, 1, 1, 1)
        f.clear_cache()
    assert len(traces) == len(dispatchers)


def test_a_bound_is_shared(x):
    fun, traces = make_function()
    one, two = autojit.jit(fun, maxsize=2), autojit.jit(fun, maxsize=2)
    one(x, 1)
    two(x, 2)
    one(x, 3)
    assert two.cache_info().currsize == 2
    two(x, 1)
    assert traces == [1, 2, 3, 1]


def test_functions_that_are_only_equal_share_nothing(x):
    def make():
        return lambda x: traces.append(1) or x + 1

    traces = Notes()
    one, two = make(), make()
    for fun in (one, two, one, two):
        autojit.jit(fun)(x)
    assert len(traces) == 2


def test_what_else_a_dispatcher_has_is_its_own(x):
    fun, _ = make_function()
    one, two = autojit.jit(fun), autojit.jit(fun)
    one.note = 1
    one.__name__ = "other"
    assert not hasattr(two, "note")
    assert two.__name__ == "fun"
    assert one.__wrapped__ is two.__wrapped__ is fun


def test_copies_and_pickles_share(x):
    f = autojit.jit(of_this_module, maxsize=33)
    f(x)
    before = f.cache_info()
    for g in (copy.copy(f), copy.deepcopy(f), pickle.loads(pickle.dumps(f))):
        g(x)
    assert g.cache_info().traces == before.traces
    assert g.cache_info().hits == before.hits + 3


def of_this_module(x):
    return x * 2


@pytest.mark.parametrize("wrap", [autojit.jit, autojit.jax_autojit])
def test_sixty_thousand_wraps_trace_once(x, wrap):
    fun, traces = make_function()
    kept = []
    for i in range(60_000):
        f = wrap(fun)
        f(x)
        if i % 10_000 == 0:
            kept.append(f)
    assert traces == [1]
    assert f.cache_info() == kept[0].cache_info()
    assert f.cache_info()[:5] == (59_999, 1, 1, 1, 4096)


def test_a_dispatcher_of_a_dispatcher(x):
    fun, traces = make_function()
    inner = autojit.jit(fun)
    for _ in range(3):
        outer = autojit.jit(inner)
        assert outer is not inner
        assert_array_equal(outer(x), x + 1)
    assert len(traces) == 1
    assert outer.cache_info()[:2] == (2, 1)


def test_wrapping_inside_of_a_function(x):
    def helper(x, n):
        traces.append(n)
        return x * n

    def use(x):
        return autojit.jit(helper)(x, 2) + autojit.jit(helper)(x, 3)

    traces = Notes()
    for call in (use, use, jax.jit(use), autojit.jit(use)):
        assert_array_equal(call(x), x * 5)
        assert traces == [2, 3]


def test_wrapping_inside_of_the_own_trace(x):
    def fun(x, n):
        traces.append(n)
        return x if n == 0 else autojit.jit(fun)(x + 1, n - 1)

    traces = Notes()
    for _ in range(2):
        assert_array_equal(autojit.jit(fun)(x, 3), x + 3)
    assert traces == [3, 2, 1, 0]


# Callables other than functions.


CALLED = Notes()  # the classes whose methods were traced


class Model:
    def __init__(self, w, n=1):
        self.w = w
        self.n = n

    def method(self, x):
        CALLED.append(Model)
        return self.w * x + self.n

    def __call__(self, x):
        CALLED.append(Model)
        return self.w * x - self.n

    @classmethod
    def of_class(cls, x):
        CALLED.append(cls)
        return x * cls.factor

    @staticmethod
    def static(x):
        CALLED.append(Model)
        return x * 5

    factor = 2


class SubModel(Model):
    factor = 3


@pytest.fixture
def traces():
    """Count the traces of `Model` in a test."""
    CALLED.clear()
    for name in ("method", "static"):
        autojit.jit(getattr(Model, name)).clear_cache()
    autojit.jit(Model.of_class).clear_cache()

    return lambda: len(CALLED)


def test_methods_of_two_instances_share(x, traces):
    """The instance is a part of the call tree."""
    one, two, other = Model(x), Model(x + 1), Model(x, n=2)
    for _ in range(2):
        for obj in (one, two, other):
            assert_array_equal(autojit.jit(obj.method)(x), obj.w * x + obj.n)
    assert traces() == 2
    one.w = x + 5
    assert_array_equal(autojit.jit(one.method)(x), (x + 5) * x + 1)
    assert traces() == 2


@pytest.mark.parametrize("first", ["function", "method"])
def test_a_function_and_a_bound_method_of_it(x, first):
    """They have one table, and the same arguments may mean something else."""

    class Local:
        def __init__(self, w):
            self.w = w

        def add(self, other=None, out=None):
            return self.w if other is None else self.w + other.w

    a, b, c = Local(x), Local(x + 1), Local(x + 2)
    calls = [
        lambda: assert_array_equal(autojit.jit(Local.add)(a, b), x + x + 1),
        lambda: assert_array_equal(autojit.jit(c.add)(a, b), x + x + 2),
        lambda: assert_array_equal(autojit.jit(Local.add)(b), x + 1),
        lambda: assert_array_equal(autojit.jit(c.add)(b), x + x + 3),
        lambda: assert_array_equal(autojit.jit(c.add)(), x + 2),
    ]
    for call in (calls if first == "function" else calls[::-1]) * 2:
        call()


def test_a_method_of_a_subclass_is_not_that_of_its_base(x, traces):
    for _ in range(2):
        for cls in (Model, SubModel):
            assert_array_equal(autojit.jit(cls(x).method)(x), x * x + 1)
            assert_array_equal(autojit.jit(cls.of_class)(x), x * cls.factor)
    assert traces() == 4
    assert list(CALLED).count(SubModel) == 1


def test_a_method_and_its_function(x, traces):
    for i in range(4):
        obj = Model(x + i)
        assert_array_equal(autojit.jit(obj.method)(x), obj.w * x + 1)
        assert_array_equal(autojit.jit(Model.method)(obj, x), obj.w * x + 1)
        gc.collect()
    assert traces() <= 2  # their tables may be one or two


def test_a_static_method_shares(x, traces):
    for fun in (Model.static, Model(x).static, SubModel.static):
        assert_array_equal(autojit.jit(fun)(x), x * 5)
    assert traces() == 1


def test_a_method_with_options(x, traces):
    obj = Model(x)
    for _ in range(2):
        for options in ({}, {"maxsize": 3}, {"forward": False}, {"inline": True}):
            assert_array_equal(autojit.jit(obj.method, **options)(x), x * x + 1)
    assert traces() == 4


def test_cache_info_of_methods_is_shared(x, traces):
    one, two = Model(x), Model(x, n=5)
    first, second = autojit.jit(one.method), autojit.jit(two.method)
    before = first.cache_info()
    first(x)
    second(x)
    first(x)
    after = second.cache_info()
    assert after == first.cache_info()
    assert after.hits - before.hits == 1
    assert after.misses - before.misses == 2
    assert after.currsize == before.currsize + 2
    second.clear_cache()
    assert first.cache_info().currsize == 0


def test_one_callable_object_shares_with_itself(x, traces):
    obj = Model(x)
    one, two = autojit.jit(obj), autojit.jit(obj)
    for w in (x, x + 1):
        obj.w = w
        assert_array_equal(one(x), w * x - 1)
        assert_array_equal(two(x), w * x - 1)
    assert traces() == 1
    assert one.cache_info() == two.cache_info()
    assert one.cache_info()[:5] == (3, 1, 1, 1, 4096)


class Wrapped(eqx.Module):
    w: jax.Array
    power: int = eqx.field(static=True, default=1)

    def method(self, x):
        TRACED.append(1)
        return self.w * x**self.power


TRACED = Notes()


def traced(w, x):
    TRACED.append(1)
    return jnp.sum(w * x)


class Calling:
    def __init__(self, w):
        self.w = w

    def __call__(self, x):
        TRACED.append(1)
        return self.w * x


class CallingBare:
    def __call__(self, x):
        TRACED.append(1)
        return 2 * x


CALLABLES = {
    "equinox": lambda w, x: (Wrapped(w).method, w * x),
    "gradient": lambda w, x: (functools.partial(eqx.filter_grad(traced), w), x),
    "partial": lambda w, x: (functools.partial(traced, w), jnp.sum(w * x)),
    "object": lambda w, x: (Calling(w), w * x),
    "without state": lambda w, x: (CallingBare(), 2 * x),
}


@pytest.mark.parametrize("make", CALLABLES.values(), ids=CALLABLES)
def test_equal_callable_objects_made_anew_share(x, make):
    TRACED.clear()
    for i in range(4):
        fun, expected = make(x + i, x)
        assert_array_equal(autojit.jit(fun)(x), expected)
    assert len(TRACED) == 1
    fun, _ = make(x + 5, x)
    assert autojit.jit(fun).cache_info().traces == 1
    assert autojit.jit(fun, inline=True).cache_info().traces == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda n, x: (Wrapped(x, n).method, x * x**n),
        lambda n, x: (functools.partial(traced, n), jnp.sum(n * x)),
        lambda n, x: (Calling(n), n * x),
    ],
    ids=["equinox", "partial", "object"],
)
def test_callable_objects_that_differ_do_not_share(x, make):
    TRACED.clear()
    for n in (11, 12, 11, 12):
        fun, expected = make(n, x)
        f = autojit.jit(fun)
        assert_array_equal(f(x), expected)
        assert f.cache_info().traces == 1
    assert len(TRACED) == 2


def test_callable_objects_of_one_hash_do_not_share(x):
    def make(power):
        return functools.partial(lambda y: y**power)

    one, other = make(2), make(3)
    assert hash(autojit.flatten(one)[1]) == hash(autojit.flatten(other)[1])
    f, g = autojit.jit(one), autojit.jit(other)
    assert_array_equal(f(x), x**2)
    assert g.cache_info().misses == 0
    assert_array_equal(g(x), x**3)
    assert f.cache_info().currsize == g.cache_info().currsize == 1


def test_a_callable_object_that_changes_after_it_was_wrapped(x):
    first, second = Calling(2), Calling(2)
    f, g = autojit.jit(first), autojit.jit(second)
    first.w = 3
    assert_array_equal(f(x), 3 * x)
    assert_array_equal(g(x), 2 * x)
    assert_array_equal(f(x), 3 * x)
    h = autojit.jit(Calling(3))
    assert_array_equal(h(x), 3 * x)


def test_a_callable_object_that_cannot_be_taken_apart_has_a_table_of_its_own(x):
    deep = []
    for _ in range(100_000):
        deep = [deep]
    f = autojit.jit(Calling(deep))
    assert f.cache_info().traces == 0
    with pytest.raises(RecursionError):
        f(x)


def test_the_last_tables_of_callable_objects_stay():
    TRACED.clear()
    for w in (*range(1000, 1100), 1099, 1050, 1040):
        assert autojit.jit(Calling(w))(2) == w * 2
    assert len(TRACED) == 100
    assert autojit.jit(Calling(1001))(2) == 2002
    assert len(TRACED) == 101


@pytest.mark.parametrize(
    ("fun", "count"),
    [(jnp.sin, 1), (jnp.add, 2), (divmod, 2), (abs, 1), (jax.jit(of_this_module), 1)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_any_callable_can_be_wrapped_twice(x, fun, count):
    args = [x + 1, x + 2][:count]
    for _ in range(2):
        jax.tree.map(assert_array_equal, autojit.jit(fun)(*args), fun(*args))


def test_a_class_can_be_wrapped_twice(x):
    for _ in range(2):
        made = autojit.jit(Plain)(a=x)
        assert type(made) is Plain
        assert_array_equal(made.a, x)


def test_a_method_of_something_that_is_no_function(x):
    box = Plain(n=2)
    method = types.MethodType(
        functools.partial(lambda k, box, x: x * box.n + k, 1), box
    )
    for n in (2, 3):
        box.n = n
        assert_array_equal(autojit.jit(method)(x), x * n + 1)


# The end of a function is the end of its table. Each of these makes a function, uses
# its dispatchers, and returns what has to be gone when nothing else refers to it.


def without_traces():
    return lambda x, *objects: x + 1


def a_function(x):
    fun = without_traces()
    autojit.jit(fun)(x)
    return [fun]


def a_function_with_its_dispatcher(x):
    fun = without_traces()
    f = autojit.jit(fun)
    f(x)
    f(x, 2)
    return [fun, f]


def a_function_of_several_dispatchers(x):
    fun = without_traces()
    for options in ({}, {}, {"inline": True}, {"maxsize": 1}, {"donate_argnums": 0}):
        autojit.jit(fun, **options)(x + 1)
    autojit.jax_autojit(fun)(x)
    return [fun]


def a_function_that_calls_its_dispatcher(x):
    def fun(x, n):
        return x if n == 0 else f(x + 1, n - 1)

    f = autojit.jit(fun)
    f(x, 2)
    return [fun, f]


def a_function_with_its_dispatcher_as_default(x):
    def fun(x, f=None):
        return x + 1

    f = autojit.jit(fun)
    fun.__defaults__ = (f,)
    f(x)
    return [fun, f]


def a_function_with_its_dispatcher_as_attribute(x):
    fun = without_traces()
    fun.jitted = autojit.jit(fun)
    fun.jitted(x)
    return [fun, fun.jitted]


def called_with(make_argument):
    """Return what calls a new dispatcher with what is made of its function and it."""

    def make(x):
        fun = without_traces()
        f = autojit.jit(fun)
        f(x, make_argument(fun, f))
        return [fun, f]

    return make


def an_argument_that_closes_over_the_dispatcher(x):
    f = autojit.jit(lambda x, g: g(x))
    g = lambda y: y + 1 if f else y  # noqa: E731
    f(x, g)
    f(x, lambda y: y + 2 if f else y)
    return [f.__wrapped__, f, g]


def a_function_that_returns_itself(x):
    def fun(x):
        return x, fun, [f]

    f = autojit.jit(fun)
    f(x)
    return [fun, f]


def a_function_that_returns_a_function(x):
    def fun(x):
        return x, lambda y: f(y)

    f = autojit.jit(fun)
    _, g = f(x)
    return [fun, f, g]


def a_function_that_failed(x):
    def fun(x):
        raise ValueError("failed")

    f = autojit.jit(fun)
    with pytest.raises(ValueError, match="failed"):
        f(x)
    return [fun, f]


def a_function_that_warned(x):
    fun, _ = make_warning("careful")
    caught(autojit.jit(fun), x)
    caught(autojit.jit(fun), x)
    return [fun]


def a_local_class(x):
    class Local:
        def __init__(self, w):
            self.w = w

        @autojit.jit
        def method(self, x):
            return self.w * x

    obj = Local(x)
    obj.method(x)
    return [Local, obj, Local.method, Local.method.__wrapped__]


def a_local_class_whose_instances_are_arguments_and_results(x):
    class Local:
        def __init__(self, w):
            self.w = w

        @autojit.jit
        def add(self, other):
            return Local(self.w + other.w)

        @classmethod
        @autojit.jit(maxsize=3)
        def make(cls, w):
            return cls(w)

        @staticmethod
        @autojit.jit
        def static(objects):
            return [objects, {"first": objects[0]}]

    obj = Local(x)
    total = obj.add(Local(x)).add(obj)
    Local.static([obj, total, Local.make(x)])
    return [Local, obj, Local.add, Local.static, Local.static.__wrapped__]


def local_class():
    class Local:
        def __init__(self, w):
            self.w = w

        def method(self, x):
            return self.w * x

        def __call__(self, x):
            return self.w + x

    return Local


def a_local_class_whose_method_was_wrapped(x):
    cls = local_class()
    obj = cls(x)
    autojit.jit(obj.method)(x)
    return [cls, obj, cls.method]


def a_local_class_whose_function_was_wrapped(x):
    cls = local_class()
    obj = cls(x)
    autojit.jit(cls.method)(obj, x)
    return [cls, obj, cls.method]


def a_local_class_whose_instance_was_wrapped(x):
    cls = local_class()
    obj = cls(x)
    autojit.jit(obj)(x)
    return [cls, obj]


def a_local_class_that_was_wrapped(x):
    cls = local_class()
    return [cls, autojit.jit(cls)(x)]


def an_instance_that_holds_a_dispatcher_of_its_method(x):
    cls = local_class()
    obj = cls(x)
    obj.run = autojit.jit(obj.method)
    obj.run(x)
    return [cls, obj, cls.method]


NUMBERS = itertools.count()


def a_partial(x):
    fun, _ = make_function()
    partial = functools.partial(fun, n=next(NUMBERS))  # equal to no other
    autojit.jit(partial)(x)
    return [partial, fun]


def two_functions_that_have_each_other_as_arguments(x):
    one, two = without_traces(), without_traces()
    f, g = autojit.jit(one), autojit.jit(two)
    for dispatcher, other in ((f, two), (f, g), (g, one), (g, f)):
        dispatcher(x, other)
    return [one, two, f, g]


def a_function_used_in_transformations(x):
    def fun(x):
        return (x * x).sum()

    f = autojit.jit(fun)
    jax.grad(f)(x)
    jax.jit(f)(x)
    jax.vmap(f)(x[None])
    jax.jit(lambda x: autojit.jit(fun)(x) + f(x))(x)
    return [fun, f]


@pytest.mark.parametrize(
    "make",
    [
        a_function,
        a_function_with_its_dispatcher,
        a_function_of_several_dispatchers,
        a_function_that_calls_its_dispatcher,
        a_function_with_its_dispatcher_as_default,
        a_function_with_its_dispatcher_as_attribute,
        called_with(lambda fun, f: f),
        called_with(lambda fun, f: Plain(f=[f])),
        called_with(lambda fun, f: with_attributes(Opaque(), f=f, fun=f)),
        an_argument_that_closes_over_the_dispatcher,
        a_function_that_returns_itself,
        a_function_that_returns_a_function,
        a_function_that_failed,
        a_function_that_warned,
        a_local_class,
        a_local_class_whose_instances_are_arguments_and_results,
        a_local_class_that_was_wrapped,
        an_instance_that_holds_a_dispatcher_of_its_method,
        two_functions_that_have_each_other_as_arguments,
        a_function_used_in_transformations,
    ],
)
def test_what_nobody_refers_to_goes(x, make):
    assert_gone([weakref.ref(obj) for obj in make(x)])


def assert_gone(refs):
    for _ in range(3):
        gc.collect()
    jax.clear_caches()  # JAX may hold what it traced, such as a constant
    gc.collect()
    assert [ref() for ref in refs] == [None] * len(refs)


def a_class_with(**attributes):
    return type("a_class_with.<locals>.Made", (), attributes)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize(
    "make",
    [
        called_with(lambda fun, f: fun),
        called_with(lambda fun, f: [fun, {"k": fun}]),
        called_with(lambda fun, f: lambda: fun),
        called_with(lambda fun, f: lambda fun=fun: fun),
        called_with(lambda fun, f: functools.wraps(fun)(lambda: 1)),
        called_with(lambda fun, f: a_class_with(functions=[fun])),
        called_with(lambda fun, f: a_class_with(functions={"f": fun})()),
        called_with(lambda fun, f: a_class_with(fun=staticmethod(fun))()),
        called_with(lambda fun, f: with_attributes(Opaque(), fun=fun)),
        called_with(lambda fun, f: autojit.jit(lambda: fun)),
        a_local_class_whose_method_was_wrapped,
        a_local_class_whose_function_was_wrapped,
        a_local_class_whose_instance_was_wrapped,
        a_partial,
    ],
)
def test_a_function_that_its_own_table_holds_goes_when_others_come(x, make):
    """Its arguments lead to it, by their class say: a few are kept, and no more."""
    refs = [weakref.ref(obj) for obj in make(x)]
    for _ in range(64):
        make(x)
    assert_gone(refs)


def test_the_arguments_of_a_function_go_with_it(x):
    def make():
        def fun(x, obj):
            return x

        obj = Opaque()
        autojit.jit(fun)(x, obj)
        return fun, weakref.ref(obj)

    fun, gone = make()
    gc.collect()
    assert gone() is not None
    del fun
    gc.collect()
    assert gone() is None


def test_a_table_outlives_its_dispatchers_but_not_its_function(x):
    fun, traces = make_function()
    for n in (1, 2, 1, 2):
        assert_array_equal(autojit.jit(fun)(x, n), x + n)
        gc.collect()
    gone = weakref.ref(fun)
    f = autojit.jit(fun)
    del fun
    gc.collect()
    assert gone() is not None
    f(x, 1)
    assert traces == [1, 2]
    del f
    gc.collect()
    assert gone() is None


def test_a_new_function_gets_no_table_of_one_that_is_gone():
    """Even if it is at the same address."""
    for n in range(50):
        fun = eval(f"lambda: {n}")
        assert autojit.jit(fun)() == n
        del fun


# Warnings.


def caught(call, *args, action="always"):
    """Return categories and texts of the warnings of a call, in order."""
    with warnings.catch_warnings(record=True, action=action) as shown:
        call(*args)
    return [(w.category, str(w.message)) for w in shown]


class CustomWarning(UserWarning):
    pass


class WarningWithArguments(DeprecationWarning):
    def __init__(self, text, code=0):
        super().__init__(text, code)
        self.code = code

    def __str__(self):
        return f"{self.args[0]}: {self.code}"


def make_warning(*messages, category=UserWarning):
    """Return a function that warns of `messages` and of the shape that it gets."""

    def fun(x, n=0):
        traces.append(x.shape)
        for message in (*messages, f"{x.shape} {x.dtype} {n}"):
            warnings.warn(message, category, stacklevel=1)
        return x + n

    traces = Notes()
    return fun, traces


def expected(*messages, category=UserWarning):
    return [(category, message) for message in messages]


# What a function of `make_warning("careful")` warns of.
CAREFUL = expected("careful", "(3,) float32 0")


def test_the_first_trace_warns_as_under_jax(x):
    fun, _ = make_warning("careful")
    again, _ = make_warning("careful")
    f, g = autojit.jit(fun), jax.jit(again, static_argnums=1)
    for y in (x, x, x[:2], x, x.astype(int), x[:2]):
        assert caught(f, y) == caught(g, y)


def test_another_dispatcher_warns_once(x):
    fun, traces = make_warning("careful", "more")
    first = autojit.jit(fun)
    all_of_it = expected("careful", "more", "(3,) float32 0")
    assert caught(first, x) == all_of_it
    assert caught(first, x) == []
    for _ in range(3):
        other = autojit.jit(fun)
        assert caught(other, x) == all_of_it
        assert caught(other, x) == []
        assert caught(other, x) == []
        assert caught(first, x) == []
    assert len(traces) == 1


def test_pytest_sees_the_warnings_in_each_test(x):
    fun, traces = make_warning("careful")
    for _ in range(3):
        f = autojit.jit(fun)
        with (
            pytest.warns(UserWarning, match="float32"),
            pytest.warns(UserWarning, match="careful") as record,
        ):
            f(x)
        assert len(record) == 2
    assert len(traces) == 1


def test_warnings_for_each_shape_and_dtype(x):
    fun, traces = make_warning()
    first, second, third = (autojit.jit(fun) for _ in range(3))
    assert caught(first, x) == expected("(3,) float32 0")
    assert caught(second, x) == expected("(3,) float32 0")
    assert caught(second, x[:2]) == expected("(2,) float32 0")
    assert caught(second, x[:2]) == []
    assert caught(first, x) == []
    assert caught(first, x[:2]) == expected("(2,) float32 0")
    assert caught(first, x[:2]) == []
    assert caught(third, x[:2]) == expected("(2,) float32 0")
    assert caught(third, x) == expected("(3,) float32 0")
    assert caught(third, x.astype(int)) == expected("(3,) int32 0")
    assert caught(first, x.astype(int)) == expected("(3,) int32 0")
    assert (
        caught(third, x) == caught(third, x[:2]) == caught(third, x.astype(int)) == []
    )
    assert len(traces) == 3


def test_warnings_for_each_specialization(x):
    fun, traces = make_warning()
    first, second = autojit.jit(fun), autojit.jit(fun)
    for n in (1, 2):
        assert caught(first, x, n) == expected(f"(3,) float32 {n}")
    for n in (2, 1):
        assert caught(second, x, n) == expected(f"(3,) float32 {n}")
        assert caught(second, x, n) == []
    assert len(traces) == 2


def test_what_does_not_warn_is_silent_again(x):
    def fun(x, warn):
        if warn:
            warnings.warn("careful", stacklevel=1)
        return x

    for f in (autojit.jit(fun), autojit.jit(fun)):
        assert caught(f, x, False) == []
        assert caught(f, x, True) == expected("careful")
    with warnings.catch_warnings(action="error"):
        autojit.jit(fun)(x, False)


def test_a_dispatcher_forgets_what_it_showed_long_ago(x, monkeypatch):
    monkeypatch.setattr(autojit._warnings, "_MOST_SEEN", 3)

    def fun(x, n):
        warnings.warn(f"careful {n}", stacklevel=1)
        return x

    f = autojit.jit(fun, retrace_warning=None)
    for n in range(10):
        assert caught(f, x, n) == expected(f"careful {n}")
    (seen,) = (
        part
        for part in gc.get_referents(f)
        if type(part) is dict and part is not f._options
    )
    assert len(seen) == 3
    assert caught(f, x, 9) == []


def test_what_warns_in_one_shape_alone(x):
    def fun(x):
        if x.shape == (2,):
            warnings.warn("two", stacklevel=1)
        return x

    for f in (autojit.jit(fun), autojit.jit(fun)):
        assert caught(f, x) == []
        assert caught(f, x[:2]) == expected("two")
        assert caught(f, x) == []


def test_a_warning_of_which_nobody_heard_is_heard_later(x):
    fun, traces = make_warning("careful")
    assert caught(autojit.jit(fun), x, action="ignore") == []
    assert caught(autojit.jit(fun), x) == CAREFUL
    assert len(traces) == 1


def test_a_warning_is_raised_again_where_it_was(x):
    """So that filters by module act, and pytest shows one warning as one."""
    fun, traces = make_warning("careful")
    places = set()
    for _ in range(3):
        with warnings.catch_warnings(record=True, action="always") as shown:
            autojit.jit(fun)(x)
        places |= {(one.filename, one.lineno) for one in shown}
        with warnings.catch_warnings(record=True, action="always") as shown:
            warnings.filterwarnings("ignore", module=__name__)
            autojit.jit(fun)(x)
        assert shown == []
    assert len(places) == 1
    assert next(iter(places))[0] == __file__
    assert len(traces) == 1


def test_a_warning_that_is_ignored_counts_as_seen(x):
    fun, _ = make_warning()
    caught(autojit.jit(fun), x)
    other = autojit.jit(fun)
    assert caught(other, x, action="ignore") == []
    assert caught(other, x) == []


def test_an_error_filter_raises_each_time(x):
    def assert_raises(f):
        with (
            warnings.catch_warnings(action="error"),
            pytest.raises(UserWarning, match="careful"),
        ):
            f(x)

    fun, traces = make_warning("careful")
    first = autojit.jit(fun)
    for count in (1, 2):  # no trace has worked yet
        assert_raises(first)
        assert len(traces) == count
    assert first.cache_info().currsize == 0
    assert caught(first, x) == CAREFUL
    other = autojit.jit(fun)
    for _ in range(3):
        assert_raises(other)
        assert caught(first, x, action="error") == []
    assert caught(other, x) == CAREFUL
    with warnings.catch_warnings(action="error"):
        assert_array_equal(other(x), x)
    assert len(traces) == 3


def test_an_error_filter_for_another_category(x):
    fun, _ = make_warning("careful")
    caught(autojit.jit(fun), x)
    with warnings.catch_warnings(record=True, action="always") as shown:
        warnings.filterwarnings("error", category=DeprecationWarning)
        autojit.jit(fun)(x)
    assert len(shown) == 2


def test_an_error_filter_for_one_text(x):
    fun, traces = make_warning("careful", "more")
    caught(autojit.jit(fun), x)
    other = autojit.jit(fun)
    with warnings.catch_warnings(action="ignore"):
        warnings.filterwarnings("error", message="more")
        for _ in range(2):
            with pytest.raises(UserWarning, match="more"):
                other(x)
    assert len(traces) == 1


def warns_in_a_helper(x):
    def helper():
        warnings.warn("from the helper", CustomWarning, stacklevel=2)

    helper()
    return x


def warns_in_a_generator(x):
    warnings.warn("begun", stacklevel=1)
    yield x
    warnings.warn("ended", stacklevel=1)


def handles_its_warnings(x):
    with warnings.catch_warnings(action="ignore"):
        warnings.warn("ignored", stacklevel=1)
    with warnings.catch_warnings(record=True, action="always") as shown:
        warnings.warn("recorded", stacklevel=1)
    assert len(shown) == 1
    with pytest.warns(UserWarning, match="expected"):
        warnings.warn("expected", stacklevel=1)
    return x


def records_without_a_filter(x):
    with warnings.catch_warnings(record=True) as shown:
        warnings.warn("recorded", stacklevel=1)
    assert len(shown) == 1
    return x


WARNING = {
    category.__name__: (
        make_warning("careful", category=category)[0],
        expected("careful", "(3,) float32 0", category=category),
    )
    for category in (
        *(UserWarning, DeprecationWarning, RuntimeWarning, FutureWarning),
        CustomWarning,
    )
} | {
    "helper": (
        warns_in_a_helper,
        expected("from the helper", category=CustomWarning),
    ),
    "generator": (warns_in_a_generator, expected("begun", "ended")),
    "handled": (handles_its_warnings, []),
    "recorded": (records_without_a_filter, []),
}


@pytest.mark.parametrize(("fun", "warned"), WARNING.values(), ids=WARNING)
def test_each_dispatcher_shows_what_the_function_does_not_handle(x, fun, warned):
    for _ in range(3):
        f = autojit.jit(fun)
        assert caught(f, x) == warned
    assert f.cache_info().traces == 1


def warns_with_arguments(x):
    warnings.warn(WarningWithArguments("careful", 7), stacklevel=1)
    return x


def warns_with_a_class_of_its_own(x):
    class Local(UserWarning):
        pass

    warnings.warn("careful", Local, stacklevel=1)
    return x


@pytest.mark.parametrize(
    ("fun", "base", "name", "text"),
    [
        (
            warns_with_arguments,
            WarningWithArguments,
            "WarningWithArguments",
            "careful: 7",
        ),
        (warns_with_a_class_of_its_own, UserWarning, "Local", "careful"),
    ],
)
def test_a_category_that_cannot_be_made_again_as_it_was(x, fun, base, name, text):
    for _ in range(2):
        ((category, shown),) = caught(autojit.jit(fun), x)
        assert issubclass(category, base)
        assert category.__name__ == name
        assert shown == text


def test_a_warning_that_is_raised_twice_in_one_trace(x):
    def fun(x):
        for text in ("a", "b", "a"):
            warnings.warn(text, stacklevel=1)
        warnings.warn("a", CustomWarning, stacklevel=1)
        return x

    assert len(caught(autojit.jit(fun), x)) == 4
    again = caught(autojit.jit(fun), x)
    assert sorted(again, key=str) == sorted(
        [*expected("a", "b"), *expected("a", category=CustomWarning)], key=str
    )


def test_warnings_of_jax_itself(x):
    def fun(x):
        return x + jnp.ones(3, "float64")

    (first,) = caught(autojit.jit(fun), x)
    assert "float64" in first[1]
    assert caught(autojit.jit(fun), x) == [first]


def test_a_fresh_dispatcher_warns_after_the_first_is_gone(x):
    fun, traces = make_warning("careful")
    for _ in range(3):
        f = autojit.jit(fun)
        assert caught(f, x) == CAREFUL
        gone = weakref.ref(f)
        del f
        gc.collect()
        assert gone() is None
    assert len(traces) == 1


def test_a_new_trace_warns_by_itself(x):
    fun, traces = make_warning("careful")
    f, g = autojit.jit(fun), autojit.jit(fun)
    assert caught(f, x) == caught(g, x) == CAREFUL
    f.clear_cache()
    for dispatcher in (g, f):
        assert caught(dispatcher, x) == CAREFUL
        assert caught(dispatcher, x) == []
    assert len(traces) == 2


def test_methods_that_are_wrapped_anew_warn_each_time(x):
    class Local:
        def method(self, x):
            warnings.warn("careful", stacklevel=1)
            return x

    obj = Local()
    for _ in range(3):
        f = autojit.jit(obj.method)
        assert caught(f, x) == expected("careful")
        assert caught(f, x) == []
    assert f.cache_info().traces == 1


def test_dispatchers_with_other_options_warn_by_themselves(x):
    fun, traces = make_warning("careful")
    for wrap in (autojit.jit, autojit.jax_autojit, autojit.jit(maxsize=2)):
        assert caught(wrap(fun), x) == caught(wrap(fun), x) == CAREFUL
    assert len(traces) == 3


def test_a_function_that_handles_the_warning_as_an_error(x):
    """Under an error filter a trace sees the exception, as without autojit."""

    def fun(x):
        try:
            warnings.warn("slow", stacklevel=1)
        except UserWarning:
            return x * 0
        return x

    f = autojit.jit(fun)
    with warnings.catch_warnings(action="error"):
        assert_array_equal(f(x), x * 0)
    f.clear_cache()
    assert caught(f, x) == expected("slow")
    assert_array_equal(f(x), x)


def test_filters_are_as_they_were(x):
    fun, _ = make_warning("careful")
    failing = autojit.jit(lambda x: x + jnp.ones(7))
    with warnings.catch_warnings(action="ignore"):
        before, the_list = list(warnings.filters), warnings.filters
        show = warnings.showwarning
        for f in (autojit.jit(fun), autojit.jit(fun)):
            f(x)
            f(x[:2])
            assert warnings.filters is the_list
            assert warnings.filters == before
        with pytest.raises(TypeError):
            failing(x)
        assert warnings.filters == before
        assert warnings.showwarning is show


def test_filters_are_those_of_the_user_inside_of_the_function(x):
    def fun(x):
        warnings.filterwarnings("ignore", message="changed by the function")
        return x

    with warnings.catch_warnings(action="always"):
        before = list(warnings.filters)
        autojit.jit(fun)(x)
        assert warnings.filters[1:] == before
        assert warnings.filters[0][0] == "ignore"


def test_a_warning_is_shown_once_under_the_default_filter_of_python(x):
    def shown(jit):
        f = jit(make_warning("careful")[0])
        with warnings.catch_warnings(record=True, action="default") as shown:
            f(x)
            f(x)
        return len(shown)

    assert shown(autojit.jit) == shown(jax.jit)


def test_nested_dispatchers_each_replay_what_they_traced(x):
    fun, traces = make_warning("careful")

    def outer(x):
        return autojit.jit(fun)(x * 2)

    for wrapped in (outer, outer, fun):
        assert caught(autojit.jit(wrapped), x) == CAREFUL
    assert len(traces) == 1


def test_a_warning_in_a_transformation(x):
    fun, _ = make_warning("careful")
    caught(autojit.jit(fun), x)
    other = autojit.jit(fun)
    shown = caught(jax.grad(lambda x: other(x).sum()), x)
    assert set(CAREFUL) <= set(shown)
    assert caught(jax.jit(lambda x: other(x) + 1), x) == []


def test_nothing_is_replayed_under_disable_jit(x):
    fun, _ = make_warning("careful")
    caught(autojit.jit(fun), x)
    other = autojit.jit(fun)
    with jax.disable_jit():
        for _ in range(2):  # the function itself runs each time
            assert caught(other, x) == CAREFUL
