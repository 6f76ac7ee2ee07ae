"""What one wrapper has traced, another takes if its own trace would be the same."""

import colorsys
import gc
import importlib
import itertools
import operator
import os
import sys
import warnings
import weakref

import jax
import jax.numpy as jnp
import pytest
from array_api_extra._lib._helpers import jax_autojit as reference
from notes import Notes

import autojit

NUMBER = itertools.count()
MODULE = """
import collections
import contextlib
import enum
import functools
import os
from os import getenv as get_variable

import jax

from isolated_other_{number} import *
import isolated_other_{number} as other

EPS = 1
TABLE = {{"a": [1]}}
ORDERED = collections.OrderedDict(a=1)
HIDDEN = None

class Base:
    offset = 0

class Scale(Base):
    factor = 2
    def __init__(self, n=1):
        self.n = n
    def apply(self, x):
        return x * self.factor * self.n + self.offset
    def __call__(self, x):
        return self.apply(x)
    @classmethod
    def of_class(cls, x):
        return x * cls.factor
    @staticmethod
    def static(x):
        return x * EPS
    @property
    def prop(self):
        return self.n

ONE = Scale()

class Slotted:
    __slots__ = ("n",)

SLOTTED = Slotted()
SLOTTED.n = 1

class Reduces:
    def __init__(self):
        self.n = 1
    def __reduce__(self):
        raise AssertionError("nobody is to ask")

REDUCES = Reduces()

def helper(x):
    return x + 1

def of_global(x):
    return x + EPS

def of_helper(x):
    return helper(x)

def of_unused_helper(x):
    return x if helper is None else x + 1

def of_other(x):
    return x + other.K

def of_other_function(x):
    return other.shifted(x)

def of_star(x):
    return shifted(x)

def of_passed_module(x):
    def inner(module):
        return x + module.K
    return inner(other)

def of_computed_name(x):
    return x + getattr(other, "".join(["K"]))

def of_import(x):
    from isolated_other_{number} import K
    return x + K

def of_table(x):
    return x + TABLE["a"][0]

def of_ordered(x):
    return x + ORDERED["a"]

def of_instance(x):
    return ONE.apply(x)

def of_called_instance(x):
    return ONE(x)

def of_slots(x):
    return x + SLOTTED.n

def of_reduction(x):
    return x + REDUCES.n

def of_class_method(x):
    return Scale.of_class(x)

def of_static_method(x):
    return Scale.static(x)

def of_property(x):
    return x + ONE.prop

def of_method_of_argument(x, scale):
    return scale.apply(x)

def of_class_argument(x, cls):
    return x * cls.factor

def of_function_argument(x, fun):
    return fun(x)

def of_environment(x):
    return x + int(os.environ.get("ISOLATED", "1"))

def of_getenv(x):
    return x + int(os.getenv("ISOLATED", "1"))

def of_globals(x):
    return x + globals()["EPS"]

def of_eval(x):
    return x + eval("EPS")

def of_default(x, by=[1]):
    return x + by[0]

def of_keyword_default(x, *, by=1):
    return x + by

def make():
    n = 1
    def inner(x):
        return x + n
    def set_n(value):
        nonlocal n
        n = value
    return inner, set_n

inner, set_n = make()

def of_cell(x):
    return inner(x)

def of_recursion(x, n=2):
    return x if n == 0 else of_recursion(x + EPS, n - 1)

@functools.lru_cache
def cached():
    return 1

def of_partial(x):
    return functools.partial(helper)(x)

def decorated(fun):
    @functools.wraps(fun)
    def wrapper(x):
        return fun(x) * EPS
    return wrapper

@decorated
def of_decorator(x):
    return helper(x)

def of_generator(x):
    return sum(y + EPS for y in [x])

def of_builtin(x):
    return x + len([1])

def of_hasattr(x):
    return x + (5 if hasattr(other, "LATER") else 1)

class Config(dict):
    def __getattr__(self, name):
        return self[name]

CONFIG = Config(k=1)

def of_config(x):
    return x + CONFIG.k

class Plain:
    n = 1
    table = {{"a": 1}}
    unused = 1
    __special__ = {{"a": 1}}

class Derived(Plain):
    unused = 1

def of_new_instance(x):
    return x + Derived().n

def of_special(x):
    return x + Plain.__special__["a"]

def of_derived(x):
    return x + Derived.n

class Color(enum.Enum):
    RED = 1
    def offset(self):
        return EPS

def of_member(x, color):
    return x + color.offset()

@jax.custom_jvp
def custom(x):
    return x + EPS

custom.defjvp(lambda primals, tangents: (custom(*primals), tangents[0]))

def of_custom(x, fun):
    return fun(x)

def of_rule(x):
    return jax.grad(custom)(x)

def of_get_variable(x):
    return x + int(get_variable("ISOLATED", "1"))

def of_nothing(x):
    return x + 1
"""
OTHER = """
K = 1
def shifted(x):
    return x + K
"""


@pytest.fixture
def mod(tmp_path, monkeypatch):
    """Return a user's module, freshly imported."""
    number = next(NUMBER)
    (tmp_path / f"isolated_{number}.py").write_text(MODULE.format(number=number))
    (tmp_path / f"isolated_other_{number}.py").write_text(OTHER)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module(f"isolated_{number}")
    yield module
    for name in (f"isolated_{number}", f"isolated_other_{number}"):
        del sys.modules[name]


def negated(*args):
    return -args[-1]


# The function, its arguments, and what changes.
CHANGES = {
    "a global": ("of_global", (), lambda m: setattr(m, "EPS", 100)),
    "a helper": ("of_helper", (), lambda m: setattr(m, "helper", negated)),
    "a helper that is only compared": (
        "of_unused_helper", (), lambda m: setattr(m, "helper", None)),
    "the code of a helper": (
        "of_helper", (), lambda m: setattr(m.helper, "__code__", negated.__code__)),
    "another module": ("of_other", (), lambda m: setattr(m.other, "K", 5)),
    "what another module's function reads": (
        "of_other_function", (), lambda m: setattr(m.other, "K", 5)),
    "the same, imported by a star": (
        "of_star", (), lambda m: setattr(m.other, "K", 5)),
    "a module that is passed on": (
        "of_passed_module", (), lambda m: setattr(m.other, "K", 5)),
    "a name that is computed": (
        "of_computed_name", (), lambda m: setattr(m.other, "K", 5)),
    "an import inside": ("of_import", (), lambda m: setattr(m.other, "K", 5)),
    "an item of a dict": (
        "of_table", (), lambda m: m.TABLE["a"].__setitem__(0, 7)),
    "an item of an ordered dict": (
        "of_ordered", (), lambda m: m.ORDERED.__setitem__("a", 7)),
    "an attribute of an instance": (
        "of_instance", (), lambda m: setattr(m.ONE, "n", 9)),
    "a slot": ("of_slots", (), lambda m: setattr(m.SLOTTED, "n", 9)),
    "an instance that reduces in a way of its own": (
        "of_reduction", (), lambda m: setattr(m.REDUCES, "n", 9)),
    "a method": ("of_instance", (), lambda m: setattr(m.Scale, "apply", negated)),
    "a method that another one calls": (
        "of_called_instance", (), lambda m: setattr(m.Scale, "apply", negated)),
    "a call": (
        "of_called_instance", (), lambda m: setattr(m.Scale, "__call__", negated)),
    "a class attribute": ("of_instance", (), lambda m: setattr(m.Scale, "factor", 9)),
    "an attribute of a base class": (
        "of_instance", (), lambda m: setattr(m.Base, "offset", 9)),
    "what a class method reads": (
        "of_class_method", (), lambda m: setattr(m.Scale, "factor", 9)),
    "what a static method reads": (
        "of_static_method", (), lambda m: setattr(m, "EPS", 9)),
    "a property": (
        "of_property", (), lambda m: setattr(m.Scale, "prop", property(lambda s: 7))),
    "the class of an argument": (
        "of_method_of_argument", ("ONE",), lambda m: setattr(m.Scale, "factor", 9)),
    "a class in the arguments": (
        "of_class_argument", ("Scale",), lambda m: setattr(m.Scale, "factor", 9)),
    "what a function in the arguments reads": (
        "of_function_argument", ("of_global",), lambda m: setattr(m, "EPS", 9)),
    "os.environ": (
        "of_environment", (), lambda m: os.environ.__setitem__("ISOLATED", "5")),
    "os.getenv": ("of_getenv", (), lambda m: os.environ.__setitem__("ISOLATED", "5")),
    "globals()": ("of_globals", (), lambda m: setattr(m, "EPS", 9)),
    "eval": ("of_eval", (), lambda m: setattr(m, "EPS", 9)),
    "what a default holds": (
        "of_default", (), lambda m: m.of_default.__defaults__[0].__setitem__(0, 9)),
    "a default": (
        "of_default", (), lambda m: setattr(m.of_default, "__defaults__", ([9],))),
    "a default of a keyword": (
        "of_keyword_default", (),
        lambda m: m.of_keyword_default.__kwdefaults__.__setitem__("by", 9)),
    "the code": (
        "of_global", (), lambda m: setattr(m.of_global, "__code__", negated.__code__)),
    "a variable of a closure": ("of_cell", (), lambda m: m.set_n(9)),
    "what a recursion reads": ("of_recursion", (), lambda m: setattr(m, "EPS", 9)),
    "what a partial calls": ("of_partial", (), lambda m: setattr(m, "helper", negated)),
    "what a decorator reads": ("of_decorator", (), lambda m: setattr(m, "EPS", 9)),
    "what is decorated": ("of_decorator", (), lambda m: setattr(m, "helper", negated)),
    "what a generator reads": ("of_generator", (), lambda m: setattr(m, "EPS", 9)),
    "a builtin that is hidden": (
        "of_builtin", (), lambda m: setattr(m, "len", lambda s: 9)),
    "a subclass of dict": ("of_config", (), lambda m: m.CONFIG.update(k=9)),
    "a special method that was not there": (
        "of_new_instance", (),
        lambda m: setattr(m.Derived, "__init__", lambda self: setattr(self, "n", 9))),
    "what has a special name": (
        "of_special", (), lambda m: m.Plain.__special__.update(a=9)),
    "a class attribute in place of another": (
        "of_derived", (),
        lambda m: (delattr(m.Derived, "unused"), setattr(m.Derived, "n", 9))),
    "what the method of an enum member reads": (
        "of_member", ("Color.RED",), lambda m: setattr(m, "EPS", 9)),
    "what a custom_jvp in the arguments reads": (
        "of_custom", ("custom",), lambda m: setattr(m, "EPS", 9)),
    "the rule of a custom_jvp": (
        "of_rule", (),
        lambda m: m.custom.defjvp(lambda x, t: (m.custom(*x), 7.0 * t[0]))),
    "getenv under another name": (
        "of_get_variable", (), lambda m: os.environ.__setitem__("ISOLATED", "5")),
    "an attribute that was not there": (
        "of_hasattr", (), lambda m: setattr(m.other, "LATER", 1)),
}  # fmt: skip


@pytest.fixture(params=[autojit.jit, autojit.jax_autojit], ids=["jit", "jax_autojit"])
def wrap(request):
    return request.param


@pytest.fixture
def environment(monkeypatch):
    monkeypatch.setenv("ISOLATED", "1")


@pytest.mark.parametrize("what", CHANGES)
def test_what_a_function_reads_is_never_stale(mod, wrap, environment, what):
    name, arguments, change = CHANGES[what]
    fun = getattr(mod, name)
    x = jnp.asarray(3.0)
    arguments = [operator.attrgetter(one)(mod) for one in arguments]
    first = wrap(fun)
    before = first(x, *arguments)
    assert before == fun(x, *arguments)
    for _ in range(2):
        assert wrap(fun)(x, *arguments) == before
    assert first.cache_info().traces == 1
    change(mod)
    expected = fun(x, *arguments)
    assert expected != before
    second = wrap(fun)
    assert second(x, *arguments) == expected
    assert second(x, *arguments) == reference(fun)(x, *arguments)
    for _ in range(2):
        assert wrap(fun)(x, *arguments) == expected
    assert first.cache_info().traces == 2


class Name(str):
    """A name that is no plain str."""


def test_a_name_that_is_no_plain_str(mod, wrap):
    other = vars(mod.other)
    other[Name("K")] = other.pop("K")
    x = jnp.asarray(3.0)
    before = wrap(mod.of_passed_module)(x)
    assert wrap(mod.of_passed_module)(x) == before
    other["K"] += 10
    assert wrap(mod.of_passed_module)(x) == before + 10


@pytest.mark.parametrize("number", [1, 5])
def test_what_is_changed_back_is_taken_again(mod, wrap, number):
    x = jnp.asarray(3.0)
    f = wrap(mod.of_global)
    for _ in range(3):
        for value in range(number):
            mod.EPS = value
            assert wrap(mod.of_global)(x) == 3 + value
    assert f.cache_info().traces == number


def test_a_wrapper_keeps_what_it_has_traced(mod, wrap):
    """As under ``jax.jit``; it alone knows what it has served."""
    x = jnp.asarray(3.0)
    first = wrap(mod.of_global)
    assert first(x) == 4
    mod.EPS = 100
    assert first(x) == 4
    second = wrap(mod.of_global)
    assert second(x) == 103
    assert first(x) == 4
    assert second(x) == 103
    # What it traces by now, it has from what there is now.
    assert first(x[None]) == 103
    assert second(x[None]) == 103
    assert first(x) == 4


def test_what_was_traced_after_a_change_is_one_wrappers_alone(mod, wrap):
    x = jnp.asarray(3.0)
    first, second = wrap(mod.of_global), wrap(mod.of_global)
    assert first(x) == second(x) == 4
    mod.EPS = 100
    assert first(x[None]) == 103
    mod.EPS = 1000
    assert second(x[None]) == 1003
    assert first(x[None]) == 103
    assert wrap(mod.of_global)(x[None]) == 1003
    mod.EPS = 1
    assert wrap(mod.of_global)(x) == 4


def test_what_nobody_reads_makes_no_difference(mod, wrap):
    x = jnp.asarray(3.0)
    f = wrap(mod.of_nothing)
    f(x)
    mod.EPS, mod.HIDDEN, mod.helper = 7, 8, None
    mod.other.K = 9
    wrap(mod.of_nothing)(x)
    assert f.cache_info().traces == 1


def test_a_function_that_changes_what_it_reads(mod, wrap):
    """Each wrapper traces it, as with the reference; few of the traces are kept."""
    x = jnp.asarray(3.0)
    seen = []

    def fun(x):
        seen.append(1)
        return x + len(seen)

    f = wrap(fun)
    for i in range(30):
        assert wrap(fun)(x) == 4 + i
    assert len(seen) == 30
    assert f.cache_info().currsize <= 8


def test_a_trace_with_side_effects_is_not_shared(mod, wrap, monkeypatch):
    """A test that asks whether a spy was called gets to know."""
    x = jnp.asarray(3.0)

    class Spy:
        def __init__(self):
            self.number = 0

        def __call__(self, x):
            self.number += 1
            return x + 1

    for _ in range(3):
        calls = []

        def spy(x, calls=calls):
            calls.append(1)
            return x + 1

        monkeypatch.setattr(mod, "helper", spy)
        wrap(mod.of_helper)(x)
        assert calls == [1]
        monkeypatch.setattr(mod, "helper", Spy())
        wrap(mod.of_helper)(x)
        assert mod.helper.number == 1
        mod.TABLE["seen"] = 0

        def counting(x):
            mod.TABLE["seen"] += 1
            return x

        wrap(counting)(x)
        assert mod.TABLE["seen"] == 1


@pytest.mark.filterwarnings("error")
def test_an_iterator_that_is_read(wrap):
    """CPython warns if one of itertools is pickled; nobody has asked for that."""
    numbers = itertools.count()
    for i in range(3):
        assert wrap(lambda x: x + next(numbers))(jnp.asarray(3.0)) == 3 + i

    def fun(x):
        return x + next(numbers)

    for i in range(3, 6):
        assert wrap(fun)(jnp.asarray(3.0)) == 3 + i


def test_a_memo_settles(mod, wrap):
    memo, traces = {}, Notes()

    def fun(x):
        traces.append(1)
        return x + memo.setdefault("n", 1)

    for _ in range(5):
        assert wrap(fun)(jnp.asarray(3.0)) == 4
    assert len(traces) == 2


def test_share(mod):
    """The option bounds who takes what another wrapper has traced."""
    x = jnp.asarray(3.0)
    traces = []
    for share in (True, "a", "b", ("a",), False, False, True, "a", None, 1):
        f = autojit.jit(mod.of_nothing, share=share)
        f(x)
        traces.append(f.cache_info().traces)
    assert traces == [1] * 10
    assert autojit.jit(mod.of_nothing).cache_info().misses == 1
    assert autojit.jit(mod.of_nothing, share="a").cache_info().hits == 1
    assert autojit.jit(mod.of_nothing, share=False).cache_info().misses == 0
    scale = mod.Scale()
    autojit.jit(scale, share=False)(x)
    assert autojit.jit(scale, share=False).cache_info().misses == 0
    with pytest.raises(TypeError, match="share must be"):
        autojit.jit(mod.of_nothing, share=[])


def test_what_is_not_shared_is_not_kept():
    class Local:
        pass

    def fun(x, kind=Local):
        return x if isinstance(x, kind) else x + 1

    for _ in range(3):
        autojit.jit(fun, share=False)(jnp.ones(2))
    gone = weakref.ref(Local)
    del fun, Local
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    ("name", "values", "fun"),
    [
        (
            "jax_enable_x64",
            (False, True),
            lambda x: jnp.asarray(0.1).dtype.itemsize + x,
        ),
        (
            "jax_default_prng_impl",
            ("threefry2x32", "rbg"),
            lambda x: jax.random.key_data(jax.random.key(0)).size + x,
        ),
        (
            "jax_numpy_dtype_promotion",
            ("standard", "strict"),
            lambda x: (jnp.ones(2, "int8") + jnp.ones(2, "float32")).sum() + x,
        ),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_settings_of_jax(wrap, name, values, fun):
    x = jnp.asarray(1.0)
    before = getattr(jax.config, name)
    try:
        for value in (*values, *values):
            jax.config.update(name, value)
            results = []
            for jitted in (wrap(fun), reference(fun)):
                try:
                    results.append(float(jitted(x)))
                except Exception as error:
                    results.append(type(error))
            assert results[0] == results[1]
    finally:
        jax.config.update(name, before)


def test_errors_and_warnings_are_those_of_each_wrapper(mod, wrap):
    def fun(x):
        warnings.warn("careful", UserWarning, stacklevel=1)
        if mod.EPS > 1:
            raise ValueError("too much")
        return x

    def error():
        try:
            wrap(fun)(jnp.ones(2))
        except ValueError as raised:
            return str(raised)

    for eps, expected in ((1, None), (2, "too much")) * 2:
        mod.EPS = eps
        with pytest.warns(UserWarning, match="careful"):
            assert error() == expected


def test_patches_of_pytest(mod, wrap, monkeypatch):
    x = jnp.asarray(1.0)
    for value in (1, 100):
        with monkeypatch.context() as patch:
            patch.setattr(mod, "EPS", value)
            assert wrap(mod.of_global)(x) == 1 + value
    with monkeypatch.context() as patch:
        patch.setattr(mod, "helper", lambda x: x)
        assert wrap(mod.of_unused_helper)(x) == 2


def test_a_library_is_followed_if_the_function_is_its_own(wrap, monkeypatch):
    """A test suite patches the package that it tests, wherever that is installed."""
    fun = colorsys.hls_to_rgb
    f = wrap(fun)
    for _ in range(2):
        assert wrap(fun)(0.1, 0.5, 0.5) == fun(0.1, 0.5, 0.5)
    assert f.cache_info().traces == 1
    monkeypatch.setattr(colorsys, "_v", lambda m1, m2, hue: hue)
    assert wrap(fun)(0.1, 0.5, 0.5) == fun(0.1, 0.5, 0.5)
    assert f.cache_info().traces == 2
    monkeypatch.setattr(colorsys, "ONE_THIRD", 5.0)
    assert wrap(fun)(0.1, 0.5, 0.5) == fun(0.1, 0.5, 0.5)
    assert f.cache_info().traces == 3
