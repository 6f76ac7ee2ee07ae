"""Where classes keep their state, so that it is read without calling their methods."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from autojit import _core

_METHODS = (
    "__getstate__",
    "__setstate__",
    "__reduce__",
    "__reduce_ex__",
    "__getnewargs__",
    "__getnewargs_ex__",
)


class State(NamedTuple):
    """What is registered of a class."""

    attributes: tuple[str, ...] | None
    make: Callable[[], Any] | None
    methods: tuple[object, ...]


# By class, as in `copyreg`.
registered: dict[type, State] = {}

# What libraries say of their classes, in `__getstate__` and `__setstate__`: found by
# name, so that nothing needs to be imported, and checked with an instance, so that
# another version of the library is taken apart by its methods. These give and take the
# whole of an instance's `__dict__` and `__slots__`.
_WHOLE_STATE = frozenset(
    {
        "chex._src.dataclass._Dataclass.__call__.<locals>._getstate",
        "chex._src.dataclass._Dataclass.__call__.<locals>._setstate",
        "dataclasses._dataclass_getstate",
        "dataclasses._dataclass_setstate",
        "flax.nnx.pytreelib.Pytree.__getstate__",
        "flax.nnx.pytreelib.Pytree.__setstate__",
        "flax.nnx.variablelib.Variable.__getstate__",
        "flax.nnx.variablelib.Variable.__setstate__",
    }
)
# Instances say nothing, and are to be made anew.
_NO_STATE = frozenset({"flax.nnx.tracers.TraceState"})
# Instances have one attribute that counts, and are first made without arguments.
_ONE_ATTRIBUTE = {"flax.core.frozen_dict.FrozenDict": "_dict"}
# Instances never change, and a copy is as good as the original.
_CONSTANTS = frozenset(
    {
        "datetime.date",
        "datetime.datetime",
        "datetime.time",
        "datetime.timedelta",
        "datetime.timezone",
        "decimal.Decimal",
        "fractions.Fraction",
        "jax.P",
        "jax.sharding.PartitionSpec",
        "uuid.UUID",
        *(
            f"{module}.{name}"
            for module in ("pathlib", "pathlib._local")
            for name in (
                "PosixPath",
                "PurePosixPath",
                "PureWindowsPath",
                "WindowsPath",
            )
        ),
    }
)


def register_state(
    cls: type,
    attributes: Iterable[str] | None = None,
    *,
    make: Callable[[], Any] | None = None,
) -> None:
    """Say where a class keeps its state, so that none of its methods is called for it.

    A class with a ``__getstate__`` or ``__reduce__`` of its own is taken apart by
    that, once a call, which takes microseconds an instance. If all it does is to hand
    over attributes, say so: then they are read where they are.

    Parameters
    ----------
    cls : type
        A class that a class statement has made, with no builtin base but `object`.
    attributes : iterable of str, optional
        The names of the attributes that are its state, in ``__slots__`` or
        ``__dict__``. Others don't tell two instances apart, are as `make` leaves
        them, and what the function does to them is lost. By default, all of them. With
        none, an instance says nothing, and one that is made anew stands for all in a
        call or result.
    make : callable, optional
        Is called without arguments for a new instance, whose attributes are then set.
        By default ``object.__new__(cls)``: as in unpickling, ``__init__`` is not run.

    Raises
    ------
    TypeError
        If `cls` is no such class, or `attributes` are no names; in the first call, if
        an instance has no attribute of a name.

    Notes
    -----
    What is said of all attributes holds for subclasses too, as long as they have no
    ``__getstate__``, ``__reduce__`` and so on of their own. If `attributes` or `make`
    are given it holds for `cls` alone. It holds no longer when one of these methods of
    the class is replaced, or the class is registered again. None of them is called, not
    ``__setstate__`` either.

    The classes of Flax NNX and chex need no registration.

    Examples
    --------
    >>> import autojit, jax, jax.numpy as jnp
    >>> class Model:
    ...     def __init__(self):
    ...         self.weights, self.calls = jnp.ones(2), 0
    >>> autojit.register_state(Model, ["weights"], make=Model)
    >>> model = Model()
    >>> predict = autojit.jit(lambda model, x: model.weights * x)
    >>> for model.calls in range(3):
    ...     _ = predict(model, jnp.ones(2))
    >>> predict.cache_info().traces
    1
    """
    if not isinstance(cls, type):
        raise TypeError(f"register_state needs a class, got {cls!r}")
    heap_type = 1 << 9
    builtin = [base for base in cls.__mro__ if not base.__flags__ & heap_type]
    if builtin != [object]:
        raise TypeError(
            f"register_state needs a class whose state is its attributes, but "
            f"{cls.__qualname__} is derived of {builtin[0].__qualname__}: give it a "
            f"__reduce__ instead"
        )
    if attributes is not None:
        names = tuple(attributes)
        if isinstance(attributes, str) or not all(type(name) is str for name in names):
            raise TypeError(
                f"register_state needs names of attributes, got {attributes!r}"
            )
        attributes = tuple(map(sys.intern, dict.fromkeys(names)))
    registered[cls] = State(attributes, make, _methods(cls))
    _core.forget_plans()


def _check_names(obj: object, kind: type, names: Iterable[str]) -> None:
    known = set(object.__getattribute__(obj, "__dict__") if kind.__dictoffset__ else ())
    for base in _mro(kind):
        known.update(vars(base), vars(base).get("__annotations__", ()))
    for name in names:
        if name not in known:
            raise TypeError(
                f"register_state was told that {name!r} is a part of the state of "
                f"{kind.__qualname__}, but an instance has no attribute of that name"
            )


def state_of(obj: object) -> tuple[Any, Any] | bool | None:
    """Tell where the class of an object keeps its state, if it has an unusual one.

    Parameters
    ----------
    obj : object
        Any.

    Returns
    -------
    (tuple of str or None, callable or None) or True or None
        As the parameters of `register_state`; True for a constant; None if nothing is
        known.
    """
    kind = type(obj)
    try:
        state = None
        for base in _mro(kind) if registered else ():
            state = registered.get(base)
            if state is not None:
                break
        if state is None:
            return _known(obj, kind)
        is_whole = state.attributes is None and state.make is None
        holds = is_whole or registered.get(kind) is state
        if not holds or _methods(kind) != state.methods:
            return None
    except (MemoryError, RecursionError):
        raise
    except Exception:  # it is not as we know it, or its metaclass is hostile
        return None
    _check_names(obj, kind, state.attributes or ())
    return state.attributes, state.make


def _known(obj: Any, kind: type) -> tuple[Any, Any] | bool | None:
    name = _name_of(kind)
    if name in _CONSTANTS:
        return True if _is_found_by(name, kind) else None
    if name in _ONE_ATTRIBUTE and _is_found_by(name, kind):
        one = _ONE_ATTRIBUTE[name]
        func, args = obj.__reduce__()
        is_one = func is kind and args == (getattr(obj, one),)
        return ((one,), kind) if is_one and getattr(kind(), one) == {} else None
    methods = dict(zip(_METHODS, _methods(kind), strict=True))
    getstate, setstate = methods.pop("__getstate__"), methods.pop("__setstate__")
    own = [getattr(object, name, None) for name in methods]
    if [*methods.values()] != own or not isinstance(getstate, types.FunctionType):
        return None
    if name in _NO_STATE:
        is_empty = not getstate(obj) and type(kind()) is kind
        return ((), kind) if is_empty else None
    for method in (getstate, setstate):
        if method is not None and _name_of(method) not in _WHOLE_STATE:
            return None
    if getstate.__module__ == "dataclasses":  # which is as old as CPython is
        return None, None
    state: Any = getstate(obj)
    values = [*state.values()] if isinstance(state, dict) else [*state]
    is_whole = sorted(map(id, values)) == sorted(map(id, _attributes(obj)))
    return (None, None) if is_whole else None


def _mro(kind: type) -> tuple[type, ...]:
    mro: tuple[type, ...] = type.__getattribute__(kind, "__mro__")
    return mro  # whatever a metaclass says


def _methods(kind: type) -> tuple[object, ...]:
    """Return the methods that say what the state of an instance is."""
    methods = dict.fromkeys(_METHODS)
    for base in reversed(_mro(kind)):
        for name in _METHODS:
            if name in vars(base):
                methods[name] = vars(base)[name]
    return tuple(methods.values())


def _name_of(thing: Any) -> str:
    get = type.__getattribute__ if isinstance(thing, type) else getattr
    return f"{get(thing, '__module__')}.{get(thing, '__qualname__')}"


def _is_found_by(name: str, kind: type) -> bool:
    module, _, name = name.rpartition(".")
    return getattr(sys.modules.get(module), name, None) is kind


# A list: without memory for a generator, CPython 3.13 crashes.
def _attributes(obj: object) -> list[object]:
    """Return the values of an instance's ``__dict__`` and slots."""
    values: list[object] = []
    # Asked of `object`: a variable of NNX answers for its array.
    if type(obj).__dictoffset__:
        values += object.__getattribute__(obj, "__dict__").values()
    for base in _mro(type(obj)):
        for member in vars(base).values():
            if isinstance(member, types.MemberDescriptorType):
                try:
                    values.append(member.__get__(obj))
                except AttributeError:  # not set
                    continue
    return values
