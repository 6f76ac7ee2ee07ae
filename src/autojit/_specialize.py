"""A skeleton becomes a ``jax.jit`` of flat leaves: tracers in, a result node out."""

from __future__ import annotations

import functools
import inspect
import re
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

from autojit import _core
from autojit._jax_private import hide_frames

hide_frames(__file__)


class Options(NamedTuple):
    """What ``jax.jit`` is told."""

    inline: bool = False
    keep_unused: bool = False
    compiler_options: dict[str, Any] | None = None


# JAX makes a `Result` of the concrete arrays by calling the C function, so that no
# Python runs, and the dispatcher puts it together. The skeleton is the node's static
# part: JAX keeps the right one with each variant that it compiles.
jax.tree_util.register_pytree_node(
    _core.Result,
    lambda result: (result.leaves, result.skeleton),
    _core.new_result,
)


_CONFIG: Any = jax.config  # its flags have no types in some versions
_SIGNATURE = inspect.Signature(
    [inspect.Parameter("leaves", inspect.Parameter.VAR_POSITIONAL)]
)


class _Eager:
    """What a compiled function returns where JAX does not compile."""


EAGER = _Eager()


def _say_where(error: Exception, skeleton: _core.Skeleton) -> None:
    """Note on an error of JAX, which numbers the leaves, where they stand."""
    if any(note.startswith("leaves[") for note in getattr(error, "__notes__", ())):
        return  # it came through another dispatcher, whose leaves it means
    for number in sorted(set(re.findall(r"\bleaves\[(\d+)\]", str(error))), key=int):
        if int(number) < skeleton.num_leaves:
            error.add_note(f"leaves[{number}] is {skeleton._leaf_path(int(number))}")


def specialize(
    fun: Callable[..., Any],
    in_tree: bool,
    skeleton: _core.Skeleton,
    options: Options,
    traces: Any,
) -> Callable[..., Any]:
    """Compile a function for the calls that have one skeleton.

    Parameters
    ----------
    fun : callable
        The function.
    in_tree : bool
        Whether `fun` is part of the call tree: then what is called is what the skeleton
        makes of it, and `fun` is not kept.
    skeleton : Skeleton
        Of the call.
    options : Options
        For ``jax.jit``.
    traces : TraceCount
        Told of each trace.

    Returns
    -------
    callable
        A ``jax.jit``-compiled function of the flat leaves.
    """
    static_fun: Any = None if in_tree else fun

    def flat(*leaves: Any) -> Any:
        # `jax.jit` calls this without tracing only under `jax.disable_jit`. Then the
        # dispatcher calls the function itself, on the caller's own objects.
        if _CONFIG.jax_disable_jit:
            return EAGER
        traces.increment()
        traced_fun, args, kwargs = skeleton.unflatten(leaves)
        try:
            result = (traced_fun if in_tree else static_fun)(*args, **kwargs)
            if isinstance(result, Iterator):
                result = iter(list(result))
        except (jax.errors.JAXTypeError, jax.errors.JAXIndexError) as error:
            _say_where(error, skeleton)
            raise
        return _core.flatten_result(result)

    # JAX names the compiled module, profiles and errors after the function, and finds
    # its source by `__wrapped__`; what is called has a signature of its own.
    function = fun.__func__ if isinstance(fun, types.MethodType) else fun
    if isinstance(function, types.FunctionType):
        functools.update_wrapper(flat, function, updated=())
    else:
        name = getattr(function, "__name__", None)
        flat.__name__ = name if isinstance(name, str) else type(function).__name__
    # To a type checker, functions have no such attribute; to `inspect` they do.
    flat.__signature__ = _SIGNATURE  # type: ignore[attr-defined]
    return jax.jit(
        flat,
        inline=options.inline,
        keep_unused=options.keep_unused,
        compiler_options=options.compiler_options,
    )
