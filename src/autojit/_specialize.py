"""A skeleton becomes a ``jax.jit`` of flat leaves: tracers in, a result node out."""

from __future__ import annotations

import inspect
import re
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

from autojit import _core
from autojit._jax_private import hide_frames
from autojit._results import check_handed_through
from autojit._warnings import recorded

hide_frames(__file__)


class Options(NamedTuple):
    """How to compile; dispatchers of one function with equal options share tables."""

    # For `jax.jit`.
    inline: bool = False
    keep_unused: bool = False
    compiler_options: dict[str, Any] | None = None
    # Both say which arguments are donated: by place, and by name.
    donate_argnums: tuple[int, ...] = ()
    donate_argnames: tuple[str, ...] = ()
    # Whether arrays that come back untouched are handed straight back.
    forward: bool = True


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


def _weakly(fun: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(fun)
    except TypeError:  # a builtin that takes none
        return lambda: fun


def _donated(skeleton: _core.Skeleton, options: Options) -> tuple[int, ...]:
    """Return the numbers of the leaves of donated arguments."""
    if not options.donate_argnums and not options.donate_argnames:
        return ()
    count = skeleton._num_positional
    places = [at + count if at < 0 else at for at in options.donate_argnums]
    arguments: list[int | str] = [at for at in places if at >= 0]
    arguments += options.donate_argnames
    return tuple(
        sorted({leaf for one in arguments for leaf in skeleton._argument_leaves(one)})
    )


def specialize(
    fun: Callable[..., Any],
    in_tree: bool,
    trace: Any,
    options: Options,
) -> Callable[..., Any]:
    """Compile a function for the calls that have one skeleton.

    Parameters
    ----------
    fun : callable
        The function.
    in_tree : bool
        Whether `fun` is part of the call tree: then what is called is what the skeleton
        makes of it, and `fun` is not kept.
    trace : Trace
        Knows the skeleton of the call; told of each trace, and of its warnings.
    options : Options
        How to compile.

    Returns
    -------
    callable
        A ``jax.jit``-compiled function of the flat leaves.
    """
    # Weak: the specializations of a function must not keep it alive. Whoever calls
    # them does.
    weak_fun = None if in_tree else _weakly(fun)
    donated = _donated(trace.skeleton, options)

    def flat(*leaves: Any) -> Any:
        # `jax.jit` calls this without tracing only under `jax.disable_jit`. Then the
        # dispatcher calls the function itself, on the caller's own objects.
        if _CONFIG.jax_disable_jit:
            return EAGER
        skeleton = trace.begin()
        traced_fun, args, kwargs = skeleton.unflatten(leaves)
        if weak_fun is not None:
            traced_fun = weak_fun()
        inputs: tuple[Any, ...] = ()
        if options.forward:
            inputs = tuple(None if i in donated else x for i, x in enumerate(leaves))
        with recorded(trace.warnings, leaves):
            try:
                result = traced_fun(*args, **kwargs)
                if issubclass(type(result), Iterator):  # an object may lie
                    result = iter(list(result))
                returned = _core.flatten_result(result, skeleton, inputs)
            except (jax.errors.JAXTypeError, jax.errors.JAXIndexError) as error:
                _say_where(error, skeleton)
                raise
        if isinstance(returned, _core.Result):
            check_handed_through(returned.skeleton, skeleton, trace)
        return returned

    # JAX names the compiled module, profiles and errors after the function, and finds
    # its source by `__wrapped__`; what is called has a signature of its own. To a type
    # checker, functions have no such attributes; to `inspect` they do.
    function = fun.__func__ if isinstance(fun, types.MethodType) else fun
    name = getattr(function, "__name__", None)
    flat.__name__ = name if isinstance(name, str) else type(function).__name__
    if isinstance(function, types.FunctionType):
        flat.__qualname__ = function.__qualname__
        flat.__module__ = function.__module__
        # Not the function itself, which would be kept alive.
        flat.__wrapped__ = types.SimpleNamespace(  # type: ignore[attr-defined]
            __code__=function.__code__, __name__=function.__name__
        )
    flat.__signature__ = _SIGNATURE  # type: ignore[attr-defined]
    return jax.jit(
        flat,
        inline=options.inline,
        keep_unused=options.keep_unused,
        compiler_options=options.compiler_options,
        donate_argnums=donated,
    )
