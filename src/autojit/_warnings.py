"""Warnings of a traced function, raised again for another dispatcher of it.

All dispatchers of a function share its specializations, so that a warning in its body
would reach only the one that traced it. What was warned of is kept with each
specialization, for the arrays that it was traced with, and raised again.

``warnings.catch_warnings`` is no way to listen: it changes what all threads see, and
what it catches has passed no filter of the user. Instead a filter that never matches
stands first in ``warnings.filters`` while a function is traced: it is asked about each
warning that reaches the user's own filters, and only then: about its text, its module
and its category, in this order.
"""

from __future__ import annotations

import inspect
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax

# Category, text, and where: module, file and line.
Where = tuple[str, str, int]
Caught = dict[tuple[type[Warning], str, Where], None]  # as an ordered set
# From what the arrays of a trace were to what it warned of.
Recorded = dict[tuple[Any, ...], Caught]
Seen = dict[int, tuple[Recorded, set[tuple[Any, ...]]]]


_MOST_SEEN = 1024
_CONFIG: Any = jax.config  # its flags have no types in some versions


class _Listening(threading.local):
    """What this thread listens with, and the text and module of what it hears.

    There is no `__init__`: a finalizer that runs in its midst may dispatch, and would
    find a part of it missing.
    """

    text: str | None = None
    module: str = ""

    @property
    def caught(self) -> list[tuple[Caught, tuple[Any, ...]]]:
        caught: list[tuple[Caught, tuple[Any, ...]]]
        caught = self.__dict__.setdefault("_caught", [])
        return caught


_listening = _Listening()


class _AnyText:
    """In place of a filter's pattern for the message."""

    @staticmethod
    def match(text: str) -> bool:
        _listening.text = text
        return True


def _shown_by() -> tuple[Any, ...]:
    """Return what shows warnings now: ``catch_warnings(record=True)`` replaces it."""
    return warnings.showwarning, getattr(warnings, "_showwarnmsg_impl", None)


class _AnyModule:
    """In place of a filter's pattern for the module."""

    @staticmethod
    def match(module: str) -> bool:
        _listening.module = module
        return True


class _NoCategory(type):
    """Metaclass of a filter's category that is no warning's."""

    def __subclasscheck__(cls, category: type) -> bool:
        text, _listening.text = _listening.text, None
        if text is not None:
            where = _where(_listening.module)
            for caught, shown_by in _listening.caught:
                if shown_by == _shown_by():  # else the function itself catches it
                    caught[category, text, where] = None
        return False


class _NoWarning(Warning, metaclass=_NoCategory):
    pass


def _where(module: str) -> Where:
    """Return the place of the warning that is being raised in a module."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_globals.get("__name__") == module:
            return module, frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back
    return module, module, 1  # `warnings.warn_explicit` may name any


_FILTER: Any = ("default", _AnyText, _NoWarning, _AnyModule, 0)


@contextmanager
def _filter_in_front() -> Iterator[None]:
    # Straight into the list: to announce the change would make Python forget which
    # warnings it has shown.
    filters: Any = warnings.filters
    filters.insert(0, _FILTER)
    try:
        yield
    finally:
        # Not if the user has put another list in its place; then it went with that one.
        for at, found in enumerate(filters):
            if found is _FILTER:
                del filters[at]
                break


def _kind_of(leaves: Sequence[Any]) -> tuple[Any, ...]:
    """Return what JAX tells arrays apart by, the same for tracers of them."""
    avals = map(jax.typeof, leaves)
    return tuple((str(aval), getattr(aval, "weak_type", None)) for aval in avals)


@contextmanager
def recorded(recorded: Recorded, leaves: Sequence[Any]) -> Iterator[None]:
    """Record the warnings of a trace.

    Parameters
    ----------
    recorded : dict
        Where to note them if the trace succeeds.
    leaves : sequence of jax.Array
        The tracers.
    """
    caught: Caught = {}
    _listening.caught.append((caught, _shown_by()))
    try:
        with _filter_in_front():
            yield
    finally:
        _listening.caught.pop()
    if caught:
        recorded[_kind_of(leaves)] = caught


def _not_seen(recorded: Recorded, leaves: Sequence[Any], seen: Seen) -> tuple[Any, ...]:
    """Return the set of what was seen, and the kind if it was not."""
    if id(recorded) not in seen and len(seen) >= _MOST_SEEN:
        del seen[next(iter(seen))]  # its specialization may have gone long ago
    kinds = seen.setdefault(id(recorded), (recorded, set()))[1]
    kind = _kind_of(leaves)
    return kinds, kind if kind in recorded and kind not in kinds else None


def replay(recorded: Recorded, leaves: Sequence[Any], seen: Seen) -> None:
    """Raise the warnings again, if this dispatcher has not yet.

    Parameters
    ----------
    recorded : dict
        The warnings of a specialization.
    leaves : sequence of jax.Array
        What it is about to be called with.
    seen : dict
        What the dispatcher has shown already; brought up to date, unless a filter turns
        a warning into an error.
    """
    if _CONFIG.jax_disable_jit:
        return  # the function is about to be called
    kinds, kind = _not_seen(recorded, leaves, seen)
    if kind is not None:
        for category, text, (module, file, line) in list(recorded[kind]):
            warnings.warn_explicit(
                _again(category, text), category, file, line, module=module
            )
        kinds.add(kind)


def _again(category: type[Warning], text: str) -> Warning:
    """Make a warning of a category that has a text."""
    try:
        made = category(text)
        if str(made) == text:
            return made
    except Exception:  # a category may want other arguments
        pass
    kind: Any = type(
        category.__name__,
        (category,),
        {
            "__module__": category.__module__,
            "__init__": lambda self: None,
            "__str__": lambda self: text,
        },
    )
    made = kind()
    assert isinstance(made, Warning)
    return made


def mark_seen(recorded: Recorded, leaves: Sequence[Any], seen: Seen) -> None:
    """Note that a dispatcher has shown the warnings itself, while it traced.

    Parameters
    ----------
    recorded, leaves, seen : object
        As for `replay`.
    """
    kinds, kind = _not_seen(recorded, leaves, seen)
    if kind is not None:
        kinds.add(kind)
