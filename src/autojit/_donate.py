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
    # Iterators are read once.
    if argnames is not None and not isinstance(argnames, str):
        argnames = tuple(argnames)
    if argnums is not None and not hasattr(argnums, "__index__"):
        argnums = tuple(argnums)
    jax.jit(fun, donate_argnums=argnums, donate_argnames=argnames)  # checks them
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
