"""`autojit.install`: which names are replaced, when, and what is put back."""

import functools
import importlib
import importlib.machinery
import itertools
import sys
import threading
import types

import array_api_extra.testing
import jax
import jax.extend.core
import jax.interpreters.mlir
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.interpreters import mlir

import autojit
from autojit import Dispatcher, _install

REFERENCE = """
def jax_autojit(func):
    return "reference", func
"""

# Where array-api-extra has the name, up to 0.11.1 and since 0.11.2.
LAYOUTS = {
    "old": {
        "_lib/_utils/_helpers.py": REFERENCE,
        "testing.py": """
from ._lib._utils._helpers import jax_autojit
def patch_lazy_xp_functions():
    return jax_autojit
""",
    },
    "new": {
        "_lib/_helpers.py": REFERENCE,
        "testing/__init__.py": "from ._testing import patch_lazy_xp_functions",
        "testing/_testing.py": """
from .._lib import _helpers
def patch_lazy_xp_functions():
    return _helpers.jax_autojit
""",
    },
}
HELPERS = {"old": "_lib._utils._helpers", "new": "_lib._helpers"}
_numbers = itertools.count()


class Copy:
    """A copy of array-api-extra, such as libraries have, below a package of theirs."""

    def __init__(self, folder, layout):
        self.layout = layout
        self.name = f"library_{next(_numbers)}._external.array_api_extra"
        root = folder.joinpath(*self.name.split("."))
        for file, text in LAYOUTS[layout].items():
            path = root / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def module(self, name):
        return importlib.import_module(f"{self.name}.{name}")

    def helpers(self):
        return self.module(HELPERS[self.layout])

    def name_in_use(self):
        return self.module("testing").patch_lazy_xp_functions()


@pytest.fixture(params=LAYOUTS)
def copy(request, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    return Copy(tmp_path, request.param)


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch):
    before = list(sys.meta_path)
    yield
    monkeypatch.undo()
    assert sys.meta_path == before
    assert not _install._installed
    assert not _install._replaced


def f(x):
    return x + 1


def is_ours(jax_autojit):
    return type(jax_autojit(f)) is Dispatcher


def test_a_copy_that_is_there(copy):
    reference = copy.name_in_use()
    with autojit.install():
        assert is_ours(copy.name_in_use())
        assert copy.name_in_use().__wrapped__ is reference
    assert copy.name_in_use() is reference is copy.helpers().jax_autojit


def test_a_copy_that_is_imported_later(copy):
    with autojit.install() as installation:
        before = installation.copies
        assert is_ours(copy.name_in_use())
        assert installation.copies == before + 1
    assert copy.name_in_use() is copy.helpers().jax_autojit
    assert not is_ours(copy.name_in_use())


def test_the_old_layout_is_replaced_where_it_is_looked_up_only(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    copy = Copy(tmp_path, "old")
    with autojit.install():
        assert is_ours(copy.name_in_use())
        assert not is_ours(copy.helpers().jax_autojit)


def test_the_loader_of_a_module_stays_its_own(copy):
    with autojit.install():
        module = copy.module("testing")
    assert type(module.__loader__) is importlib.machinery.SourceFileLoader
    assert module.__spec__.loader is module.__loader__


@pytest.mark.parametrize("name", ["helpers", "user"])
def test_reload(copy, name):
    user = {"old": "testing", "new": "testing._testing"}[copy.layout]
    module = copy.module({"helpers": HELPERS[copy.layout], "user": user}[name])
    with autojit.install():
        assert is_ours(copy.name_in_use())
        importlib.reload(module)
        assert is_ours(copy.name_in_use())
    assert not is_ours(copy.name_in_use())
    if copy.layout == "new":
        assert copy.name_in_use() is copy.helpers().jax_autojit


def test_what_others_put_there_stays(copy):
    def theirs(func):
        return "theirs"

    scope = copy.name_in_use().__globals__ if copy.layout == "new" else None
    scope = scope or vars(copy.module("testing"))
    with autojit.install():
        ours = scope["jax_autojit"]
        scope["jax_autojit"] = theirs
        with autojit.install():
            assert copy.name_in_use() is theirs
        _install.find_copies()
        assert copy.name_in_use() is theirs
    assert copy.name_in_use() is theirs

    # They put back what they had found: it stands for the reference then …
    scope["jax_autojit"] = ours
    assert ours(f) == ("reference", f)
    with autojit.install():  # … and is not replaced by another one of its kind.
        assert copy.name_in_use() is ours
        assert is_ours(ours)
    assert copy.name_in_use() is ours.__wrapped__


def test_nested(copy):
    chosen = []
    with autojit.install():
        inner = _install.install_with(lambda: chosen.append("inner") or True)
        outer = _install.install_with(lambda: chosen.append("outer"))
        assert copy.name_in_use()(f) == ("reference", f)  # None was chosen
        inner.close()
        inner.close()
        copy.name_in_use()(f)
        outer.close()
        assert is_ours(copy.name_in_use())
    assert chosen == ["outer", "outer"]
    assert not is_ours(copy.name_in_use())


def test_install_and_uninstall():
    for _ in range(2):
        autojit.install()
    with autojit.install():
        autojit.uninstall()  # the block has nothing to do any more
    for _ in range(2):
        autojit.uninstall()
    with pytest.raises(RuntimeError, match=r"call autojit\.install\(\) first"):
        autojit.uninstall()


def test_an_exception_ends_the_block(copy):
    def fails():
        with autojit.install():
            assert is_ours(copy.name_in_use())
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert not is_ours(copy.name_in_use())


def test_two_threads(copy):
    wrong = []

    def work():
        for _ in range(50):
            with autojit.install():
                if not is_ours(copy.name_in_use()):
                    wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert not is_ours(copy.name_in_use())


def test_another_finder_may_ask_all_others(copy, monkeypatch):
    class Asks:
        @staticmethod
        def find_spec(name, path, target=None):
            if "array_api_extra" not in name:
                return None
            others = (finder for finder in sys.meta_path if finder is not Asks)
            found = (finder.find_spec(name, path, target) for finder in others)
            return next((spec for spec in found if spec), None)

    monkeypatch.setattr(sys, "meta_path", [Asks, *sys.meta_path])
    with autojit.install():
        sys.meta_path.append(sys.meta_path.pop(1))  # so that each asks the other
        sys.meta_path.insert(0, sys.meta_path.pop())
        assert is_ours(copy.name_in_use())


def test_share_goes_to_the_wrapper(copy, monkeypatch):
    seen = []
    monkeypatch.setattr(_install, "_wrap", lambda fun, share: seen.append(share))
    for token in (True, False, "a test"):
        with _install.install_with(lambda token=token: token):
            copy.name_in_use()(f)
    with autojit.install(share=False):
        copy.name_in_use()(f)
    assert seen == [True, False, "a test", False]
    with pytest.raises(TypeError, match="must be True or False, not 'all'"):
        autojit.install(share="all")


class Model:
    order = 2

    def __init__(self, w):
        self.w = w

    def call(self, x):
        return self.w * x

    @staticmethod
    def static(x):
        return x + 1

    @classmethod
    def create(cls, x):
        return cls(2 * x)


@pytest.mark.parametrize(
    ("fun", "expected"),
    [
        (f, 2.0),
        (lambda x: x, 1.0),
        (functools.partial(pow, 3.0), 3.0),
        (jnp.add, None),
        (np.sin, None),
        (np.frompyfunc(lambda x: x + 1, 1, 1), None),
        (Model(jnp.ones(())).call, 1.0),
        (len, None),
    ],
)
def test_whatever_is_tagged_can_be_wrapped(fun, expected):
    wrapped = _install._wrap(fun, True)
    assert type(wrapped) is Dispatcher
    if expected is not None:
        assert wrapped(jnp.ones(())) == expected


def test_the_wrapper_of_a_class_has_what_the_class_has():
    wrapped = _install._wrap(Model, True)
    assert type(wrapped(jnp.ones(2))) is Model
    assert wrapped.order == 2
    assert wrapped.static(1) == 2
    assert wrapped.__name__ == "Model"


def test_the_installed_array_api_extra():
    module = types.ModuleType("tests")
    module.f, module.Model = f, Model
    tagged = [f, *((Model, name) for name in ("call", "static", "create"))]
    for one in tagged:
        array_api_extra.testing.lazy_xp_function(one)
    request = types.SimpleNamespace(module=module)
    patch = array_api_extra.testing.patch_lazy_xp_functions
    x = jnp.ones(2)
    with autojit.install(), patch(request, xp=jnp):
        assert type(module.f) is type(vars(Model)["call"]) is Dispatcher
        assert type(vars(Model)["static"]) is staticmethod
        assert type(vars(Model)["static"].__func__) is Dispatcher
        assert Model(x).call(x).tolist() == [1, 1]
        assert Model.static(x).tolist() == Model(x).static(x).tolist() == [2, 2]
        made = Model.create(x)
        assert type(made) is Model
        assert isinstance(made.w, jax.Array)
    with patch(request, xp=jnp):
        assert type(module.f) is not Dispatcher


def contexts_of_programs(count):
    """Return the MLIR contexts that JAX lowers so many programs in."""
    lowered = [jax.jit(lambda x, add=k: x + add).lower(1.0) for k in range(count)]
    return [one.compiler_ir().context for one in lowered]


def number_of(objects):
    return len({id(one) for one in objects})


def test_programs_share_mlir_contexts():
    before = mlir.make_ir_context
    with autojit.install(), autojit.install():
        contexts = contexts_of_programs(50)
    # As many programs in each as JAX 0.12 has there by itself.
    assert 4 <= number_of(contexts) <= 6
    assert mlir.make_ir_context is before


def test_a_context_is_of_one_thread():
    def lower():
        found.append(contexts_of_programs(3))

    found = []
    with autojit.install():
        for _ in range(2):
            thread = threading.Thread(target=lower)
            thread.start()
            thread.join()
    first, second = ({id(context) for context in contexts} for contexts in found)
    assert not first & second


def test_compiling_while_another_program_is_lowered():
    def rule(ctx, x):
        earlier.compile()
        found.append(jax.jit(lambda x: x * 2)(np.float32(4)))
        return [x]

    found = []
    compiles = jax.extend.core.Primitive("compiles")
    compiles.def_abstract_eval(lambda x: x)
    jax.interpreters.mlir.register_lowering(compiles, rule)
    with autojit.install():
        earlier = jax.jit(lambda x: x - 1).lower(1.0)
        assert jax.jit(lambda x: compiles.bind(x) + 1)(1.0) == 2
        assert earlier.compile()(3.0) == 2
    assert found == [8]


def test_what_others_make_contexts_with(monkeypatch):
    def theirs():
        return before()

    before = mlir.make_ir_context
    monkeypatch.setattr(mlir, "make_ir_context", before)  # so at the end
    for _ in range(3):
        with autojit.install():
            ours = mlir.make_ir_context
            mlir.make_ir_context = theirs
        assert mlir.make_ir_context is theirs
        mlir.make_ir_context = ours  # as they had found it
    with autojit.install():
        assert number_of(contexts_of_programs(50)) >= 4
