"""What the reduction of an exception leaves out: where it comes from."""

from __future__ import annotations

import types
import weakref
from collections.abc import Callable
from typing import Any

from autojit import _core
from autojit._jax_private import is_tracing

# A class may have attributes of these names.
_MEMBERS: Any = vars(BaseException)
_NAMES: Any = {kind: vars(kind)["name"] for kind in (AttributeError, NameError)}
_GROUP: Any = vars(BaseExceptionGroup)
_SET_STATE = BaseException.__setstate__


class Traceback:
    """A traceback, which is handed through whole and makes no difference to a trace."""

    __slots__ = ("__weakref__", "traceback")

    def __init__(self, traceback: types.TracebackType) -> None:
        self.traceback = traceback

    def __eq__(self, other: object) -> bool:
        return type(other) is Traceback

    def __hash__(self) -> int:
        return hash(Traceback)

    def __reduce_ex__(self, protocol: Any) -> str:
        raise TypeError("a traceback is not taken apart")


# By the id of the traceback: so the one of an argument is known again in a result, and
# each caller gets back the own.
_known: weakref.WeakValueDictionary[int, Traceback] = weakref.WeakValueDictionary()


def _kept(traceback: types.TracebackType | None) -> Traceback | None:
    """Return what stands for a traceback, or for what of it is older than the trace.

    Frames of a trace hold tracers, which must not get out.
    """
    if traceback is None:
        return None
    if not is_tracing():
        return _known.setdefault(id(traceback), Traceback(traceback))
    at: types.TracebackType | None = traceback
    while at is not None:
        if (known := _known.get(id(at))) is not None:
            return known
        at = at.tb_next
    return None


def reduce_exception(
    obj: BaseException,
    func: Any,
    args: tuple[Any, ...],
    state: Any,
    setter: Any,
    set_state: Callable[..., None],
) -> tuple[Any, tuple[Any, ...], Any, Any]:
    """Complete the reduction of an exception.

    Parameters
    ----------
    obj : BaseException
        The exception.
    func, args, state, setter : object
        Its own reduction.
    set_state : callable
        Gives a rebuilt object the state of a reduction.

    Returns
    -------
    func, args, state, setter : object
        The completed reduction.
    """
    kind = type(obj)
    group = None
    # Else it is the class's own, which knows how to make an instance.
    if func is kind and isinstance(kind.__reduce__, types.MethodDescriptorType):
        if issubclass(kind, BaseExceptionGroup):
            # Its exceptions may lead back to it: they are put in when they are there.
            group = _MEMBERS["args"].__get__(obj), _GROUP["exceptions"].__get__(obj)
            func, args = _new_group, (kind, _GROUP["message"].__get__(obj))
        elif isinstance(kind.__init__, types.FunctionType) and not isinstance(
            kind.__new__, types.FunctionType
        ):
            # It may take other arguments than it has passed on.
            func, args = _new_exception, (kind, args)
    # One that was asked for its attributes has an empty dict.
    if type(state) is dict and not state and kind.__setstate__ is _SET_STATE:
        state = None
    origin = (
        _MEMBERS["__cause__"].__get__(obj),
        _MEMBERS["__context__"].__get__(obj),
        _kept(_MEMBERS["__traceback__"].__get__(obj)),
        _MEMBERS["__suppress_context__"].__get__(obj),
        next((_NAMES[k].__get__(obj) for k in _NAMES if issubclass(kind, k)), None),
    )
    if group is None and not any(origin):
        return func, args, state, setter
    return func, args, (state, setter, origin, group, set_state), _set_origin


def _new_exception(kind: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    made = kind.__new__(kind, *args)
    builtin: Any = next(base for base in kind.__mro__ if not base.__flags__ & _HEAPTYPE)
    builtin.__init__(made, *args)
    return made


_HEAPTYPE = 1 << 9  # of a class that is not builtin


def _new_group(
    kind: type[BaseExceptionGroup[Any]], message: str
) -> BaseExceptionGroup[Any]:
    # It wants at least one, and of the right kind.
    member = Exception() if issubclass(kind, Exception) else BaseException()
    return BaseExceptionGroup.__new__(kind, message, [member])


def _set_origin(obj: Any, parts: tuple[Any, ...]) -> None:
    state, setter, origin, group, set_state = parts
    cause, context, traceback, suppress, name = origin
    if group is not None:
        args, exceptions = group
        _MEMBERS["args"].__set__(obj, args)
        _core.fill_group(obj, exceptions)
    set_state(obj, state, None, None, setter)
    _MEMBERS["__context__"].__set__(obj, context)
    _MEMBERS["__cause__"].__set__(obj, cause)
    _MEMBERS["__suppress_context__"].__set__(obj, suppress)
    if name is not None:
        obj.name = name
    if traceback is not None:
        _MEMBERS["__traceback__"].__set__(obj, traceback.traceback)
