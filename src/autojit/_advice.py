"""What a user is warned of: traces without end, and changes that are lost."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from autojit import _core
from autojit._explain import Shapes, caller
from autojit._traced import AUTO, can_be_traced

_MOST_COMPARED = 64
_MOST_SHOWN = 5


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
    traced: object,
) -> None:
    """Warn if the traces of a function differ in one place only, when they are many.

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
    traced : object
        The option.
    """
    skeleton = specialization.skeleton
    before: dict[str, list[tuple[str, str]]] = {}
    if shapes.seen:
        for path, was, now in shapes.alone(leaves, skeleton):
            before.setdefault(path, []).append((was, now))
    else:
        others = specialization.others()
        if len(others) + 1 < most:
            return
        for other in others[:_MOST_COMPARED]:
            change = _only_difference(other, skeleton)
            if change is not None and change[0]:  # not a call of another form
                path, was, now = change
                before.setdefault(path, []).append((was, now))
    for path, changes in before.items():
        if len(changes) == most - 1:
            texts = [*(was for was, _ in reversed(changes)), changes[0][1]]
            shown = ", ".join(texts[-_MOST_SHOWN:])
            if len(texts) > _MOST_SHOWN:
                shown = f"..., {shown}"
            advice = _what_to_do(path, changes[0][1], specialization, shapes, traced)
            _warn(
                f"{function} has been traced and compiled {most} times, for calls that "
                f"differ in {path} alone: {shown}. {advice} (The option "
                "retrace_warning of autojit.jit says after how many traces to warn.)",
                RetraceWarning,
            )


def _only_difference(
    before: _core.Skeleton, now: _core.Skeleton
) -> tuple[str, str, str] | None:
    """Return where two calls differ, if in one place: its path, what was, and is."""
    found = before._differences(now)
    if len(found) == 1:
        return found[0]
    text = None if found else before.diff(now)
    if text is None:
        return None
    path, _, what = text.partition(": ")
    was, _, text = what.removeprefix("was ").partition(", now ")
    return path, was, text or what


_NUMBER = re.compile(r"-?[\d.]|-?(nan|inf)\b|\(?-?[\d.]+[-+][\d.]+j|np\.\w+\(")


def _what_to_do(
    path: str, text: str, specialization: Any, shapes: Shapes, traced: object
) -> str:
    if shapes.seen:
        return (
            "JAX compiles a program for each shape and dtype: pad the arrays, so that "
            "there are few."
        )
    if path in specialization.by_value:
        return "The function needs the value, so that it can't be traced."
    is_array = text.startswith("a numpy array")
    is_number = is_array or _NUMBER.match(text) is not None
    # With "auto", all that can be traced would be by now.
    if is_number and traced != AUTO and can_be_traced(path, specialization.skeleton):
        what = "numpy array" if is_array else "number"
        return (
            f"A {what} is static, as all that is no jax.Array: pass it through "
            f'jnp.asarray, or trace it by traced="{path}" or traced="auto".'
        )
    return (
        "All that is no jax.Array is static, and compiled for: make it once and pass "
        "the same, return what grows instead of keeping it, or leave it out of the "
        "call, as a __getstate__ of its class can."
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
    except Exception:  # what it was given may not stand being looked at any more
        return
    if lost:
        more = len(lost) - _MOST_SHOWN
        paths = ", ".join(lost[:_MOST_SHOWN]) + (
            f" and {more} more" if more > 0 else ""
        )
        _warn(
            f"{function} has changed {paths} in place, and does not return it: the "
            "change is lost, since the function has a copy of what it is called with. "
            "Return the object that has changed. (lost_change_warning=False, an option "
            "of autojit.jit, turns this warning off.)",
            LostChangeWarning,
        )
