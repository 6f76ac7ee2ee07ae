"""The object that `jit` returns: it behaves as the function it wraps does."""

import copy
import functools
import gc
import inspect
import itertools
import pickle
import typing
import weakref

import cloudpickle
import jax
import jax.numpy as jnp
import kinds
import numpy as np
import pytest
from graphs import equal_leaves, same_graph
from kinds import Matmul, Plain, add, double

import autojit


@autojit.jit
def decorated(x, n=2):
    """Multiply."""
    return x * n


@autojit.jit(maxsize=7, inline=True)
def decorated_with_options(x):
    return x + 1


# Making one.


def test_jit_is_a_decorator_with_and_without_arguments(x):
    @autojit.jit
    def f(x):
        return x + 1

    @autojit.jit()
    def g(x):
        return x + 1

    @autojit.jit(maxsize=3)
    def h(x):
        return x + 1

    i = autojit.jit(lambda x: x + 1, keep_unused=True)
    j = autojit.jax_autojit(lambda x: x + 1)
    for fun in (f, g, h, i, j):
        assert type(fun) is autojit.Dispatcher
        np.testing.assert_array_equal(fun(x), x + 1)


def test_jit_takes_the_function_by_position_only():
    with pytest.raises(TypeError):
        autojit.jit(fun=double)


def test_wrapping_does_not_call_the_function():
    def f():
        raise AssertionError("called")

    autojit.jit(f)
    autojit.jax_autojit(f)


# The attributes of a function.


def annotated(x: jax.Array, /, n: int = 3, *, flag: bool = False) -> jax.Array:
    """Do nothing."""
    return x


annotated.tag = ["an attribute"]


@pytest.mark.parametrize("wrap", [autojit.jit, autojit.jax_autojit])
def test_a_dispatcher_has_the_attributes_of_its_function(wrap):
    f = wrap(annotated)
    assert f.__name__ == "annotated"
    assert f.__qualname__ == "annotated"
    assert f.__doc__ == "Do nothing."
    assert f.__module__ == __name__
    assert f.__wrapped__ is annotated
    assert f.__annotations__ == annotated.__annotations__
    assert f.__signature__ == inspect.signature(annotated)
    assert inspect.signature(f) == inspect.signature(annotated)
    assert inspect.unwrap(f) is annotated
    assert inspect.getdoc(f) == "Do nothing."
    assert typing.get_type_hints(f) == typing.get_type_hints(annotated)
    assert f.tag is annotated.tag
    assert callable(f)


def test_the_qualname_of_a_method_names_its_class():
    class Model:
        @autojit.jit
        def step(self):
            """Step."""

    assert Model.step.__qualname__.endswith("Model.step")
    assert Model.step.__name__ == "step"


def test_a_function_without_docstring_has_none():
    assert autojit.jit(lambda x: x).__doc__ is None


def test_attributes_can_be_set_without_changing_the_function():
    def f():
        """Old."""

    f.old = 1
    g = autojit.jit(f)
    g.new = 2
    g.old = 3
    g.__name__ = "new_name"
    g.__doc__ = "New."
    assert (g.new, g.old, g.__name__, g.__doc__) == (2, 3, "new_name", "New.")
    assert (f.old, f.__name__, f.__doc__) == (1, "f", "Old.")
    assert not hasattr(f, "new")
    assert g.__dict__["new"] == 2
    del g.new
    assert not hasattr(g, "new")


def test_wraps_can_wrap_a_dispatcher():
    f = autojit.jit(annotated)

    @functools.wraps(f)
    def wrapper(*args, **kwargs):
        return f(*args, **kwargs)

    assert wrapper.__name__ == "annotated"
    assert wrapper.__wrapped__ is f
    assert inspect.signature(wrapper) == inspect.signature(annotated)


@pytest.mark.parametrize(
    "fun",
    [
        functools.partial(add, 1),
        Matmul(jnp.eye(2)),
        Plain(factor=2).scaled,
        len,
        jax.jit(double),
        jnp.sin,
        np.add,
        autojit.jit(double),
        dict,
    ],
    ids=lambda fun: type(fun).__name__,
)
def test_any_callable_can_be_wrapped(fun):
    f = autojit.jit(fun)
    assert f.__wrapped__ is fun
    assert f.__doc__ == getattr(fun, "__doc__", None)
    if hasattr(fun, "__name__"):
        assert f.__name__ == fun.__name__
    assert isinstance(repr(f), str)
    assert f == f


def test_the_repr_names_the_function():
    text = repr(autojit.jit(annotated))
    assert "annotated" in text
    assert "jit" in text.lower() or "dispatcher" in text.lower()
    assert "<lambda>" in repr(autojit.jit(lambda: 0))


def test_the_type_can_be_subscripted_in_an_annotation():
    alias = autojit.Dispatcher[[int], str]
    assert typing.get_origin(alias) is autojit.Dispatcher


def test_a_dispatcher_is_hashable_and_equal_to_itself_alone():
    f, g = autojit.jit(double), autojit.jit(double)
    assert hash(f) == hash(f)
    assert f == f
    assert f != g
    assert len({f, g, f}) == 2


# Life and death.


def test_a_dispatcher_can_be_weakly_referenced(x):
    f = autojit.jit(lambda x: x + 1)
    dead = []
    ref = weakref.ref(f, dead.append)
    assert ref() is f
    f(x)
    del f
    gc.collect()
    assert ref() is None
    assert dead == [ref]


def test_the_function_goes_when_the_dispatcher_goes(x):
    functions = [lambda x, k=k: x + k for k in range(5)]
    alive = weakref.WeakSet(functions)
    for f in functions:
        autojit.jit(f)(x)
    del functions, f
    gc.collect()
    assert len(alive) == 0


def through_an_instance(x, calls):
    class Model:
        def __init__(self):
            self.step = autojit.jit(self.run)

        def run(self, x):
            return x * 2

    model = Model()
    for _ in range(calls):
        # The bound method holds the model, which holds the dispatcher.
        model.step(x)
    return model.step


def through_its_dict(x):
    f = autojit.jit(lambda x: x + 1)
    f.me = [f]
    f(x)
    return f


def through_the_closure_of_its_function(x):
    f = autojit.jit(lambda n, x: x if n == 0 else f(n - 1, x * 2))
    np.testing.assert_array_equal(f(3, x), x * 8)
    return f


def through_a_static_of_a_skeleton(x):
    f = autojit.jit(lambda x, static: x + 1)
    for _ in range(2):
        f(x, static := lambda: f)
        f(x, static)
    return f


@pytest.mark.parametrize(
    "make",
    [
        *(functools.partial(through_an_instance, calls=calls) for calls in range(3)),
        through_its_dict,
        through_the_closure_of_its_function,
        through_a_static_of_a_skeleton,
    ],
)
def test_a_cycle_of_a_dispatcher_is_collected(x, make):
    gone = weakref.ref(make(x))
    gc.collect()
    assert gone() is None


def test_calls_leave_no_objects_behind(x, no_gc):
    f = autojit.jit(lambda tree: {"result": [tree["a"] + 1, Plain(b=tree["c"])]})

    def call():
        f({"a": x, "c": [1, 2, "three"]})

    for _ in range(3):
        call()
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(50):
        call()
    gc.collect()
    assert len(gc.get_objects()) - before < 25


# Methods.


class Base:
    def __init__(self, w):
        self.w = w

    @autojit.jit
    def method(self, x, n=1):
        """Multiply."""
        return self.w * x * n

    @staticmethod
    @autojit.jit
    def static(x, n=1):
        return x + n

    @classmethod
    @autojit.jit
    def cls_method(cls, x):
        return x * cls.factor, cls

    @property
    @autojit.jit
    def twice(self):
        return self.w * 2

    @autojit.jit(maxsize=2)
    def overridden(self, x):
        return self.w + x

    factor = 3


class Derived(Base):
    factor = 5

    @autojit.jit
    def overridden(self, x):
        return super().overridden(x) * 2


def test_a_dispatcher_binds_as_a_method(x):
    obj = Base(x)
    np.testing.assert_array_equal(obj.method(x), x * x)
    np.testing.assert_array_equal(obj.method(x, n=2), x * x * 2)
    np.testing.assert_array_equal(Base.method(obj, x), x * x)
    assert obj.method.__self__ is obj
    assert obj.method.__func__ is Base.method
    assert obj.method.__name__ == "method"
    assert obj.method.__doc__ == "Multiply."
    assert obj.method == obj.method
    assert Base.method is Base.__dict__["method"]
    assert list(inspect.signature(obj.method).parameters) == ["x", "n"]
    kept = Base(x).method
    np.testing.assert_array_equal(kept(x), x * x)


def test_the_instance_is_a_part_of_the_call_tree(x):
    class Model:
        def __init__(self, w):
            self.w = w

        @autojit.jit
        def run(self, x):
            self.w = self.w + 1
            return self.w * x

    one, two = Model(x), Model(x * 5)
    np.testing.assert_array_equal(one.run(x), (x + 1) * x)
    np.testing.assert_array_equal(two.run(x), (x * 5 + 1) * x)
    one.w = x * 7
    np.testing.assert_array_equal(one.run(x), (x * 7 + 1) * x)
    np.testing.assert_array_equal(one.w, x * 7)
    assert Model.run.cache_info().traces == 1


def test_a_dispatcher_works_under_other_descriptors(x):
    np.testing.assert_array_equal(Base.static(x), x + 1)
    np.testing.assert_array_equal(Base(x).static(x, n=3), x + 3)
    np.testing.assert_array_equal(Base(x).twice, x * 2)
    for cls in (Base, Derived):
        for owner in (cls, cls(x)):
            result, seen = owner.cls_method(x)
            np.testing.assert_array_equal(result, x * cls.factor)
            assert seen is cls


def test_a_dispatcher_works_in_a_subclass(x):
    obj = Derived(x)
    np.testing.assert_array_equal(obj.method(x), x * x)
    np.testing.assert_array_equal(obj.overridden(x), (x + x) * 2)
    np.testing.assert_array_equal(Base.overridden(obj, x), x + x)
    base, derived = Base.method.cache_info().currsize, obj.method(x, n=77)
    Base(x).method(x, n=77)
    assert Base.method.cache_info().currsize == base + 2
    np.testing.assert_array_equal(derived, x * x * 77)


def test_an_attribute_of_an_instance_does_not_bind(x):
    obj = Base(x)
    obj.unbound = autojit.jit(double)
    np.testing.assert_array_equal(obj.unbound(x), x * 2)


# Copies and pickles.


def through(pickler, protocol):
    return lambda obj: pickle.loads(pickler.dumps(obj, protocol=protocol))


COPIERS = {"copy": copy.copy, "deepcopy": copy.deepcopy}
for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
    for pickler in (pickle, cloudpickle):
        COPIERS[f"{pickler.__name__} {protocol}"] = through(pickler, protocol)


@pytest.mark.parametrize("copier", COPIERS.values(), ids=COPIERS)
@pytest.mark.parametrize(
    "f",
    [
        autojit.jit(double, maxsize=5),
        autojit.jax_autojit(double),
        decorated,
        decorated_with_options,
    ],
    ids=["of a named function", "drop-in", "decorated", "decorated with options"],
)
def test_a_dispatcher_can_be_copied_and_pickled(x, f, copier):
    f.note = "kept"
    f(x)
    g = copier(f)
    assert type(g) is autojit.Dispatcher
    assert g.note == "kept"
    assert g.__wrapped__ is f.__wrapped__
    assert g.__name__ == f.__name__
    assert g.cache_info().maxsize == f.cache_info().maxsize
    np.testing.assert_array_equal(g(x), f(x))
    np.testing.assert_array_equal(copier(Plain(f=f)).f(x), f(x))


@pytest.mark.parametrize("name", [name for name in COPIERS if name[:6] != "pickle"])
def test_a_dispatcher_of_a_lambda_can_be_copied_and_pickled_with_cloudpickle(x, name):
    n = 3
    g = COPIERS[name](autojit.jit(lambda x: x + n, maxsize=5))
    assert type(g) is autojit.Dispatcher
    assert g.__name__ == "<lambda>"
    assert g.cache_info().maxsize == 5
    np.testing.assert_array_equal(g(x), x + 3)


def test_pickle_of_a_lambda_fails_as_it_does_for_the_lambda():
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(autojit.jit(lambda x: x))


# The cache.


def test_cache_info_counts_as_functools_does(x):
    f = autojit.jit(lambda x, n: x + n)
    info = f.cache_info()
    assert info[:5] == (0, 0, 0, 0, 4096)
    assert info._fields[:5] == ("hits", "misses", "traces", "currsize", "maxsize")
    assert info._fields[5:] == ("currbytes", "maxbytes")
    assert type(info).__name__ == "CacheInfo"
    f(x, 1)
    assert f.cache_info()[:5] == (0, 1, 1, 1, 4096)
    f(x, 1)
    assert f.cache_info()[:5] == (1, 1, 1, 1, 4096)
    f(x, 2)
    assert f.cache_info()[:5] == (1, 2, 2, 2, 4096)
    f(jnp.ones(5), 2)
    assert f.cache_info()[:5] == (2, 2, 3, 2, 4096)


def test_clear_cache_forgets_the_specializations(x):
    traces = []

    @autojit.jit
    def f(x, n):
        traces.append(n)
        return x + n

    f(x, 1)
    f(x, 2)
    assert f.clear_cache() is None
    assert f.cache_info().currsize == 0
    np.testing.assert_array_equal(f(x, 1), x + 1)
    assert traces == [1, 2, 1]
    assert f.cache_info().currsize == 1


@pytest.mark.parametrize(
    "let_go",
    [lambda f, x: f.clear_cache(), lambda f, x: [f(x, None), f(x, None)]],
    ids=["cleared", "evicted"],
)
def test_a_specialization_that_goes_frees_what_it_held(x, let_go):
    f = autojit.jit(lambda x, obj: x + 1, maxsize=1)
    obj = kinds.Opaque()
    gone = weakref.ref(obj)
    f(x, obj)
    del obj
    let_go(f, x)
    gc.collect()
    assert gone() is None


def test_clear_cache_inside_of_a_trace(x):
    @autojit.jit
    def f(x, n):
        f.clear_cache()
        return x + n

    for n in (1, 2, 1):
        np.testing.assert_array_equal(f(x, n), x + n)
    assert f.cache_info().currsize <= 1


@pytest.mark.parametrize(
    ("maxsize", "calls", "traced"),
    [
        (1, [1, 1, 2, 2, 1], [1, 2, 1]),
        (2, [1, 2, 1, 3, 1, 3, 2, 3, 1], [1, 2, 3, 2, 1]),
        (None, [*range(30)], [*range(30)]),
    ],
    ids=["1", "2", "None"],
)
def test_the_least_recently_used_specialization_goes(maxsize, calls, traced):
    traces = []

    @autojit.jit(maxsize=maxsize)
    def f(n):
        traces.append(n)
        return n

    assert [f(n) for n in calls] == calls
    assert traces == traced
    hits, misses = len(calls) - len(traced), len(traced)
    size = min(len(set(calls)), maxsize or len(calls))
    assert f.cache_info()[:5] == (hits, misses, misses, size, maxsize)


@pytest.mark.parametrize("maxsize", [-1, "many", 1.5], ids=repr)
def test_a_bad_maxsize_is_refused(maxsize):
    with pytest.raises((ValueError, TypeError), match="maxsize"):
        autojit.jit(double, maxsize=maxsize)


def test_eviction_in_a_recursive_call(x):
    @autojit.jit(maxsize=1)
    def f(n, x):
        return x if n == 0 else f(n - 1, x + 1) + f(0, x)

    np.testing.assert_array_equal(f(3, jnp.zeros(())), 3 + 0 + 1 + 2)
    assert f.cache_info().currsize == 1


# Options.


def equations(fun, *args):
    return jax.make_jaxpr(fun)(*args).eqns


@pytest.mark.parametrize("inline", [False, True])
def test_inline_is_passed_to_jax(x, inline):
    def primitives(jit):
        f = jit(lambda x: x + 1, inline=inline)
        eqns = equations(lambda x: f(x) * 2, x)
        return [(e.primitive.name, e.params.get("inline")) for e in eqns]

    assert primitives(autojit.jit) == primitives(jax.jit)


@pytest.mark.parametrize("keep_unused", [False, True])
def test_keep_unused_is_passed_to_jax(x, keep_unused):
    f = autojit.jit(lambda x, y: x + 1, keep_unused=keep_unused)
    (eqn,) = equations(f, x, x)
    assert eqn.params["keep_unused"] is keep_unused
    np.testing.assert_array_equal(f(x, x), x + 1)


def test_compiler_options_are_passed_to_jax(x):
    good = autojit.jit(double, compiler_options={"xla_cpu_enable_fast_math": True})
    np.testing.assert_array_equal(good(x), x * 2)

    bad = {"no_such_option_of_xla": True}
    # Which exception that is, is the business of JAX: ours has to be the same.
    with pytest.raises(Exception) as expected:  # noqa: PT011
        jax.jit(double, compiler_options=bad)(x)
    with pytest.raises(expected.type, match="no_such_option_of_xla"):
        autojit.jit(double, compiler_options=bad)(x)


def test_compiler_options_are_copied(x):
    options = {"xla_cpu_enable_fast_math": True}
    f = autojit.jit(double, compiler_options=options)
    options["no_such_option_of_xla"] = True
    np.testing.assert_array_equal(f(x), x * 2)


# Arguments.


def test_the_order_of_keywords_does_not_matter_to_named_parameters(x):
    f = autojit.jit(lambda *, x, a, b: x * a - b)
    for given in ({"x": x, "a": 2.0, "b": x + 1}, {"x": x, "a": x + 3, "b": x + 1}):
        for order in itertools.permutations(given):
            result = f(**{name: given[name] for name in order})
            np.testing.assert_array_equal(result, x * given["a"] - given["b"])
    assert f.cache_info().traces == 2


def test_the_order_of_keywords_matters_to_kwargs(x):
    @autojit.jit
    def f(**kwargs):
        return list(kwargs), list(kwargs.values())

    for _ in range(2):
        assert f(a=1, b=x)[0] == ["a", "b"]
        assert f(b=x, a=1)[0] == ["b", "a"]
    assert f.cache_info().traces == 2


def test_an_argument_by_position_and_by_keyword_gives_the_same_result(x):
    f = autojit.jit(lambda x, n: x * n)
    for _ in range(2):
        np.testing.assert_array_equal(f(x, 3), x * 3)
        np.testing.assert_array_equal(f(x, n=3), x * 3)
        np.testing.assert_array_equal(f(n=3, x=x), x * 3)


def test_defaults_are_filled_in_by_the_function(x):
    f = autojit.jit(lambda x, items=None, n=4: (x + n, items, n))
    for result, n in ((f(x), 4), (f(x, n=5), 5)):
        np.testing.assert_array_equal(result[0], x + n)
        assert result[1:] == (None, n)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 40, 300])
def test_any_number_of_arguments(count):
    arrays = [jnp.full((), i) for i in range(count)]
    names = [f"name{i}" for i in range(count)]
    f = autojit.jit(lambda *args, **kwargs: (list(args), kwargs))
    for _ in range(2):
        args, kwargs = f(*arrays, **dict(zip(names, arrays, strict=True)))
        assert same_graph(args, arrays, equal_leaves)
        assert list(kwargs) == names
        assert same_graph(list(kwargs.values()), arrays, equal_leaves)


def test_keywords_that_are_no_identifiers(x):
    f = autojit.jit(lambda **kwargs: kwargs)
    names = ["a b", "", "self", "fun"]
    for _ in range(2):
        assert list(f(**dict.fromkeys(names, x))) == names


# A callable object is a part of the call tree.


def test_arrays_of_a_wrapped_bound_method_are_leaves(x):
    obj = Matmul(jnp.eye(3))
    f = autojit.jit(obj.method)
    np.testing.assert_array_equal(f(x), x)
    obj.matrix = jnp.eye(3) * 2
    np.testing.assert_array_equal(f(x), x * 2)
    assert f.cache_info().traces == 1


def test_statics_of_a_wrapped_callable_select_the_specialization(x):
    obj = Matmul(jnp.eye(3) * 2, power=1)
    f = autojit.jit(obj)
    np.testing.assert_array_equal(f(x), x * 2)
    obj.power = 3
    np.testing.assert_array_equal(f(x), x * 8)
    obj.power = 1
    obj.matrix = jnp.eye(3) * 3
    np.testing.assert_array_equal(f(x), x * 3)
    assert f.cache_info().traces == 2


def test_arrays_of_a_wrapped_partial_are_leaves(x):
    box = [x]
    f = autojit.jit(functools.partial(lambda box, y: box[0] + y, box))
    np.testing.assert_array_equal(f(x), x + x)
    box[0] = x + 1
    np.testing.assert_array_equal(f(x), x + x + 1)
    assert f.cache_info().traces == 1
    box.append("static")
    f(x)
    assert f.cache_info().traces == 2


def test_a_wrapped_callable_that_is_also_an_argument_is_one_object(x):
    class Model:
        def __init__(self, w):
            self.w = w

        def __call__(self, other, x):
            return self.w * x, self is other

    model = Model(x)
    f = autojit.jit(model)
    assert f(model, x)[1] is True
    assert f(Model(x), x)[1] is False


def test_a_wrapped_callable_is_not_changed_by_the_call(x):
    class Counter:
        count = 0

        def __call__(self, x):
            self.count += 1
            return x + self.count

    counter = Counter()
    f = autojit.jit(counter)
    np.testing.assert_array_equal(f(x), x + 1)
    np.testing.assert_array_equal(f(x), x + 1)
    assert counter.count == 0


def test_wrapping_a_class_makes_instances(x):
    class Made:
        def __init__(self, x, n):
            self.x = x * n

    result = autojit.jit(Made)(x, 2)
    assert type(result) is Made
    np.testing.assert_array_equal(result.x, x * 2)


CALLS = {
    "names of keywords": (lambda f: f(a=1), lambda f: f(b=1)),
    "last name of a keyword": (lambda f: f(a=1, b=2), lambda f: f(a=1, c=2)),
    "value of a keyword": (lambda f: f(a=1), lambda f: f(a=2)),
    "position or keyword": (lambda f: f(1), lambda f: f(obj=1)),
}


@pytest.mark.parametrize(("one", "two"), CALLS.values(), ids=CALLS)
def test_calls_that_differ_in_their_keywords(one, two):
    traces = []

    @autojit.jit
    def f(obj=None, **keywords):
        traces.append(1)
        return len(traces)

    for _ in range(2):
        assert [call(f) for call in (one, two, two)] == [1, 2, 2]


def test_a_specialization_that_has_worked_outlives_a_call_that_fails(x):
    f = autojit.jit(lambda x, n: x + jnp.zeros(3) * n)
    f(x, 1)
    f(x, 2)
    with pytest.raises(TypeError):
        f(jnp.ones(2), 1)
    assert f.cache_info().currsize == 2
