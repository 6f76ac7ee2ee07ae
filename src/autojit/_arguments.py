"""Arguments that options speak of by place and by name, in ``jax.jit``'s words."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any

import jax

_USES = ("donate", "static")
OPTIONS = tuple(f"{use}_arg{what}" for use in _USES for what in ("nums", "names"))
"""The options that name arguments."""


def named_arguments(
    fun: Callable[..., Any], given: Mapping[str, Any]
) -> dict[str, tuple[Any, ...]]:
    """Check options that name arguments, and infer places from names, and vice versa.

    Parameters
    ----------
    fun : callable
        The function.
    given : mapping
        The options, None for one that was not given: an int, a str, or an iterable of
        these.

    Returns
    -------
    dict
        Those options of which one of a pair was given, in full: a tuple of places, or
        of names.

    Raises
    ------
    TypeError, ValueError
        As ``jax.jit`` raises them.
    """
    known = {name: _read(given[name]) for name in OPTIONS}  # iterators are read once
    jax.jit(fun, **{**known, "donate_argnames": _of_parameters(fun, known)})  # checks
    inferred: dict[str, tuple[Any, ...]] = {}
    for use in _USES:
        pair = f"{use}_argnums", f"{use}_argnames"
        if any(known[name] is not None for name in pair):
            places_and_names = _infer(fun, *(known[name] for name in pair))
            inferred.update(zip(pair, places_and_names, strict=True))
    return inferred


def _of_parameters(fun: Callable[..., Any], given: Mapping[str, Any]) -> Any:
    """Leave out `self`, the object that is called: ``jax.jit`` does not know it."""
    names = given["donate_argnames"]
    if isinstance(fun, (types.FunctionType, type)) or names is None:
        return names
    left = tuple(name for name in _as_tuple(names) if name != "self")
    return left or None


def _read(given: Any) -> Any:
    if given is None or isinstance(given, str) or hasattr(given, "__index__"):
        return given
    return tuple(given)


def _infer(
    fun: Callable[..., Any], argnums: Any, argnames: Any
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    nums = _as_tuple(argnums)
    names = _as_tuple(argnames)
    try:
        parameters = list(inspect.signature(fun).parameters.values())
    except (TypeError, ValueError):  # some builtins have none
        return nums, names
    kinds = [parameter.kind for parameter in parameters]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        # From the end of the parameters, not of what a call happens to pass.
        count = sum(kind in _POSITIONAL for kind in kinds)
        nums = tuple(place + count if place < 0 else place for place in nums)
    either = [
        (place, parameter.name)
        for place, parameter in enumerate(parameters)
        if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]
    if argnums is None:
        nums = tuple(place for place, name in either if name in names)
    elif argnames is None:
        names = tuple(name for place, name in either if place in nums)
    return nums, names


_POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)


def _as_tuple(given: Any) -> tuple[Any, ...]:
    if given is None:
        return ()
    if isinstance(given, str):
        return (given,)
    if hasattr(given, "__index__"):
        return (given.__index__(),)
    return tuple(one if isinstance(one, str) else one.__index__() for one in given)
