"""What a function reads by name is part of it: a change is never stale."""

import functools
import importlib
import sys
import textwrap

import jax
import jax.numpy as jnp
import pytest
from numpy.testing import assert_array_equal

import autojit

SETTINGS = """
    K = 1.0
    TABLE = {"k": 1.0}

    class Settings:
        k = 1.0
        table = {"k": 1.0}

        @staticmethod
        def static():
            return Settings.k

        @classmethod
        def of_class(cls):
            return cls.k

        @property
        def of_instance(self):
            return K

        def method(self):
            return self.k

    CONFIG = Settings()

    def scale(y):
        return y * K

    def scale_by_settings(y):
        return y * Settings.static()
"""

FUNCTIONS = """
    import functools

    import jax

    import {settings} as settings
    from {settings} import CONFIG, Settings
    import {package}.sub

    def inner(y):
        return settings.scale(y)

    def outer(y):
        return inner(y)

    def of_module(m, y):
        return y * m.K

    def of_class(c, y):
        return y * c.k

    def imports(y):
        import {settings}

        return y * {settings}.K

    def imports_from(y):
        from {settings} import K

        return y * K

    def make_closed(m):
        return lambda y: y * m.K

    def make_default():
        return lambda y, m=settings: y * m.K
"""

# Written in the module of functions. What changes is all of `settings`.
READS = {
    "an attribute of a module": "lambda y: y * settings.K",
    "a table in a module": "lambda y: y * settings.TABLE['k']",
    "an attribute of a class": "lambda y: y * Settings.k",
    "a table in a class": "lambda y: y * Settings.table['k']",
    "a class in a module": "lambda y: y * settings.Settings.k",
    "a static method": "lambda y: y * Settings.static()",
    "a class method": "lambda y: y * Settings.of_class()",
    "a property": "lambda y: y * CONFIG.of_instance",
    "an attribute of an instance's class": "lambda y: y * CONFIG.k",
    "a module in a package": "lambda y: y * {package}.sub.K",
    "a function of a module": "lambda y: settings.scale(y)",
    "a function that reads a class": "lambda y: settings.scale_by_settings(y)",
    "functions that call others": "lambda y: outer(y)",
    "an attribute whose name is in the code": "lambda y: y * getattr(Settings, 'k')",
    "a class that is passed on": "lambda y: of_class(Settings, y)",
    "what is imported": "lambda y: imports(y)",
    "a name that is imported": "lambda y: imports_from(y)",
    "a module in a closure": "make_closed(settings)",
    "a module in a default": "make_default()",
    "an instance that is passed on": "lambda y: of_class(CONFIG, y)",
    "a method": "lambda y: y * CONFIG.method()",
    "a function inside": "lambda y: (lambda z: z * settings.K)(y)",
    "a partial": "functools.partial(lambda n, y: y * settings.K, 1)",
    "a gradient": "jax.grad(lambda y: (y * settings.K).sum())",
}
# Of these nothing can be known, so that each function made anew is a new one.
UNKNOWN = {
    "eval": "lambda y: y * eval('settings.K')",
    "globals": "lambda y: y * globals()['settings'].K",
    "vars": "lambda y: y * vars(settings)['K']",
    "a computed name": "lambda y: y * getattr(settings, 'k'.upper())",
    "a module that is passed on": "lambda y: of_module(settings, y)",
    "an import by name": "lambda y: y * __import__('{settings}').K",
}


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    """Return the modules `settings`, `package.sub` and the one of functions."""
    path = tmp_path_factory.mktemp("reads")
    names = {name: f"autojit_test_{name}" for name in ("settings", "package")}
    (path / f"{names['settings']}.py").write_text(textwrap.dedent(SETTINGS))
    (path / names["package"]).mkdir()
    (path / names["package"] / "__init__.py").touch()
    (path / names["package"] / "sub.py").write_text("K = 1.0\n")
    functions = path / "autojit_test_functions.py"
    functions.write_text(textwrap.dedent(FUNCTIONS).format(**names))
    sys.path.insert(0, str(path))
    yield names, importlib.import_module("autojit_test_functions")
    sys.path.remove(str(path))
    for name in [*names.values(), f"{names['package']}.sub", "autojit_test_functions"]:
        sys.modules.pop(name, None)


def set_all(names, value):
    settings = sys.modules[names["settings"]]
    settings.K = settings.TABLE["k"] = value
    settings.Settings.k = settings.Settings.table["k"] = value
    sys.modules[f"{names['package']}.sub"].K = value


def made_anew(modules, text):
    """Return what makes the function of a text, with one code, in its module."""
    names, functions = modules
    code = f"def make():\n    return {text.format(**names)}\n"
    exec(code, functions.__dict__)
    return functions.make


@pytest.fixture
def x():
    """Ones, so that a gradient has the factor that a function reads as its value."""
    return jnp.ones(2)


@pytest.fixture
def apply():
    """Return a dispatcher that applies a function."""
    return autojit.jit(lambda function, y: function(y))


def check_changes(apply, make, change, x):
    """Check that each value of what a function reads is traced once, and never stale.

    `make` makes the function anew, which multiplies by that value.
    """
    for value, traces in ((1.0, 1), (2.0, 2), (1.0, 2)):
        change(value)
        for _ in range(3):
            assert_array_equal(apply(make(), x), value * x)
        assert apply.cache_info().traces == traces


@pytest.mark.parametrize("text", READS.values(), ids=READS)
def test_what_a_function_reads_by_name_is_never_stale(modules, text, apply, x):
    def change(value):
        set_all(modules[0], value)

    check_changes(apply, made_anew(modules, text), change, x)


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_table_of_any_size_is_compared(size, apply, x):
    table = dict.fromkeys(range(size), 1.0)

    def change(value):
        table[size - 1] = value

    check_changes(apply, lambda: lambda y: y * table[size - 1], change, x)


@pytest.mark.parametrize("text", UNKNOWN.values(), ids=UNKNOWN)
def test_a_function_of_which_this_cannot_be_known_goes_by_identity(
    modules, text, apply, x
):
    make = made_anew(modules, text)
    for value in (1.0, 2.0):
        set_all(modules[0], value)
        assert_array_equal(apply(make(), x), value * x)
    traces = apply.cache_info().traces
    function = make()
    for _ in range(3):
        assert_array_equal(apply(function, x), 2 * x)
    assert apply.cache_info().traces == traces + 1


def test_what_libraries_do_is_not_followed(apply, x):
    for _ in range(3):
        apply(lambda y: jnp.sum(jax.nn.relu(jnp.sin(y))), x)
    assert apply.cache_info().traces == 1


def test_a_partial_of_a_lambda_that_calls_a_function_of_a_module(modules, apply, x):
    names, functions = modules
    for value in (1.0, 2.0):
        set_all(names, value)
        partial = functools.partial(lambda n, y: n * functions.inner(y), 1)
        assert_array_equal(apply(partial, x), value * x)
