"""What a function reads by name is part of it: a change is never stale."""

import functools
import importlib
import os
import subprocess
import sys
import textwrap
import types

import jax
import jax.numpy as jnp
import pytest
from numpy.testing import assert_array_equal

import autojit

SETTINGS = """
    import contextlib
    import functools
    import importlib
    import json
    import os
    import sys

    import jax

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

        def what_is_not_called(self):
            return eval("K"), importlib.import_module("anything")

        def __call__(self, y):
            return y * K

        def __mul__(self, y):
            return y * self.k

        __rmul__ = __mul__

        def __getitem__(self, name):
            return K

    class Derived(Settings):
        def method(self):
            return super().method()

    class Meta(type):
        @property
        def of_meta(cls):
            return K

    class WithMeta(metaclass=Meta):
        pass

    class Made:
        def __init__(self):
            self.k = K

    class Empty:
        pass

    WITH_META = WithMeta()
    CONFIG = Settings()
    DERIVED = Derived()
    REGISTRY = {"s": Settings, "c": [CONFIG]}

    def scale(y):
        return y * K

    def scale_by_settings(y):
        return y * Settings.static()

    @jax.grad
    def gradient(y):
        return y * K

    @jax.custom_jvp
    def with_rule(y):
        return y * K

    with_rule.defjvps(None)

    @functools.lru_cache
    def cached():
        return Settings

    @contextlib.contextmanager
    def context():
        yield K

    class Encoder(json.JSONEncoder):
        def default(self, obj):
            return K

    def encoded():
        return float(json.dumps(object(), cls=Encoder))

    @jax.custom_vjp
    def with_rules(y):
        return y

    def backwards(_, g):
        return (g * K,)

    with_rules.defvjp(lambda y: (y, None), backwards)

    def by_its_name():
        return getattr(sys.modules[__name__], "K")

    def with_attribute(y):
        return y * with_attribute.k

    def with_default(y, table={"k": 1.0}):
        return y * table["k"]

    def make_shared():
        k = 1.0

        def with_variable(y):
            return y * k

        def set_variable(value):
            nonlocal k
            k = value

        return with_variable, set_variable

    with_variable, set_variable = make_shared()

    def set_all(value):
        global K
        K = TABLE["k"] = Settings.k = Settings.table["k"] = value
        with_attribute.k = with_default.__defaults__[0]["k"] = value
        set_variable(value)
        os.environ["AUTOJIT_TEST_K"] = str(value)
        if value == 1:
            vars(Empty).get("k") and delattr(Empty, "k")
        else:
            Empty.k = value
"""

FUNCTIONS = """
    import functools
    import os
    import sys

    import jax

    import {settings} as settings
    from {settings} import CONFIG, DERIVED, REGISTRY, Settings
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

    def make_named(c):
        return lambda y: y * getattr(c, "k".lower())

    def make_method(c):
        return lambda y: y * c.method()

    def calls_method(c, y):
        return y * c.method()

    def within(y):
        with settings.context() as k:
            return y * k
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
    "a method by a name in a string": "lambda y: y * getattr(CONFIG, 'method')()",
    "a function inside": "lambda y: (lambda z: z * settings.K)(y)",
    "a partial": "functools.partial(lambda n, y: y * settings.K, 1)",
    "a gradient": "jax.grad(lambda y: (y * settings.K).sum())",
}
READS |= {
    "vars": "lambda y: y * vars(settings)['K']",
    "a computed name": "lambda y: y * getattr(settings, 'k'.upper())",
    "a module that is passed on": "lambda y: of_module(settings, y)",
    "a computed name of a class in a closure": "make_named(Settings)",
    "a class by its dict": "lambda y: y * Settings.__dict__['k']",
    "a module by its name": "lambda y: y * sys.modules['{settings}'].K",
    "a function that a library wraps": "lambda y: settings.gradient(y[0])",
    "a function with a rule": "lambda y: settings.with_rule(y)",
    "a function with a cache": "lambda y: y * settings.cached().k",
    "a context": "lambda y: within(y)",
    "an instance that is called": "lambda y: CONFIG(y)",
    "an operator": "lambda y: CONFIG * y",
    "a subscript": "lambda y: y * CONFIG['anything']",
    "a constructor": "lambda y: y * settings.Made().k",
    "a method of a base": "lambda y: y * DERIVED.method()",
    "a method of what is passed on": "lambda y: calls_method(CONFIG, y)",
    "a method of what is in a closure": "make_method(DERIVED)",
    "a class in a table": "lambda y: y * REGISTRY['s'].k",
    "an instance in a table": "lambda y: y * REGISTRY['c'][0].method()",
    "a metaclass": "lambda y: y * settings.WithMeta.of_meta",
    "what is not there yet": "lambda y: y * getattr(settings.Empty, 'k', 1.0)",
    "a metaclass of an instance": "lambda y: y * type(settings.WITH_META).of_meta",
    "an attribute of a function": "lambda y: settings.with_attribute(y)",
    "a default": "lambda y: settings.with_default(y)",
    "a variable of a function": "lambda y: settings.with_variable(y)",
    "the environment": "lambda y: y * float(os.environ['AUTOJIT_TEST_K'])",
    "getenv": "lambda y: y * float(os.getenv('AUTOJIT_TEST_K'))",
}
READS |= {
    "a rule of a derivative": "jax.grad(lambda y: settings.with_rules(y).sum())",
    "a method that a library calls": "lambda y: y * settings.encoded()",
    "the module itself": "lambda y: y * settings.by_its_name()",
}
# Of these nothing can be known, so that each function made anew is a new one.
UNKNOWN = {
    "eval": "lambda y: y * eval('settings.K')",
    "eval by another name": "lambda y, run=eval: y * run('settings.K')",
    "globals": "lambda y: y * globals()['settings'].K",
    "a function's globals": "lambda y: y * settings.scale.__globals__['K']",
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
    sys.modules[names["settings"]].set_all(value)
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


def test_an_import_from_the_package_that_a_function_is_in(tmp_path, monkeypatch, x):
    package = tmp_path / "autojit_test_relative"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "conf.py").write_text("K = 1.0")
    (package / "user.py").write_text(
        textwrap.dedent("""
            def make():
                def function(y):
                    from . import conf

                    return y * conf.K

                return function
        """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    user = importlib.import_module("autojit_test_relative.user")
    conf = importlib.import_module("autojit_test_relative.conf")
    apply = autojit.jit(lambda function, y: function(y))
    check_changes(apply, user.make, lambda value: setattr(conf, "K", value), x)


def test_a_function_that_is_read_by_name_and_passed(x):
    def make():
        return lambda: 1

    holder = types.ModuleType("autojit_test_holder")
    holder.function = make()
    holder.is_it = lambda other: holder.function is other
    f = autojit.jit(lambda same, other, y: y * (2 if same(other) else 3))
    for other, factor in ((make(), 3), (holder.function, 2), (make(), 3)):
        assert_array_equal(f(lambda o: holder.is_it(o), other, x), factor * x)


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


COUNTING = """
    class Layer:
        made = []
        count = 0
        names = {{}}

        def __init__(self, factor):
            self.factor = factor
            self.options = dict(locals())

        def __init_subclass__(cls):
            Layer.names[cls.__name__] = cls

        def counted(self):
            Layer.count += 1
            self.made.append(self)
            return self

        def load(self, name):
            return importlib.import_module(name)

        def __call__(self, y):
            return y * self.factor

    layer = Layer(2.0)

    def make():
        return lambda y: layer(y)
"""


def test_what_a_function_does_not_read_does_not_count(apply, x):
    namespace = {"__name__": "anything"}
    exec(textwrap.dedent(COUNTING.format()), namespace)
    for _ in range(4):
        assert_array_equal(apply(namespace["make"](), x), 2 * x)
        namespace["Layer"](3.0).counted()
        type("Sub", (namespace["Layer"],), {})
    assert apply.cache_info().traces == 1


NAMES_GO = """
import sys, autojit

class Lazy:
    def __getstate__(self):
        for name in list(vars(holder)):
            if name.startswith("attribute"):
                delattr(holder, name)
        sys._clear_type_cache()
        [getattr(object(), f"other_{i}", None) for i in range(20_000)]
        return self.__dict__

def make():
    return lambda: (holder, lazy, getattr)

lazy = Lazy()
lazy.a = 1
for _ in range(3):
    holder = type("Holder", (), {f"attribute_{i}_" * 3: i for i in range(50)})
    autojit.flatten(make())[1] == autojit.flatten(make())[1]

# Functions within functions, where the C stack is small. They go where it is not: to
# free them, CPython needs as much.
def nested():
    function = len
    for _ in range(5000):
        function = (lambda inner: lambda: inner)(function)
    return function

def compare():
    try:
        first == autojit.flatten(second)[1]
    except RecursionError:
        pass

import threading
sys.setrecursionlimit(10**6)
first, second = autojit.flatten(nested())[1], nested()
threading.stack_size(256 * 1024)
thread = threading.Thread(target=compare)
thread.start()
thread.join()
print("done")
"""


def test_what_goes_while_it_is_looked_at_and_functions_nested_deeply():
    """In a process of its own, which a mistake would end."""
    done = subprocess.run(
        [sys.executable, "-c", NAMES_GO],
        env={**os.environ, "PYTHONMALLOC": "debug"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "done\n", done.stderr
