"""autojit in a process of its own that has no JAX, only something of this name."""

import subprocess
import sys

# autojit on something that is called jax and has whatever is asked for, and without
# what traces and compiles: each call runs the function on the leaves. What the real one
# does without memory is not our business: `isinstance(None, jax.Array)` may crash.
STUBBED = """
import abc, importlib.util, sys, types


class Anything(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        made = Anything(name, (), {"__init__": lambda self, *args, **kwargs: None})
        setattr(cls, name, made)
        return made


class Array(metaclass=abc.ABCMeta):
    pass


fake = Anything("fake", (), {"Array": Array})


class Finder:
    # Finds jax and all that is below it.
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == "jax":
            return importlib.util.spec_from_loader(name, self, is_package=True)

    def create_module(self, spec):
        module = types.ModuleType(spec.name)
        module.__getattr__ = lambda name: getattr(fake, name)
        return module

    def exec_module(self, module):
        pass


sys.meta_path.insert(0, Finder())

# The package without its `__init__`: the core is told once how to specialize.
autojit = types.ModuleType("autojit")
autojit.__path__ = importlib.util.find_spec("autojit").submodule_search_locations
sys.modules["autojit"] = autojit
import autojit._core as core
import autojit._specialize


class Specialized:
    # Not a closure: where there is no memory for one, CPython 3.11 leaks and 3.13
    # crashes by itself. As in the real one, what is kept must not keep the function.
    def __init__(self, fun, in_tree, trace, options):
        self.weak_fun = None if in_tree else autojit._specialize._weakly(fun)
        self.trace, self.forward = trace, options["forward"]

    def __call__(self, *leaves):
        own = None if self.weak_fun is None else self.weak_fun()
        skeleton = self.trace.begin(own)
        fun, args, kwargs = skeleton.unflatten(leaves)
        fun = fun if own is None else own
        result = fun(*args, **kwargs)
        return core.flatten_result(result, skeleton, leaves if self.forward else ())


autojit._specialize.specialize = Specialized
import autojit._jit
autojit.jit = autojit._jit.jit
autojit.flatten = autojit._jit.flatten

# What scripts call it with.
X = Array()


class Plain:
    def __init__(self, **state):
        self.__dict__.update(state)


class Reduced:
    def __init__(self, a, b=None):
        self.a, self.b = a, b

    def __reduce__(self):
        return Reduced, (self.a, self.b)


class Opaque:
    def __reduce_ex__(self, protocol):
        raise TypeError
"""


def run(script, *args, before="", timeout=600):
    """Run a script in a process of its own; return it when it has ended."""
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", before + STUBBED + script, *args],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
