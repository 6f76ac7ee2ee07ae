"""Where Python numbers and numpy arrays are traced, as ``jax.jit`` does everywhere."""

from __future__ import annotations

import ast
import inspect
import re
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from autojit import _core

AUTO = "auto"
"""In the place of paths: those that the calls tell."""

Steps = tuple[str, ...]
Place = tuple[str, tuple[Steps, ...], bool]


class Places(NamedTuple):
    """The option `traced` as the core takes it.

    Attributes
    ----------
    learns : bool
        Whether calls tell more places.
    known : tuple
        For each that is known the path, all steps to which it leads, since an argument
        may be passed by its place and by its name, and whether it is traced or static.
    """

    learns: bool
    known: tuple[Place, ...]


_STEP = r"\.[^\W\d]\w*|\[[^\[\]]*\]"
_PATH = rf"([^\W\d]\w*)((?:{_STEP})*)\Z"


class ValueNeededError(Exception):
    """A function needs the values of leaves, whose numbers are its arguments."""


def named_places(
    fun: Callable[..., Any],
    given: bool | str | Iterable[str],
    static_argnums: Sequence[int] | None,
    static_argnames: Sequence[str] | None,
) -> Places | None:
    """Read the option `traced`.

    Parameters
    ----------
    fun : callable
        The function.
    given : bool, str or iterable of str
        True for all arguments, ``"auto"``, or paths of arguments.
    static_argnums, static_argnames : sequence of int and of str, optional
        Arguments in which nothing is traced.

    Returns
    -------
    Places or None
        None for no places.

    Raises
    ------
    TypeError, ValueError
        If it is no path, or begins with a name that is no parameter's.
    """
    learns = given == AUTO
    paths: tuple[str, ...] = ()
    if not (learns or isinstance(given, bool)):
        paths = (given,) if isinstance(given, str) else tuple(given)
    try:
        parameters = list(inspect.signature(fun).parameters.values())
    except (TypeError, ValueError):  # some builtins have none
        parameters = []
    known = [(path, _leads_to(path, parameters, fun), True) for path in paths]
    if given is True:
        known.append(("", ((),), True))
    if not (learns or known):
        return None
    static = [f"args[{number}]" for number in static_argnums or ()]
    static += [f"kwargs[{name!r}]" for name in static_argnames or ()]
    known += [("", ((step,),), False) for step in static]
    return Places(learns, tuple(known))


def _leads_to(
    path: str, parameters: list[inspect.Parameter], fun: object
) -> tuple[Steps, ...]:
    if not isinstance(path, str):
        raise TypeError(f"traced must be paths of arguments, got {path!r}")
    match = re.match(_PATH, path)
    if match is None:
        raise ValueError(
            f'traced must be paths of arguments, such as "state.step" or '
            f"\"config['lr']\", got {path!r}"
        )
    root, rest = match[1], [_as_written(step) for step in re.findall(_STEP, match[2])]
    if root in ("args", "kwargs") and rest:  # as messages have it
        return ((root + rest[0], *rest[1:]),)
    found: list[Steps] = []
    for place, parameter in enumerate(parameters):
        if parameter.name == root and parameter.kind in _BY_PLACE:
            found.append((f"args[{place}]", *rest))
    for parameter in parameters:
        if parameter.name == root and parameter.kind in _MANY:
            raise ValueError(
                f"traced={path!r} stands for any number of arguments: name them one by "
                'one, such as "args[0]" or "kwargs[\'name\']", or say traced=True'
            )
    named = {p.name for p in parameters if p.kind in _BY_NAME}
    if root in named or any(p.kind is p.VAR_KEYWORD for p in parameters):
        found.append((f"kwargs[{root!r}]", *rest))
    if not found and root in ("self", "fun"):  # what is called, and is taken apart
        is_method = root == "self" and isinstance(fun, types.MethodType)
        return (("fun", *([".__self__"] if is_method else []), *rest),)
    if not found:
        names = ", ".join(parameter.name for parameter in parameters)
        raise ValueError(f"traced={path!r}: {fun!r} has no parameter {root}: ({names})")
    return tuple(found)


_BY_PLACE = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)
_MANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_BY_NAME = (
    inspect.Parameter.KEYWORD_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)


def _as_written(step: str) -> str:
    """Return a step as the core writes it."""
    if step.startswith("["):
        try:
            return f"[{ast.literal_eval(step[1:-1])!r}]"
        except (ValueError, SyntaxError):  # a key that is no literal
            pass
    return step


def check_places(skeleton: _core.Skeleton, places: Places) -> None:
    """See that paths lead somewhere in a call.

    Parameters
    ----------
    skeleton : Skeleton
        Of the call.
    places : Places
        As `named_places` returns them.

    Raises
    ------
    ValueError
        If one leads nowhere, but for an argument that is not passed.
    """
    for path, leads_to, _ in places.known:
        if not path:
            continue
        roots = [steps for steps in leads_to if skeleton._leads(steps[:1])]
        if roots and not any(map(skeleton._leads, roots)):
            (steps, *_) = roots
            known = max(
                (
                    steps[:end]
                    for end in range(1, len(steps))
                    if skeleton._leads(steps[:end])
                ),
                key=len,
            )
            raise ValueError(
                f"traced={path!r} leads nowhere: {''.join(known)} has no "
                f"{steps[len(known)]}"
            )


def values_needed(error: Exception, skeleton: _core.Skeleton) -> tuple[int, ...]:
    """Tell of which leaves a function may need the values, since it has failed.

    Parameters
    ----------
    error : Exception
        What it raised in a trace.
    skeleton : Skeleton
        Of the call.

    Returns
    -------
    tuple of int
        Those at places that were learned: the ones that JAX speaks of, or all.
    """
    learned = skeleton._learned()
    args = vars(BaseException)["args"].__get__(error)  # a class may say something else
    text = "\n".join(arg for arg in args if type(arg) is str)
    named = {int(number) for number in re.findall(r"\bleaves\[(\d+)\]", text)}
    return tuple(leaf for leaf in learned if leaf in named) or tuple(learned)


_TRACER = r"Tracer\(|Tracer<|Traced<"


def is_text_of_tracer(returned: Any) -> bool:
    """Whether a result holds text that was made of a tracer, such as ``f"{n}"``.

    Parameters
    ----------
    returned : Result or jax.Array
        What a trace returns.

    Returns
    -------
    bool
        The text may be a key, or a part of one.
    """
    return isinstance(returned, _core.Result) and bool(
        re.search(_TRACER, str(returned.skeleton))
    )
