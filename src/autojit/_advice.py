"""What a user is warned of: traces without end, and changes that are lost."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Any

from autojit import _core
from autojit._explain import Shapes, caller

_MOST_COMPARED = 64
_MOST_SHOWN = 5
_MOST_PLACES = 4

_Changes = list[tuple[str, str, str, bool]]
"""Places that differ: the path, what was there, what is, and if it could be traced."""


class RetraceWarning(UserWarning):
    """A function is traced again and again, for calls that differ in one place."""

    __module__ = "autojit"


class LostChangeWarning(UserWarning):
    """A function has changed an argument in place, and has not returned it."""

    __module__ = "autojit"


def _warn(text: str, category: type[Warning]) -> None:
    frame = caller() or sys._getframe(1)
    warnings.warn_explicit(
        text,
        category,
        frame.f_code.co_filename,
        frame.f_lineno,
        module=frame.f_globals.get("__name__", "<unknown>"),
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )


def warn_of_retraces(
    specialization: Any,
    leaves: Sequence[Any],
    shapes: Shapes,
    function: str,
    most: int,
    learns: bool,
) -> None:
    """Warn if the traces of a function differ in few places only, when they are many.

    Parameters
    ----------
    specialization : Specialization
        What is about to be traced.
    leaves : sequence
        Of the call.
    shapes : Shapes
        Those of the traces before.
    function : str
        What a reader calls the function.
    most : int
        How many are many.
    learns : bool
        Whether all that can be traced is found by itself.
    """
    skeleton = specialization.skeleton
    before: dict[tuple[str, ...], list[_Changes]] = {}
    if shapes.seen:
        if len(shapes.seen) + 1 < most:
            return
        for path, was, now in shapes.alone(leaves, skeleton, most - 1):
            before.setdefault((path,), []).append([(path, was, now, False)])
    else:
        others = specialization.others()
        if len(others) + 1 < most:
            return
        for other in others[:_MOST_COMPARED]:
            changes = _differences(other, skeleton)
            paths = tuple(path for path, _, _, _ in changes)
            if 0 < len(paths) <= _MOST_PLACES and "" not in paths:  # else another call
                before.setdefault(paths, []).append(changes)
    for paths, seen in before.items():
        if len(seen) == most - 1:
            values = [_values(seen, place) for place in range(len(paths))]
            if len(paths) > 1:
                values = [
                    f"{path} was {v}" for path, v in zip(paths, values, strict=True)
                ]
            can_trace = not learns and all(change[3] for change in seen[0])
            advice = _what_to_do(paths, specialization, shapes, can_trace)
            _warn(
                f"{function} has been traced and compiled {most} times, for calls that "
                f"differ in {' and '.join(paths)} alone: {'; '.join(values)}. {advice} "
                "(The option retrace_warning of autojit.jit says after how many traces "
                "to warn.)",
                RetraceWarning,
            )


def _values(seen: list[_Changes], place: int) -> str:
    """Say what has stood at one of the places, in the order of the calls."""
    values = [changes[place][1] for changes in reversed(seen)]
    values.append(seen[0][place][2])
    shown = ", ".join(values[-_MOST_SHOWN:])
    return f"..., {shown}" if len(values) > _MOST_SHOWN else shown


def _differences(before: _core.Skeleton, now: _core.Skeleton) -> _Changes:
    """Return where two calls differ: the paths, what was, and is."""
    found = before._differences(now)
    text = None if found else before.diff(now)
    if text is None:
        return found
    path, _, what = text.partition(": ")
    was, _, text = what.removeprefix("was ").partition(", now ")
    return [(path, was, text or what, False)]


def _what_to_do(
    paths: tuple[str, ...], specialization: Any, shapes: Shapes, can_trace: bool
) -> str:
    if shapes.seen:
        return (
            "JAX compiles a program for each shape and dtype: pad or convert the "
            "arrays, so that there are few."
        )
    if any(path in specialization.by_value for path in paths):
        return "The function needs the value, so that it can't be traced."
    if can_trace:
        named = f'"{paths[0]}"' if len(paths) == 1 else str(paths).replace("'", '"')
        return (
            "Numbers and numpy arrays are static, as all that is no jax.Array. Pass "
            "them through jnp.asarray, or have them traced: "
            f'traced={named} or traced="auto".'
        )
    return (
        "All that is no jax.Array is static, and compiled for. That is well if there "
        "are only a few; else make it once and pass the same, return what grows "
        "instead of keeping it, or leave it out of the call, as a __getstate__ of its "
        "class can."
    )


def warn_of_lost_changes(
    skeleton: _core.Skeleton,
    leaves: tuple[Any, ...],
    result: object,
    call: tuple[Any, tuple[Any, ...], dict[str, Any]],
    function: str,
) -> None:
    """Warn of what a function has changed in its arguments and does not return.

    Parameters
    ----------
    skeleton : Skeleton
        Of the call.
    leaves : tuple
        The tracers that it was given.
    result : object
        What it returns.
    call : tuple
        The callable, None if it is not part of the call, and the arguments that it was
        called with: those that it may have changed.
    function : str
        What a reader calls the function.
    """
    try:
        lost = skeleton._lost(leaves, result, *call)
        if lost:  # a copy may be taken apart otherwise than its original
            known = skeleton._lost(leaves, None, *skeleton.unflatten(leaves))
            lost = [path for path in lost if path not in known]
    except Exception:  # what it was given may not stand being looked at any more
        return
    if lost:
        paths = ", ".join(lost[:_MOST_SHOWN])
        if len(lost) > _MOST_SHOWN:
            paths += " and more"
        _warn(
            f"{function} has changed {paths} in place, and does not return it: the "
            "change is lost, since the function has a copy of what it is called with. "
            "Return the object that has changed. (lost_change_warning=False, an option "
            "of autojit.jit, turns this warning off.)",
            LostChangeWarning,
        )
