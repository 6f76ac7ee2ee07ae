"""autojit in place of the ``jax_autojit`` of every copy of array-api-extra."""

from __future__ import annotations

import contextlib
import functools
import importlib.abc
import importlib.machinery
import sys
import threading
import types
import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import Any, cast

from autojit._core import Dispatcher
from autojit._jax_private import reuse_mlir_contexts
from autojit._options import QUIET, Checked, checked
from autojit._statistics import note_wrapper

Wrap = Callable[[Any], Any]


class Installation:
    """One call of `install`: a context manager that ends with the block.

    Attributes
    ----------
    choose : callable
        Called for each function that is about to be wrapped. None: array-api-extra's
        own wrapper is used. Otherwise with which wrappers of the same function this one
        shares what it compiles: True, with all; False, with none; anything else that
        is hashable, with those of an equal token.
    copies : int
        How many copies of array-api-extra were found, by this call or before.
    """

    def __init__(self, choose: Callable[[], Hashable | None]) -> None:
        self.choose = choose

    @property
    def copies(self) -> int:
        return len(_replaced)

    def __enter__(self) -> Installation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take back this call of `install`, which need not be the last; once."""
        with _lock:
            if self in _installed:
                _installed.remove(self)
                if not _installed:
                    _take_back()


class _Replaced:
    """Where a name was replaced, by what, and what was there."""

    def __init__(self, scope: dict[str, Any], ours: Wrap, reference: Wrap) -> None:
        self.scope = scope
        self.ours = ours
        self.reference = reference


_lock = threading.RLock()
_undo = contextlib.ExitStack()  # of what else holds until the last `uninstall`
_installed: list[Installation] = []
_replaced: dict[int, _Replaced] = {}  # by the id of the scope, which it keeps alive
# The reference that each function of ours stands for. Somebody may have kept one of
# them and put it back later.
_references: weakref.WeakKeyDictionary[Wrap, Wrap] = weakref.WeakKeyDictionary()


def install(*, share: bool = True) -> Installation:
    """Replace array-api-extra's ``jax_autojit`` by autojit's, in every copy of it.

    From then on, ``patch_lazy_xp_functions`` of array-api-extra, and of the copies of
    it that SciPy, scikit-learn and others have, wraps functions with
    `autojit.jax_autojit`. Copies that are imported later are found too.

    With pytest, use ``pytest --autojit`` instead.

    Parameters
    ----------
    share : bool, default: True
        Whether all wrappers of a function share what they compile, so that a test need
        not trace what another one has traced.

    Returns
    -------
    context manager
        Which calls `uninstall` at its end. It need not be used as one.

    See Also
    --------
    uninstall : puts back what was there.

    Notes
    -----
    It can be called again; the last call that was not taken back decides about `share`.
    It holds for all threads.

    JAX before 0.11.1 makes an MLIR context for each program that it lowers; as long as
    this is installed, ten programs of a thread share one, much as in later versions.

    Examples
    --------
    >>> import types
    >>> import jax.numpy as jnp
    >>> from array_api_extra.testing import lazy_xp_function, patch_lazy_xp_functions
    >>> import autojit
    >>> def double(x):
    ...     return 2 * x
    >>> lazy_xp_function(double)
    >>> tests = types.SimpleNamespace(double=double)
    >>> request = types.SimpleNamespace(module=tests)  # pytest has one for each test
    >>> with autojit.install(), patch_lazy_xp_functions(request, xp=jnp):
    ...     type(tests.double)
    <class 'autojit._core.Dispatcher'>
    """
    if type(share) is not bool:
        raise TypeError(f"share must be True or False, not {share!r}")
    return install_with(lambda: share)


def install_with(choose: Callable[[], Hashable | None]) -> Installation:
    """Do what `install` does, with a function that decides for each wrapper.

    Parameters
    ----------
    choose : callable
        See `Installation`.

    Returns
    -------
    Installation
    """
    installation = Installation(choose)
    with _lock:
        if not _installed:
            _undo.callback(reuse_mlir_contexts())
        _installed.append(installation)
        if _FINDER not in sys.meta_path:
            sys.meta_path.insert(0, _FINDER)
        find_copies()
    return installation


def uninstall() -> None:
    """Take back the last call of `install`.

    When all are taken back, each copy of array-api-extra has what was found in it,
    unless somebody else has put something else there in the meantime: that stays.

    Raises
    ------
    RuntimeError
        If there is nothing to take back.

    Examples
    --------
    >>> import autojit
    >>> _ = autojit.install()
    >>> autojit.uninstall()
    """
    with _lock:
        if not _installed:
            raise RuntimeError(
                "nothing to uninstall: call autojit.install() first, and "
                "autojit.uninstall() once for each call of it"
            )
        _installed[-1].close()


# Tests wrap functions tens of thousands of times. Typed, since 1 == True.
@functools.lru_cache(typed=True)
def _options(share: Hashable) -> Checked:
    return checked({**QUIET, "share": share})


def _wrap(fun: Any, share: Hashable) -> Any:
    """Make the wrapper of a function: a function, a method, a class, a ufunc."""
    note_wrapper()
    wrapped: Any = Dispatcher(fun, *_options(share))
    if isinstance(fun, type):
        # The reference's wrapper of a class has what the class has.
        for name, value in vars(fun).items():
            if not (name.startswith("__") and name.endswith("__")):
                vars(wrapped).setdefault(name, value)
    return wrapped


def _instead_of(reference: Wrap) -> Wrap:
    @functools.wraps(reference)  # pickle and help look for what it replaces
    def jax_autojit(func: Any) -> Any:
        last = _installed[-1:]  # another thread may take it away
        # None is left where somebody has put this back after the last `uninstall`.
        share = last[0].choose() if last else None
        return reference(func) if share is None else _wrap(func, share)

    _references[jax_autojit] = reference
    return jax_autojit


def _scope_of_name(module: Any) -> dict[str, Any] | None:
    """Return where ``patch_lazy_xp_functions`` looks up ``jax_autojit``, if it can.

    Up to array-api-extra 0.11.1 that is a global of its own module, later an attribute
    of the module that it knows as ``_helpers``.
    """
    if not isinstance(module, types.ModuleType):
        return None
    # Not by an attribute: a module that is loaded lazily would be, by that.
    found = object.__getattribute__(module, "__dict__").get("patch_lazy_xp_functions")
    scope = getattr(found, "__globals__", None)
    if type(scope) is not dict:
        return None
    if "jax_autojit" not in scope:
        scope = getattr(scope.get("_helpers"), "__dict__", {})
    return scope if "jax_autojit" in scope else None


def find_copies() -> None:
    """Look for copies among all modules that are imported."""
    with _lock:
        for module in list(sys.modules.values()):
            _look_into(module)


def _look_into(module: Any) -> None:
    scope = _scope_of_name(module)
    # What was replaced once is left alone: others may have put theirs on top.
    if scope is not None and id(scope) not in _replaced:
        _replace(scope)


def _replace(scope: dict[str, Any]) -> None:
    found = scope["jax_autojit"]
    if found in _references:
        ours, reference = found, _references[found]
    else:
        ours, reference = _instead_of(found), found
    scope["jax_autojit"] = ours
    _replaced[id(scope)] = _Replaced(scope, ours, reference)


def _take_back() -> None:
    _undo.close()
    if _FINDER in sys.meta_path:
        sys.meta_path.remove(_FINDER)
    for replaced in _replaced.values():
        if replaced.scope.get("jax_autojit") is replaced.ours:
            replaced.scope["jax_autojit"] = replaced.reference
    _replaced.clear()


def _after_import(module: types.ModuleType) -> None:
    """Look into a module that was imported or reloaded just now."""
    with _lock:
        if id(vars(module)) in _replaced:
            _replace(vars(module))  # a reload has put the reference there again
        elif _installed:
            _look_into(module)


class _Loader(importlib.abc.Loader):
    """Runs a module as its own loader does, which it then gets back."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _after_import(module)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds what the others find, and looks into the modules in question.

    Those are the ones that define ``patch_lazy_xp_functions`` or ``jax_autojit`` in one
    of the versions of array-api-extra. The second is there for ``importlib.reload``.
    """

    _NAMES = ("testing", "_testing", "_helpers")

    def __init__(self) -> None:
        self._looking_for = threading.local()

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: types.ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        # One of the others may ask all others, too, and so this one again.
        outer = getattr(self._looking_for, "name", None)
        if fullname.rpartition(".")[2] not in self._NAMES or outer == fullname:
            return None
        self._looking_for.name = fullname
        try:
            for finder in sys.meta_path:
                find = None if finder is self else getattr(finder, "find_spec", None)
                spec = find(fullname, path, target) if find else None
                if spec is not None:
                    if hasattr(spec.loader, "exec_module"):
                        spec.loader = _Loader(spec.loader)
                    return cast(importlib.machinery.ModuleSpec, spec)
            return None
        finally:
            self._looking_for.name = outer


_FINDER = _Finder()
