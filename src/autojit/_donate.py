"""Which arguments are donated, said in ``jax.jit``'s words."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax


def donated_arguments(
    fun: Callable[..., Any],
    argnums: int | Sequence[int] | None,
    argnames: str | Iterable[str] | None,
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Check what is to be donated, and infer one of the two from the other.

    Parameters
    ----------
    fun : callable
        The function.
    argnums : int, sequence of int or None
        Places of positional arguments.
    argnames : str, iterable of str or None
        Names of arguments.

    Returns
    -------
    argnums : tuple of int
        Places, as they were given or inferred.
    argnames : tuple of str
        Names, as they were given or inferred.

    Raises
    ------
    TypeError, ValueError
        As ``jax.jit`` raises them.
    """
    if argnames is not None and not isinstance(argnames, str):
        argnames = tuple(argnames)  # it may be an iterator
    jax.jit(fun, donate_argnums=argnums, donate_argnames=argnames)  # checks them
    nums = _as_tuple(argnums, int)
    names = _as_tuple(argnames, str)
    if argnums is not None and argnames is not None:
        return nums, names
    try:
        parameters = inspect.signature(fun).parameters.values()
    except (TypeError, ValueError):  # some builtins have none
        return nums, names
    either = [
        (place, parameter.name)
        for place, parameter in enumerate(parameters)
        if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]
    if argnums is None:
        return tuple(place for place, name in either if name in names), names
    return nums, tuple(name for place, name in either if place in nums)


def _as_tuple(given: Any, kind: type) -> tuple[Any, ...]:
    if given is None:
        return ()
    if kind is int:
        try:
            return (given.__index__(),)
        except AttributeError:
            return tuple(number.__index__() for number in given)
    return (given,) if isinstance(given, kind) else tuple(given)
