"""The options of `jit`: each is one field here, and a paragraph in its docstring."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Annotated, Any, TypedDict, cast

from autojit._arguments import OPTIONS, named_arguments
from autojit._limits import as_bound
from autojit._traced import named_places


class _Default:
    """What an option is if it is not given; and whether it goes on to ``jax.jit``."""

    def __init__(self, value: Any, *, for_jax: bool = False) -> None:
        self.value = value
        self.for_jax = for_jax


class JitOptions(TypedDict, total=False):
    """What `jit` takes beside the function."""

    inline: Annotated[bool, _Default(False, for_jax=True)]
    keep_unused: Annotated[bool, _Default(False, for_jax=True)]
    compiler_options: Annotated[dict[str, Any] | None, _Default(None, for_jax=True)]
    donate_argnums: Annotated[int | Sequence[int] | None, _Default(None)]
    donate_argnames: Annotated[str | Iterable[str] | None, _Default(None)]
    static_argnums: Annotated[int | Sequence[int] | None, _Default(None)]
    static_argnames: Annotated[str | Iterable[str] | None, _Default(None)]
    traced: Annotated[bool | str | Iterable[str] | None, _Default(None)]
    forward: Annotated[bool, _Default(True)]
    share: Annotated[Hashable, _Default(True)]
    retrace_warning: Annotated[int | None, _Default(4)]
    lost_change_warning: Annotated[bool, _Default(True)]
    maxsize: Annotated[int | None, _Default(4096)]
    maxbytes: Annotated[int | None, _Default(2**28)]


_HINTS = typing.get_type_hints(JitOptions, include_extras=True)
_DECLARED: dict[str, _Default] = {
    name: hint.__metadata__[0] for name, hint in _HINTS.items()
}
DEFAULTS = {name: declared.value for name, declared in _DECLARED.items()}
FOR_JAX = tuple(name for name, declared in _DECLARED.items() if declared.for_jax)


class Checked(typing.NamedTuple):
    """Options as the core takes them: dispatchers with equal ones share a table."""

    options: dict[str, Any]
    maxsize: int  # 0: unbounded, as `maxbytes`
    maxbytes: int

    def of(self, fun: Callable[..., Any]) -> Checked:
        """Say which arguments are donated, static or traced, by place and by name.

        Parameters
        ----------
        fun : callable
            The function, whose parameters they are.

        Returns
        -------
        Checked
            The options for this function.

        Raises
        ------
        TypeError, ValueError
            As ``jax.jit`` raises them.
        """
        options = self.options
        if [name for name in OPTIONS if options[name] is not None]:
            options = options | named_arguments(fun, options)
        if options["traced"] is not None:
            places = named_places(
                fun,
                options["traced"],
                options["static_argnums"],
                options["static_argnames"],
            )
            options = options | {"traced": places}
        return self._replace(options=options)


_INSTEAD = {
    "in_shardings": "put the arrays where they belong with jax.device_put, before the "
    "call: it computes where its arguments are",
    "out_shardings": "use jax.lax.with_sharding_constraint in the function",
    "device": "use jax.device_put on the arguments, or jax.default_device",
    "backend": "use jax.device_put on the arguments, or jax.default_device",
    "abstracted_axes": "export the function with symbolic shapes, see Dispatcher.flat",
}
"""What to do where ``jax.jit`` has an option that makes no sense for objects."""


def checked(given: JitOptions) -> Checked:
    """Check options.

    Parameters
    ----------
    given : dict
        What the user gave.

    Returns
    -------
    Checked
        All options.

    Raises
    ------
    TypeError
        If there is no such option, or one is of the wrong type.
    ValueError
        If a bound is not positive.
    """
    for name, value in given.items():
        if name in _INSTEAD:
            raise TypeError(f"autojit.jit has no {name}: {_INSTEAD[name]}")
        if name not in DEFAULTS:
            raise TypeError(f"jit() got an unexpected keyword argument {name!r}")
        is_flag = _HINTS[name].__origin__ is bool
        # Later versions of JAX know more ways to inline.
        if is_flag and name != "inline" and not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, got {value!r}")
        if name == "share" and not isinstance(value, Hashable):
            raise TypeError(f"share must be a bool or hashable, got {value!r}")
    options = DEFAULTS | cast(dict[str, Any], given)
    most = options["retrace_warning"]
    if most is not None and (type(most) is not int or most < 2):
        raise TypeError(
            f"retrace_warning must be None or a number, at least 2, got {most!r}"
        )
    bounds = [as_bound(name, options.pop(name)) for name in ("maxsize", "maxbytes")]
    compiler_options = options["compiler_options"]
    if compiler_options is not None:
        if not isinstance(compiler_options, dict):
            raise TypeError(
                f"compiler_options must be a dict or None, got {compiler_options!r}"
            )
        options["compiler_options"] = dict(compiler_options)  # the caller's may change
    return Checked(options, *bounds)


UNSET = checked({})
"""Those of a function that is wrapped without any."""

QUIET: JitOptions = {
    "forward": False,
    "retrace_warning": None,
    "lost_change_warning": False,
}
"""Those with which `jit` does no more than array-api-extra's ``jax_autojit``."""


def signature(jit: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of `jit` with all options by their names."""
    own = inspect.signature(jit)
    parameters = list(own.parameters.values())[:-1]
    parameters += [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=DEFAULTS[name],
            annotation=hint.__origin__,
        )
        for name, hint in _HINTS.items()
    ]
    return own.replace(parameters=parameters)
