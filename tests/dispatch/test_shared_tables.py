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
from numpy.testing import assert_array_equal

import autojit


def make_function():
    """Return a function, and the list of its traces."""
    traces = []

    def fun(x, n=1):
        traces.append(n)
        return x + n

    return fun, traces


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


def test_wrapping_later_shares_too(x):
    fun, traces = make_function()
    for n in (1, 2, 1, 2):
        assert_array_equal(autojit.jit(fun)(x, n), x + n)
        gc.collect()
    assert traces == [1, 2]


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

    traces = []
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
    fun, traces = make_function()
    f = autojit.jit(fun)
    for g in (f, copy.copy(f), copy.deepcopy(f)):
        g(x)
    assert len(traces) == 1
    g = autojit.jit(of_this_module, maxsize=33)
    g(x)
    before = g.cache_info()
    again = pickle.loads(pickle.dumps(g))
    again(x)
    assert again.cache_info().traces == before.traces
    assert again.cache_info().hits == before.hits + 1


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
        assert_array_equal(outer(x), x + 1)
    assert len(traces) == 1
    assert outer.cache_info()[:2] == (2, 1)


def test_wrapping_inside_of_a_function(x):
    def helper(x, n):
        traces.append(n)
        return x * n

    def use(x):
        return autojit.jit(helper)(x, 2) + autojit.jit(helper)(x, 3)

    traces = []
    for _ in range(3):
        assert_array_equal(use(x), x * 5)
    assert traces == [2, 3]
    assert_array_equal(jax.jit(use)(x), x * 5)
    assert traces == [2, 3]
    assert_array_equal(autojit.jit(use)(x), x * 5)
    assert traces == [2, 3]


def test_wrapping_inside_of_the_own_trace(x):
    def fun(x, n):
        traces.append(n)
        return x if n == 0 else autojit.jit(fun)(x + 1, n - 1)

    traces = []
    for _ in range(2):
        assert_array_equal(autojit.jit(fun)(x, 3), x + 3)
    assert traces == [3, 2, 1, 0]


# Callables other than functions.


class Model:
    def __init__(self, w, n=1):
        self.w = w
        self.n = n

    def method(self, x):
        Model.traces += 1
        return self.w * x + self.n

    def __call__(self, x):
        Model.traces += 1
        return self.w * x - self.n

    @classmethod
    def of_class(cls, x):
        cls.traces += 1
        return x * cls.factor

    @staticmethod
    def static(x):
        Model.traces += 1
        return x * 5

    traces = 0
    factor = 2


class SubModel(Model):
    traces = 0
    factor = 3


@pytest.fixture
def traces():
    """Count the traces of `Model` in a test."""
    Model.traces = 0
    for name in ("method", "static"):
        autojit.jit(getattr(Model, name)).clear_cache()
    autojit.jit(Model.of_class).clear_cache()

    def count():
        return Model.traces

    return count


def test_a_method_wrapped_anew_shares(x, traces):
    obj = Model(x)
    for _ in range(3):
        assert_array_equal(autojit.jit(obj.method)(x), x * x + 1)
    assert traces() == 1
    obj.w = x + 1
    assert_array_equal(autojit.jit(obj.method)(x), (x + 1) * x + 1)
    assert traces() == 1


def test_methods_of_two_instances_share(x, traces):
    """The instance is a part of the call tree."""
    one, two, other = Model(x), Model(x + 1), Model(x, n=2)
    for _ in range(2):
        assert_array_equal(autojit.jit(one.method)(x), x * x + 1)
        assert_array_equal(autojit.jit(two.method)(x), (x + 1) * x + 1)
        assert_array_equal(autojit.jit(other.method)(x), x * x + 2)
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
    assert traces() == 2 + 1
    assert SubModel.traces == 1
    SubModel.traces = 0


def test_a_method_and_its_function(x, traces):
    obj = Model(x)
    for _ in range(2):
        assert_array_equal(autojit.jit(obj.method)(x), x * x + 1)
        assert_array_equal(autojit.jit(Model.method)(obj, x), x * x + 1)
        assert_array_equal(autojit.jit(Model.method)(Model(x + 1), x), x * x + x + 1)
    before = traces()
    assert before <= 2
    autojit.jit(obj.method)(x)
    autojit.jit(Model.method)(obj, x)
    assert traces() == before


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


def test_callable_objects_that_are_only_equal_do_not_disturb_each_other(x, traces):
    for n in (1, 2, 1):
        assert_array_equal(autojit.jit(Model(x, n=n))(x), x * x - n)


class Wrapped(eqx.Module):
    w: jax.Array
    power: int = eqx.field(static=True, default=1)

    def method(self, x):
        TRACED.append(1)
        return self.w * x**self.power


TRACED = []


def traced(w, x):
    TRACED.append(1)
    return jnp.sum(w * x)


def make_of_equinox(i, x):
    return Wrapped(x + i).method, (x + i) * x


def make_gradient(i, x):
    return functools.partial(eqx.filter_grad(traced), x + i), x


def make_partial(i, x):
    return functools.partial(traced, x + i), jnp.sum((x + i) * x)


def make_callable(i, x):
    class_ = Calling
    return class_(x + i), (x + i) * x


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


@pytest.mark.parametrize(
    "make",
    [
        make_of_equinox,
        make_gradient,
        make_partial,
        make_callable,
        lambda i, x: (CallingBare(), 2 * x),
    ],
    ids=["equinox", "gradient", "partial", "object", "without state"],
)
def test_equal_callable_objects_made_anew_share(x, make):
    TRACED.clear()
    for i in range(4):
        fun, expected = make(i, x)
        assert_array_equal(autojit.jit(fun)(x), expected)
    assert len(TRACED) == 1
    fun, _ = make(5, x)
    assert autojit.jit(fun).cache_info().traces == 1
    assert autojit.jit(fun, inline=True).cache_info().traces == 0


def test_callable_objects_that_differ_do_not_share(x):
    TRACED.clear()
    for power in (11, 12, 11, 12):
        f = autojit.jit(Wrapped(x, power).method)
        assert_array_equal(f(x), x * x**power)
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


def test_the_last_tables_of_callable_objects_stay(x):
    TRACED.clear()
    for power in range(100):
        autojit.jit(Wrapped(x, power / 7).method)(x)
    for power in (99, 50, 40):
        autojit.jit(Wrapped(x, power / 7).method)(x)
    assert len(TRACED) == 100
    autojit.jit(Wrapped(x, 1 / 7).method)(x)
    assert len(TRACED) == 101


def test_one_partial_shares_with_itself(x):
    fun, traces = make_function()
    partial = functools.partial(fun, n=2)
    for _ in range(3):
        assert_array_equal(autojit.jit(partial)(x), x + 2)
    assert len(traces) == 1
    assert_array_equal(autojit.jit(functools.partial(fun, n=3))(x), x + 3)


@pytest.mark.parametrize(
    "fun",
    [jnp.sin, jax.numpy.add, divmod, abs, Plain, jax.jit(of_this_module)],
    ids=lambda fun: fun.__name__,
)
def test_any_callable_can_be_wrapped_twice(x, fun):
    args = (x + 1,) if fun not in (jax.numpy.add, divmod) else (x + 1, x + 2)
    kwargs = {}
    if fun is Plain:
        args, kwargs = (), {"a": x}
    expected = jax.tree.leaves(getattr(fun(*args, **kwargs), "a", fun(*args, **kwargs)))
    for _ in range(2):
        result = autojit.jit(fun)(*args, **kwargs)
        result = jax.tree.leaves(getattr(result, "a", result))
        for a, b in zip(result, expected, strict=True):
            assert_array_equal(a, b)


def test_a_method_of_something_that_is_no_function(x):
    box = Plain(n=2)
    method = types.MethodType(
        functools.partial(lambda k, self, x: x * self.n + k, 1), box
    )
    for n in (2, 3):
        box.n = n
        assert_array_equal(autojit.jit(method)(x), x * n + 1)


# The end of a function is the end of its table. Each of these makes a function, uses
# its dispatchers, and returns what has to be gone when nothing else refers to it.


def a_function(x):
    fun, _ = make_function()
    autojit.jit(fun)(x)
    return [fun]


def a_function_with_its_dispatcher(x):
    fun, _ = make_function()
    f = autojit.jit(fun)
    f(x)
    f(x, 2)
    return [fun, f]


def a_function_of_several_dispatchers(x):
    fun, _ = make_function()
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
    def fun(x):
        return x + 1

    fun.jitted = autojit.jit(fun)
    fun.jitted(x)
    return [fun, fun.jitted]


def a_function_that_is_its_own_argument(x):
    def fun(x, g):
        return x + 1

    f = autojit.jit(fun)
    f(x, fun)
    f(x, [fun, {"k": fun}])
    return [fun, f]


def a_dispatcher_that_is_its_own_argument(x):
    def fun(x, g):
        return x + 1

    f = autojit.jit(fun)
    f(x, f)
    f(x, Plain(f=[f]))
    return [fun, f]


def an_argument_that_closes_over_the_dispatcher(x):
    def fun(x, g):
        return g(x)

    f = autojit.jit(fun)
    g = lambda y: y + 1 if f else y  # noqa: E731
    f(x, g)
    f(x, lambda y: y + 2 if f else y)
    return [fun, f, g]


def an_opaque_argument_with_the_dispatcher(x):
    def fun(x, obj):
        return x + 1

    f = autojit.jit(fun)
    obj = Opaque()
    obj.f, obj.fun = f, fun
    f(x, obj)
    return [fun, f, obj]


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
    def fun(x):
        warnings.warn("careful", stacklevel=1)
        return x

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        autojit.jit(fun)(x)
        autojit.jit(fun)(x)
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


def a_local_class_whose_method_was_wrapped(x):
    class Local:
        def __init__(self, w):
            self.w = w

        def method(self, x):
            return self.w * x

    obj = Local(x)
    autojit.jit(obj.method)(x)
    return [Local, obj, Local.method]


def a_local_class_whose_function_was_wrapped(x):
    class Local:
        def __init__(self, w):
            self.w = w

        def method(self, x):
            return self.w * x

    obj = Local(x)
    autojit.jit(Local.method)(obj, x)
    return [Local, obj, Local.method]


def a_local_class_whose_instance_was_wrapped(x):
    class Local:
        def __init__(self, w):
            self.w = w

        def __call__(self, x):
            return self.w + x

    obj = Local(x)
    autojit.jit(obj)(x)
    return [Local, obj]


def a_local_class_that_was_wrapped(x):
    class Local:
        def __init__(self, w):
            self.w = w

    obj = autojit.jit(Local)(x)
    return [Local, obj]


def an_instance_that_holds_a_dispatcher_of_its_method(x):
    class Local:
        def __init__(self, w):
            self.w = w
            self.run = autojit.jit(self.method)

        def method(self, x):
            return self.w * x

    obj = Local(x)
    obj.run(x)
    return [Local, obj, Local.method]


NUMBERS = itertools.count()


def a_partial(x):
    fun, _ = make_function()
    partial = functools.partial(fun, n=next(NUMBERS))  # equal to no other
    autojit.jit(partial)(x)
    return [partial, fun]


def two_functions_that_have_each_other_as_arguments(x):
    def one(x, other):
        return x + 1

    def two(x, other):
        return x + 2

    f, g = autojit.jit(one), autojit.jit(two)
    f(x, two)
    f(x, g)
    g(x, one)
    g(x, f)
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
        a_dispatcher_that_is_its_own_argument,
        an_argument_that_closes_over_the_dispatcher,
        an_opaque_argument_with_the_dispatcher,
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


def wrapped_with(make_argument):
    """Return a function that wraps a new function and calls it with an argument."""

    def make(x):
        def fun(x, obj):
            return x + 1

        autojit.jit(fun)(x, make_argument(fun))
        return [fun]

    return make


def a_class_with(**attributes):
    return type("a_class_with.<locals>.Made", (), attributes)


@pytest.mark.parametrize(
    "make",
    [
        a_function_that_is_its_own_argument,
        wrapped_with(lambda fun: lambda: fun),
        wrapped_with(lambda fun: lambda fun=fun: fun),
        wrapped_with(lambda fun: functools.wraps(fun)(lambda: 1)),
        wrapped_with(lambda fun: a_class_with(functions=[fun])),
        wrapped_with(lambda fun: a_class_with(functions={"f": fun})()),
        wrapped_with(lambda fun: a_class_with(fun=staticmethod(fun))()),
        wrapped_with(lambda fun: with_attributes(Opaque(), fun=fun)),
        wrapped_with(lambda fun: autojit.jit(lambda: fun)),
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


def test_a_method_wrapped_again_finds_what_it_had(x):
    traces = []

    class Local:
        def __init__(self, w):
            self.w = w

        def method(self, x):
            traces.append(1)
            return self.w * x

    for i in range(5):
        obj = Local(x + i)
        assert_array_equal(autojit.jit(obj.method)(x), obj.w * x)
        assert_array_equal(autojit.jit(Local.method)(obj, x), obj.w * x)
        gc.collect()
    assert len(traces) <= 2  # two tables may be one


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
    autojit.jit(fun)(x)
    gc.collect()
    autojit.jit(fun)(x)
    assert len(traces) == 1
    gone = weakref.ref(fun)
    f = autojit.jit(fun)
    del fun
    gc.collect()
    assert gone() is not None
    f(x)
    assert len(traces) == 1
    del f
    gc.collect()
    assert gone() is None


def test_a_new_function_gets_no_table_of_one_that_is_gone(x):
    """Even if it is at the same address."""
    for n in range(50):
        fun = eval(f"lambda x: x + {n}")
        assert_array_equal(autojit.jit(fun)(x), x + n)
        del fun


# Warnings.


def caught(call, *args, action="always", **kwargs):
    """Return categories and texts of the warnings of a call, in order."""
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter(action)
        call(*args, **kwargs)
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
        for message in messages:
            warnings.warn(message, category, stacklevel=1)
        warnings.warn(f"{x.shape} {x.dtype} {n}", category, stacklevel=1)
        return x + n

    traces = []
    return fun, traces


def expected(*messages, category=UserWarning):
    return [(category, message) for message in messages]


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

    first = autojit.jit(fun)
    assert caught(first, x, False) == []
    assert caught(first, x, True) == expected("careful")
    second = autojit.jit(fun)
    assert caught(second, x, False) == []
    assert caught(second, x, True, action="always") == expected("careful")
    third = autojit.jit(fun)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        third(x, False)


def test_a_dispatcher_forgets_what_it_showed_long_ago(x, monkeypatch):
    monkeypatch.setattr(autojit._warnings, "_MOST_SEEN", 3)

    def fun(x, n):
        warnings.warn(f"careful {n}", stacklevel=1)
        return x

    f = autojit.jit(fun)
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

    first = autojit.jit(fun)
    assert caught(first, x) == []
    assert caught(first, x[:2]) == expected("two")
    second = autojit.jit(fun)
    assert caught(second, x) == []
    assert caught(second, x[:2]) == expected("two")
    assert caught(second, x) == []


def test_a_warning_of_which_nobody_heard_is_heard_later(x):
    fun, traces = make_warning("careful")
    assert caught(autojit.jit(fun), x, action="ignore") == []
    assert caught(autojit.jit(fun), x) == expected("careful", "(3,) float32 0")
    assert len(traces) == 1


def test_a_warning_that_is_ignored_counts_as_seen(x):
    fun, _ = make_warning()
    autojit.jit(fun)
    caught(autojit.jit(fun), x)
    other = autojit.jit(fun)
    assert caught(other, x, action="ignore") == []
    assert caught(other, x) == []


def test_an_error_filter_raises_each_time(x):
    fun, traces = make_warning("careful")
    first = autojit.jit(fun)
    for _ in range(2):  # no trace has worked yet
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(UserWarning, match="careful"):
                first(x)
    assert len(traces) == 2
    assert first.cache_info().currsize == 0
    caught(first, x)
    assert len(traces) == 3
    other = autojit.jit(fun)
    for _ in range(3):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(UserWarning, match="careful"):
                other(x)
            first(x)
    assert caught(other, x) == expected("careful", "(3,) float32 0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_array_equal(other(x), x)
    assert len(traces) == 3


def test_an_error_filter_for_another_category(x):
    fun, _ = make_warning("careful")
    caught(autojit.jit(fun), x)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        warnings.filterwarnings("error", category=DeprecationWarning)
        autojit.jit(fun)(x)
    assert len(shown) == 2


def test_an_error_filter_for_one_text(x):
    fun, traces = make_warning("careful", "more")
    caught(autojit.jit(fun), x)
    other = autojit.jit(fun)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message="more")
        for _ in range(2):
            with pytest.raises(UserWarning, match="more"):
                other(x)
    assert len(traces) == 1


@pytest.mark.parametrize(
    "category",
    [UserWarning, DeprecationWarning, RuntimeWarning, FutureWarning, CustomWarning],
)
def test_the_category_is_kept(x, category):
    fun, _ = make_warning("careful", category=category)
    for _ in range(2):
        shown = caught(autojit.jit(fun), x)
        assert shown == expected("careful", "(3,) float32 0", category=category)


def test_a_warning_with_arguments_of_its_own(x):
    def fun(x):
        warnings.warn(WarningWithArguments("careful", 7), stacklevel=1)
        return x

    for _ in range(2):
        ((category, text),) = caught(autojit.jit(fun), x)
        assert issubclass(category, WarningWithArguments)
        assert category.__name__ == "WarningWithArguments"
        assert text == "careful: 7"


def test_a_category_that_is_made_in_the_trace(x):
    def fun(x):
        class Local(UserWarning):
            pass

        warnings.warn("careful", Local, stacklevel=1)
        return x

    for _ in range(2):
        ((category, text),) = caught(autojit.jit(fun), x)
        assert issubclass(category, UserWarning)
        assert category.__name__ == "Local"
        assert text == "careful"


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


def test_warnings_of_a_function_that_is_called(x):
    def helper():
        warnings.warn("from the helper", CustomWarning, stacklevel=2)

    def fun(x):
        helper()
        return x

    for _ in range(2):
        assert caught(autojit.jit(fun), x) == [(CustomWarning, "from the helper")]


def test_a_generator_that_warns(x):
    def fun(x):
        warnings.warn("begun", stacklevel=1)
        yield x
        warnings.warn("ended", stacklevel=1)

    for _ in range(2):
        assert caught(autojit.jit(fun), x) == expected("begun", "ended")


def test_a_fresh_dispatcher_warns_after_the_first_is_gone(x):
    fun, traces = make_warning("careful")
    first = autojit.jit(fun)
    caught(first, x)
    gone = weakref.ref(first)
    del first
    gc.collect()
    assert gone() is None
    for _ in range(3):
        assert caught(autojit.jit(fun), x) == expected("careful", "(3,) float32 0")
        gc.collect()
    assert len(traces) == 1


def test_a_new_trace_warns_by_itself(x):
    fun, traces = make_warning("careful")
    f, g = autojit.jit(fun), autojit.jit(fun)
    once = expected("careful", "(3,) float32 0")
    assert caught(f, x) == once
    assert caught(g, x) == once
    f.clear_cache()
    assert caught(g, x) == once
    assert caught(g, x) == []
    assert caught(f, x) == once
    assert caught(f, x) == []
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
    once = expected("careful", "(3,) float32 0")
    for wrap in (autojit.jit, autojit.jax_autojit, autojit.jit(maxsize=2)):
        assert caught(wrap(fun), x) == once
        assert caught(wrap(fun), x) == once
    assert len(traces) == 3


def test_a_warning_that_the_function_catches_is_its_own_business(x):
    def fun(x):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.warn("ignored", stacklevel=1)
        with warnings.catch_warnings(record=True) as shown:
            warnings.simplefilter("always")
            warnings.warn("recorded", stacklevel=1)
        assert len(shown) == 1
        with pytest.warns(UserWarning, match="expected"):
            warnings.warn("expected", stacklevel=1)
        return x

    for _ in range(2):
        assert caught(autojit.jit(fun), x) == []


def test_a_warning_that_the_function_records_without_a_filter(x):
    def fun(x):
        with warnings.catch_warnings(record=True) as shown:
            warnings.warn("recorded", stacklevel=1)
        seen.append(len(shown))
        return x

    seen = []
    for _ in range(2):
        assert caught(autojit.jit(fun), x) == []
    assert seen == [1]


def test_a_function_that_handles_the_warning_as_an_error(x):
    """Under an error filter a trace sees the exception, as without autojit."""

    def fun(x):
        try:
            warnings.warn("slow", stacklevel=1)
        except UserWarning:
            return x * 0
        return x

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_array_equal(autojit.jit(fun)(x), x * 0)
    f = autojit.jit(fun)
    f.clear_cache()
    assert caught(f, x) == expected("slow")
    assert_array_equal(f(x), x)


def test_filters_are_as_they_were(x):
    fun, _ = make_warning("careful")
    failing = autojit.jit(lambda x: x + jnp.ones(7))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
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

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        before = list(warnings.filters)
        autojit.jit(fun)(x)
        assert warnings.filters[1:] == before
        assert warnings.filters[0][0] == "ignore"


def test_a_warning_is_shown_once_under_the_default_filter_of_python(x):
    fun, _ = make_warning("careful")
    plain, _ = make_warning("careful")
    counts = []
    for f in (autojit.jit(fun), jax.jit(plain)):
        with warnings.catch_warnings(record=True) as shown:
            warnings.simplefilter("default")
            f(x)
            f(x)
        counts.append(len(shown))
    assert counts[0] == counts[1]


def test_nested_dispatchers_each_replay_what_they_traced(x):
    fun, traces = make_warning("inner")

    def outer(x):
        return autojit.jit(fun)(x * 2)

    once = expected("inner", "(3,) float32 0")
    assert caught(autojit.jit(outer), x) == once
    assert caught(autojit.jit(outer), x) == once
    assert caught(autojit.jit(fun), x) == once
    assert len(traces) == 1


def test_a_warning_in_a_transformation(x):
    fun, _ = make_warning("careful")
    f = autojit.jit(fun)
    caught(f, x)
    other = autojit.jit(fun)
    shown = caught(jax.grad(lambda x: other(x).sum()), x)
    assert set(expected("careful", "(3,) float32 0")) <= set(shown)
    assert caught(jax.jit(lambda x: other(x) + 1), x) == []


def test_nothing_is_replayed_under_disable_jit(x):
    fun, _ = make_warning("careful")
    caught(autojit.jit(fun), x)
    other = autojit.jit(fun)
    once = expected("careful", "(3,) float32 0")
    with jax.disable_jit():
        assert caught(other, x) == once  # the function itself ran
        assert caught(other, x) == once
