"""Why a function is traced: said on request, and an error where it must not be."""

from __future__ import annotations

import functools
import logging
import os
import sys
import sysconfig
import types
from collections.abc import Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, cast

import jax
import jaxlib

from autojit import _core

_LOGGER = logging.getLogger("autojit")
_CONFIG: Any = jax.config
_MOST_SHAPES = 16


class RetracingError(RuntimeError):
    """A function was about to be traced where that is forbidden."""

    __module__ = "autojit"


class _Block:
    """A block that bounds traces, from its beginning to its end."""

    def __init__(self, limit: _Limit) -> None:
        self.limit = limit
        self.count = 0
        self.is_active = True


class _Limit:
    """A context manager that bounds how many traces a block may make."""

    def __init__(self, name: str, most: int, *, counts_first: bool) -> None:
        self.name = name
        self.most = most
        self.counts_first = counts_first
        self._begun: list[_Block] = []

    def __enter__(self) -> None:
        self._begun.append(_Block(self))
        _blocks.set((*_blocks.get(), self._begun[-1]))

    # Blocks of generators and tasks may end in any order, and in another context.
    def __exit__(self, *_: object) -> None:
        block = self._begun.pop()
        block.is_active = False
        _blocks.set(tuple(one for one in _blocks.get() if one.is_active))


_blocks: ContextVar[tuple[_Block, ...]] = ContextVar("blocks", default=())


def no_retracing() -> AbstractContextManager[None]:
    """Forbid functions to be traced more than once, until the end of the block.

    The first trace of a function is not an error.

    Returns
    -------
    context manager
        For the calls of this thread or asynchronous task, and of tasks that it starts.

    Raises
    ------
    RetracingError
        In the block, where a function that was traced before is about to be traced
        again. The message says why, with the path of what has changed.

    See Also
    --------
    max_traces : bounds how often functions are traced at all.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import autojit
    >>> scale = autojit.jit(lambda x, config: x * config["by"])
    >>> with autojit.no_retracing():
    ...     for by in (1.0, 1.5):
    ...         y = scale(jnp.ones(2), {"by": by})
    Traceback (most recent call last):
    autojit.RetracingError: ...<lambda> would be traced again, which no_retracing()
    forbids: args[1]['by']: was 1.0, now 1.5...
    """
    return _Limit("no_retracing()", 0, counts_first=False)


def max_traces(n: int, /) -> AbstractContextManager[None]:
    """Bound how often functions are traced, until the end of the block.

    Parameters
    ----------
    n : int
        How often at most, all functions together. 0 forbids first traces, too.

    Returns
    -------
    context manager
        For the calls of this thread or asynchronous task, and of tasks that it starts.

    Raises
    ------
    RetracingError
        In the block, where one more trace is about to begin. The message says why.
    TypeError, ValueError
        If `n` is no integer, or negative.

    See Also
    --------
    no_retracing : lets each function be traced once.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import autojit
    >>> double = autojit.jit(lambda x: 2 * x)
    >>> with autojit.max_traces(1):
    ...     y = double(jnp.ones(2))
    ...     y = double(jnp.zeros(2))
    """
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"max_traces needs an integer, got {n!r}")
    if n < 0:
        raise ValueError(f"max_traces needs a number that is not negative, got {n}")
    return _Limit(f"max_traces({n})", n, counts_first=True)


def is_explaining() -> bool:
    """Tell whether each trace is to be explained in the log."""
    return bool(_CONFIG.jax_explain_cache_misses) or os.environ.get(
        "AUTOJIT_EXPLAIN", ""
    ).lower() in ("1", "true", "yes", "on")


class Shapes:
    """The shapes and dtypes that one specialization was traced for."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def add(self, leaves: Sequence[Any]) -> None:
        """Note those of a trace that has succeeded."""
        self.seen = [*self.seen, _avals(leaves)][-_MOST_SHAPES:]

    def alone(
        self, leaves: Sequence[Any], skeleton: _core.Skeleton, number: int
    ) -> list[tuple[str, str, str]]:
        """List those seen that differ in one leaf: its path, what it was, and is.

        The one seen last comes first. Only for leaves in which so many differ.
        """
        now = _avals(leaves)
        found: dict[int, list[Any]] = {}
        for before in reversed(self.seen):
            changed = [i for i, aval in enumerate(before) if aval != now[i]]
            if len(changed) == 1:
                found.setdefault(changed[0], []).append(before[changed[0]])
        return [
            (skeleton._leaf_path(i), _short(was), _short(now[i]))
            for i, seen in found.items()
            if len(seen) == number
            for was in seen
        ]

    def differ(self, leaves: Sequence[Any], skeleton: _core.Skeleton) -> str | None:
        """Say what differs from the nearest of those that were seen, if anything."""
        now = _avals(leaves)

        def changed(before: tuple[Any, ...]) -> list[int]:
            return [i for i, aval in enumerate(before) if aval != now[i]]

        nearest = min(reversed(self.seen), key=lambda seen: len(changed(seen)))
        first = next(iter(changed(nearest)), None)
        if first is None:
            return None
        path = skeleton._leaf_path(first)
        before, after = (_short(avals[first]) for avals in (nearest, now))
        more = len(changed(nearest)) - 1
        others = f", and {more} other{'s' * (more > 1)}" if more else ""
        return f"{path}: was {before}, now {after}{others}"


def _avals(leaves: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(
        jax.core.ShapedArray(leaf.shape, leaf.dtype, weak_type=leaf.weak_type)
        if isinstance(leaf, jax.ShapeDtypeStruct)
        else jax.typeof(leaf)
        for leaf in leaves
    )


def _short(aval: Any) -> str:
    return f"{aval} (weakly typed)" if getattr(aval, "weak_type", False) else str(aval)


def _reason(
    why: str,
    skeleton: _core.Skeleton,
    traced: Sequence[_core.Skeleton],
    by_value: Sequence[str],
) -> tuple[str, bool]:
    """Say why a skeleton has no specialization, and whether nothing has any."""
    if why.startswith("changed: "):
        return f"{why.removeprefix('changed: ')} has changed", False
    if why == "not to be shared":
        return "its last trace printed or changed something, and is not shared", False
    if not traced:
        return "it has not been traced yet", True
    nearest = min(traced, key=skeleton._distance)
    text = nearest.diff(skeleton)
    if text is None:
        return "the trace for equal arguments is another dispatcher's", False
    text = text.replace(", now a traced number or array", ", and is traced from now on")
    if text.partition(": ")[0] in by_value:
        text += ", which is not traced since the function needs its value"
    number = len(traced)
    return f"{text}" + (f" (nearest of {number} traced)" if number > 1 else ""), False


def explain(
    compiled: Any,
    skeleton: _core.Skeleton,
    leaves: Sequence[Any],
    why: str | None,
    traced: Sequence[_core.Skeleton],
    by_value: Sequence[str],
) -> str | None:
    """Say why a call would be traced.

    Parameters
    ----------
    compiled : callable or None
        The compiled function that would serve it.
    skeleton : Skeleton
        Of the call.
    leaves : sequence
        Of the call.
    why : str or None
        What the core knows, if there is none.
    traced : sequence of Skeleton
        What the function was traced for.
    by_value : sequence of str
        The paths of numbers that are not traced, since it needs their values.

    Returns
    -------
    str or None
        One line; None if it would not be traced.
    """
    if compiled is None:
        return _reason(why or "", skeleton, traced, by_value)[0]
    shapes = compiled.__wrapped__.shapes
    if not shapes.seen:
        return "it has not been traced yet"
    return cast(str | None, shapes.differ(leaves, skeleton))


def begin(
    specialization: Any, leaves: Sequence[Any], shapes: Shapes, function: str
) -> None:
    """Explain a trace that is about to begin, where that is asked for.

    Parameters
    ----------
    specialization : Specialization
        What is traced.
    leaves : sequence
        Of the call.
    shapes : Shapes
        Those of the traces before.
    function : str
        What a reader calls the function.

    Raises
    ------
    RetracingError
        If it must not begin.
    """
    blocks = [block for block in _blocks.get() if block.is_active]
    explaining = is_explaining()
    if blocks or explaining:
        skeleton, is_first = specialization.skeleton, False
        if shapes.seen:
            reason = shapes.differ(leaves, skeleton)
            reason = reason or "a setting of JAX, or where arrays are, has changed"
        else:
            why, traced = specialization.why or "", specialization.others()
            by_value = specialization.by_value
            reason, is_first = _reason(why, skeleton, traced, by_value)
        again = "" if is_first else " again"
        for block in blocks:
            block.count += block.limit.counts_first or not is_first
            if block.count > block.limit.most:
                raise RetracingError(
                    f"{function} would be traced{again}, which {block.limit.name} "
                    f"forbids: {reason}{_called_from()}"
                )
        if explaining:
            _LOGGER.warning(
                "%s is traced%s: %s%s", function, again, reason, _called_from()
            )


@functools.cache
def _not_the_callers() -> tuple[str, ...]:
    folders = (
        os.path.join(os.path.dirname(os.path.abspath(file)), "")
        for file in (jax.__file__, jaxlib.__file__, __file__)
    )
    return *folders, os.path.join(sysconfig.get_path("stdlib"), "contextlib.py")


def caller() -> types.FrameType | None:
    """Return the frame of who has called the function that is being traced."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        if not frame.f_code.co_filename.startswith(_not_the_callers()):
            return frame
        frame = frame.f_back
    return None


def _called_from() -> str:
    frame = caller()
    if frame is None:
        return ""
    return f"; called at {Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
