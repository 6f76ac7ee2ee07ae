"""What a result may hold beside its skeleton: running code and hidden tracers."""

from __future__ import annotations

import gc
import inspect
import itertools
import types
from collections import deque
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from autojit import _core
from autojit._jax_private import enclosing_traces

# Iterators that run code when they are asked for the next item, which has to happen
# inside the trace. Those that never end (`count`, `cycle`, `repeat`) run none.
LAZY_TYPES: frozenset[type[Any]] = frozenset(
    {
        types.GeneratorType,
        map,
        filter,
        zip,
        enumerate,
        *(
            getattr(itertools, name)
            for name in (
                "accumulate",
                "batched",
                "chain",
                "combinations",
                "combinations_with_replacement",
                "compress",
                "dropwhile",
                "filterfalse",
                "islice",
                "pairwise",
                "permutations",
                "product",
                "starmap",
                "takewhile",
                "zip_longest",
            )
            if hasattr(itertools, name)
        ),
    }
)

_ASYNC = (types.CoroutineType, types.AsyncGeneratorType)

# They hold no tracers, or too much that has nothing to do with the result.
_NOT_SEARCHED = (
    type,
    types.ModuleType,
    types.FrameType,
    types.CodeType,
    _core.Skeleton,
    jax.Array,
    np.ndarray,
)
_CONTAINERS = (dict, list, tuple, set, frozenset, types.CellType)
_MOST_OBJECTS = 10_000


def take_back_tracers(sentinels: list[Any]) -> None:
    """Take from instances that had no state the tracers that a trace has given them.

    They are the caller's own, as arguments that are static are in ``jax.jit``, and the
    tracers would be gone when the caller looks.

    Parameters
    ----------
    sentinels : list of object
        The instances.
    """
    for obj in sentinels:
        kind = type(obj)
        try:
            attributes = object.__getattribute__(obj, "__dict__")
        except AttributeError:
            attributes = None
        if type(attributes) is dict:
            for name, value in list(attributes.items()):
                if issubclass(type(value), jax.core.Tracer):
                    del attributes[name]
        for member, _ in _parts_of_class(kind):
            if type(member) is types.MemberDescriptorType:
                _take_back(obj, member)


def _take_back(obj: object, member: Any) -> None:
    try:
        if issubclass(type(member.__get__(obj)), jax.core.Tracer):
            member.__delete__(obj)
    except AttributeError:  # it has no value
        pass


def check_handed_through(
    skeleton: _core.Skeleton, call: _core.Skeleton, specialization: Any
) -> None:
    """Look into what is handed through in a result.

    It must not carry tracers out of the trace. And if it leads to what a function of
    the call holds, another function cannot stand for that one, even if it is equal: the
    next caller would get what belongs to this one.

    Parameters
    ----------
    skeleton : Skeleton
        Of the result.
    call : Skeleton
        Of the call that returned it.
    specialization : Specialization
        Told if it can serve no other functions than those of the call.

    Raises
    ------
    jax.errors.UnexpectedTracerError
        If a function or another object that is handed through whole holds a tracer of
        a trace that ends before the caller gets the result. The message names the path.
    """
    handed_through = skeleton._handed_through(call)
    if not handed_through:
        return
    outside = enclosing_traces()
    held = call._captured()
    captured = set(map(id, held or ()))
    may_be_more = held is None
    known = set()
    for obj, node, forwarded, by_identity in handed_through:
        if id(obj) in known:
            continue
        known.add(id(obj))
        found, seen = _find_tracer(obj, outside)
        all_seen = len(seen) < _MOST_OBJECTS and not may_be_more
        # Equal functions hold the same object where it is compared by identity.
        same_for_all = by_identity and id(obj) in captured
        is_apart = same_for_all or (all_seen and captured.isdisjoint(seen))
        if (captured or may_be_more) and not forwarded and not is_apart:
            specialization.go_by_identity(call)
            captured, may_be_more = set(), False
        if found is not None:
            way, holder = found
            within = f", in a {_name(holder)}" if holder is not obj else ""
            where = (
                f"{skeleton._node_path(node)}{way} is a traced array{within} inside of "
                f"an object of type {_name(obj)}, which "
            )
            if issubclass(type(obj), _ASYNC):
                if inspect.iscoroutine(obj) and not forwarded:
                    obj.close()  # else it would warn that no one has awaited it
                raise jax.errors.UnexpectedTracerError(
                    f"{where}runs when it is awaited, after the trace. Await it in an "
                    "async function that calls the compiled one."
                )
            raise jax.errors.UnexpectedTracerError(
                f"{where}is handed through as it is: the array would be gone when the "
                "caller gets it. Return the array beside it, or in something that can "
                "be taken apart: functools.partial instead of a closure, a class with "
                "__reduce__."
            )


def _name(obj: object) -> str:
    kind = type(obj)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return module + kind.__qualname__


def _find_tracer(
    obj: object, outside: tuple[Any, ...]
) -> tuple[tuple[str, object] | None, dict[int, object]]:
    """Find a tracer in `obj` that is none of the traces `outside`.

    Returns
    -------
    found : tuple or None
        The way to it, and the last object on this way that is no mere container; None
        if there is none.
    seen : dict
        The objects that were looked at, by their id.
    """
    seen = {id(obj): obj}  # holds what is made on the way, so that no id occurs again
    queue: deque[tuple[Any, str, object]] = deque([(obj, "", obj)])
    while queue and len(seen) < _MOST_OBJECTS:
        at, way, holder = queue.popleft()
        kind = type(at)  # not isinstance: an object may lie about its class
        if issubclass(kind, jax.core.Tracer):
            if not any(at._trace is trace for trace in outside):
                return (way, holder), seen
            continue
        if not any(kind is container for container in _CONTAINERS):
            holder = at
        parts = _parts(at)
        if at is obj and issubclass(kind, type):
            parts = _parts_of_class(at)
        for part, step in parts:
            if id(part) not in seen:
                seen[id(part)] = part
                queue.append((part, way + step, holder))
    return None, seen


def _parts_of_class(cls: Any) -> Iterator[tuple[Any, str]]:
    # Not as the metaclass would have it.
    for base in type.__dict__["__mro__"].__get__(cls):
        for name, value in type.__dict__["__dict__"].__get__(base).items():
            yield value, f".{name}"


def _parts(obj: Any) -> Iterator[tuple[Any, str]]:
    """Yield what an object holds, and how one writes the way to it."""
    kind = type(obj)
    if issubclass(kind, _NOT_SEARCHED):
        return
    if kind is types.FunctionType:
        for i, cell in enumerate(obj.__closure__ or ()):
            yield cell, f".__closure__[{i}]"
        for i, default in enumerate(obj.__defaults__ or ()):
            yield default, f".__defaults__[{i}]"
        for name, default in (obj.__kwdefaults__ or {}).items():
            yield default, f".__kwdefaults__[{name!r}]"
        for name, value in obj.__dict__.items():
            yield value, f".{name}"
    elif kind is _core.Dispatcher:
        yield obj.__wrapped__, ".__wrapped__"
    elif kind is types.MethodType:
        yield obj.__func__, ".__func__"
        yield obj.__self__, ".__self__"
    elif kind is dict:
        for key, value in obj.items():
            yield key, ".keys()"
            yield value, f"[{key!r}]" if type(key) in (str, int) else "[...]"
    elif kind is list or kind is tuple:
        for i, item in enumerate(obj):
            yield item, f"[{i}]"
    else:
        try:
            state = object.__getattribute__(obj, "__dict__")
        except AttributeError:
            state = None
        if type(state) is dict:
            for name, value in state.items():
                yield value, f".{name}"
        for part in gc.get_referents(obj):
            if part is not state:
                yield part, ""
