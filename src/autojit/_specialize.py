"""A skeleton becomes a ``jax.jit`` of flat leaves: tracers in, a result node out."""

from __future__ import annotations

import functools
import inspect
import re
import types
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from autojit import _core, _explain
from autojit._advice import warn_of_lost_changes, warn_of_retraces
from autojit._jax_private import hide_frames
from autojit._options import FOR_JAX
from autojit._results import check_handed_through, take_back_tracers
from autojit._statistics import CountedTrace
from autojit._traced import (
    ValueNeededError,
    check_places,
    is_text_of_tracer,
    values_needed,
)
from autojit._warnings import recorded

hide_frames(__file__)


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


_STATIC_HERE = (
    "under autojit.jit static_argnums makes no difference: a Python number is static "
    "where an array is traced"
)


def say_where(
    error: Exception, skeleton: _core.Skeleton, compiled: Any, leaves: Sequence[Any]
) -> None:
    """Note on an error of JAX, which numbers the leaves, where they stand.

    Parameters
    ----------
    error : Exception
        What a compiled function raised, while it was traced or while it ran. It may be
        the user's own, so its ``str`` is not asked for.
    skeleton : Skeleton
        Of the call.
    compiled : callable
        The compiled function.
    leaves : sequence of jax.Array
        What it was called with.
    """
    texts = [arg for arg in error.args if type(arg) is str]
    text = "\n".join(texts)
    flat = compiled.__wrapped__
    # JAX says of which function it speaks, which may be one inside of this or outside.
    if (
        f"{flat.source} for " in text  # while tracing the function …
        or f"{flat.source} traced for " in text
        or f" of {flat.__qualname__} with " in text  # argument …
    ):
        _note_paths(error, "leaves", text, skeleton)
        result = getattr(flat, "result", None)
        if result is not None:
            _note_paths(error, "result", text, result)
        if "static_argnums" in text:
            _note(error, _STATIC_HERE)
    if "has been deleted" in text:
        _note_deleted(error, skeleton, leaves)
    if "donate the same buffer" in text or "donated in the same call" in text:
        _note_same(error, skeleton, leaves)


def _note_paths(
    error: Exception, name: str, text: str, skeleton: _core.Skeleton
) -> None:
    if any(note.startswith(f"{name}[") for note in getattr(error, "__notes__", ())):
        return  # it came through another dispatcher of the same function
    found = re.findall(rf"\b{name}\[(\d+)\]", text)
    for number in sorted({int(digits) for digits in found}):
        if number < skeleton.num_leaves:
            _note(error, f"{name}[{number}] is {skeleton._leaf_path(number)}")


# XLA numbers the arguments too, but not those that the function makes no use of.
def _note_deleted(
    error: Exception, skeleton: _core.Skeleton, leaves: Sequence[Any]
) -> None:
    for number, leaf in enumerate(leaves):
        if _is_concrete(leaf) and leaf.is_deleted():
            path = skeleton._leaf_path(number)
            _note(
                error,
                f"{path} is a deleted array: it may have been donated before, by "
                "itself or as the argument of a function that handed it back "
                "untouched (forward=False makes copies)",
            )


def _note_same(
    error: Exception, skeleton: _core.Skeleton, leaves: Sequence[Any]
) -> None:
    first: dict[int, int] = {}
    for number, leaf in enumerate(leaves):
        if _is_concrete(leaf) and first.setdefault(id(leaf), number) != number:
            paths = map(skeleton._leaf_path, (first[id(leaf)], number))
            _note(error, "{} and {} are one array".format(*paths))


def _is_concrete(leaf: object) -> bool:
    return isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer)


def _note(error: Exception, note: str) -> None:
    if note not in getattr(error, "__notes__", ()):
        BaseException.add_note(error, note)


def _function_of(fun: Any) -> tuple[types.FunctionType, str] | None:
    """Return the function that a callable runs in the end, and its name.

    As JAX looks for it. For a callable object, where JAX gives up, it is its method.
    """
    try:
        while isinstance(fun, functools.partial):
            fun = fun.func
        fun = inspect.unwrap(fun)
        if isinstance(fun, types.MethodType):
            fun = fun.__func__
        if isinstance(fun, types.FunctionType):
            return fun, fun.__name__
        method = type(fun).__call__
        if isinstance(method, types.FunctionType):
            return method, f"{type(fun).__name__}.__call__"
    except Exception:  # an object may answer what it likes
        pass
    return None


class _Names:
    """What JAX and messages call a function: the same for all its specializations."""

    __slots__ = ("full_name", "source", "where")

    def __init__(self, named: Any, name: str, code: types.CodeType) -> None:
        # Not the function itself, which would be kept alive.
        self.source = types.SimpleNamespace(__code__=code, __name__=name)
        module = getattr(named, "__module__", None)
        self.full_name = f"{module}.{getattr(named, '__qualname__', name)}"
        self.where = f"{name} at {code.co_filename}:{code.co_firstlineno}"


_known_names: weakref.WeakKeyDictionary[types.FunctionType, _Names] = (
    weakref.WeakKeyDictionary()
)


def _names_of(function: types.FunctionType, name: str) -> _Names:
    names = _known_names.get(function)
    if (
        names is None
        or names.source.__code__ is not function.__code__
        or names.source.__name__ != name
    ):
        names = _known_names[function] = _Names(function, name, function.__code__)
    return names


def _weakly(fun: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(fun)
    except TypeError:  # a builtin that takes none
        return lambda: fun


def leaves_in(
    use: str, skeleton: _core.Skeleton, options: dict[str, Any]
) -> tuple[int, ...]:
    """Find the leaves of arguments that options speak of.

    Parameters
    ----------
    use : {"donate", "static"}
        Which options.
    skeleton : Skeleton
        Of the call.
    options : dict
        All of them, see `JitOptions`.

    Returns
    -------
    tuple of int
        Their numbers.
    """
    if options[f"{use}_argnums"] is None:
        return ()
    count = skeleton._num_positional
    places = [at + count if at < 0 else at for at in options[f"{use}_argnums"]]
    arguments: list[int | str] = [at for at in places if at >= 0]
    arguments += options[f"{use}_argnames"]
    return tuple(
        sorted({leaf for one in arguments for leaf in skeleton._argument_leaves(one)})
    )


def _check_static(skeleton: _core.Skeleton, options: dict[str, Any]) -> None:
    """Look for arrays where ``jax.jit`` would find that they can't be hashed."""
    for leaf in leaves_in("static", skeleton, options):
        path = skeleton._leaf_path(leaf)
        if "." not in path:  # not in an object, which may hash whatever it holds
            raise ValueError(
                f"{path} is an array, in an argument that is static by static_argnums "
                "or static_argnames: name only arguments without arrays there, or none "
                "at all, since all that is no array is static anyway"
            )


def specialize(
    fun: Callable[..., Any],
    in_tree: bool,
    specialization: Any,
    options: dict[str, Any],
) -> Callable[..., Any]:
    """Compile a function for the calls that have one skeleton.

    Parameters
    ----------
    fun : callable
        The function.
    in_tree : bool
        Whether `fun` is part of the call tree: then what is called is what the skeleton
        makes of it, and `fun` is not kept.
    specialization : Specialization
        Knows the skeleton of the call; told of each trace, and of its warnings.
    options : dict
        How to compile, see `JitOptions`.

    Returns
    -------
    callable
        A ``jax.jit``-compiled function of the flat leaves.
    """
    # Weak: the specializations of a function must not keep it alive. Whoever calls
    # them does.
    weak_fun = None if in_tree else _weakly(fun)
    _check_static(specialization.skeleton, options)
    donated = leaves_in("donate", specialization.skeleton, options)
    traced = options["traced"]
    learns = traced is not None and traced.learns
    most_traces = options["retrace_warning"]

    def flat(*leaves: Any) -> Any:
        # `jax.jit` calls this without tracing only under `jax.disable_jit`. Then the
        # dispatcher calls the function itself, on the caller's own objects.
        if _CONFIG.jax_disable_jit:
            return EAGER
        own_fun = None if weak_fun is None else weak_fun()
        _explain.begin(specialization, leaves, about.shapes, about.full_name)
        if most_traces is not None:
            warn_of_retraces(
                specialization,
                leaves,
                about.shapes,
                about.full_name,
                most_traces,
                learns,
            )
        skeleton = specialization.begin(own_fun)
        if traced is not None and not specialization.others():
            check_places(skeleton, traced)
        inputs: tuple[Any, ...] = ()
        if options["forward"]:
            inputs = tuple(None if i in donated else x for i, x in enumerate(leaves))
        with (
            CountedTrace(specialization, about.full_name),
            recorded(specialization.warnings, leaves),
        ):
            try:
                traced_fun, args, kwargs = skeleton.unflatten(leaves)
                if own_fun is not None:
                    traced_fun = own_fun
                result = given = traced_fun(*args, **kwargs)
                if issubclass(type(result), Iterator):  # an object may lie
                    result = iter(list(result))
                if options["lost_change_warning"]:
                    warn_of_lost_changes(
                        skeleton,
                        leaves,
                        (given, result),  # an iterator may be an argument
                        (traced_fun if in_tree else None, args, kwargs),
                        about.full_name,
                    )
                # What they hold is now held by the result alone.
                traced_fun = own_fun = args = kwargs = given = None
                returned = _core.flatten_result(result, skeleton, inputs)
                if isinstance(returned, _core.Result):
                    check_handed_through(returned.skeleton, skeleton, specialization)
                if learns and skeleton._learned() and is_text_of_tracer(returned):
                    raise ValueNeededError
            except Exception as error:
                if learns and specialization.is_called:
                    needed = values_needed(error, skeleton)
                    if needed:
                        raise ValueNeededError(*needed) from None
                raise
            finally:
                take_back_tracers(skeleton._sentinels())
        if isinstance(returned, _core.Result) and any(
            isinstance(leaf, jax.Ref) for leaf in returned.leaves
        ):
            # JAX will say by number which one cannot be returned.
            about.result = returned.skeleton
        about.shapes.add(leaves)
        specialization.end()
        return returned

    # JAX names the compiled module, profiles and errors after the function, and finds
    # its source by `__wrapped__`; what is called has a signature of its own.
    about: Any = flat  # to a type checker, functions have no such attributes
    about.shapes = _explain.Shapes()
    function: Any = fun
    while True:
        if isinstance(function, types.MethodType):
            function = function.__func__
        elif isinstance(function, functools.partial):
            function = function.func
        else:
            break
    name = getattr(function, "__name__", None)
    flat.__name__ = name if isinstance(name, str) else type(function).__name__
    flat.__qualname__ = type(function).__qualname__
    if isinstance(function, types.FunctionType):
        flat.__qualname__ = function.__qualname__
        flat.__module__ = function.__module__
    if (runs := _function_of(fun)) is not None:
        names = _names_of(*runs)
        about.__wrapped__ = names.source
    else:
        names = _Names(function, flat.__name__, flat.__code__)
    about.full_name, about.source = names.full_name, names.where
    about.__signature__ = _SIGNATURE
    return jax.jit(
        flat,
        donate_argnums=donated or None,  # with none, even an empty tuple takes longer
        **{name: options[name] for name in FOR_JAX},
    )
