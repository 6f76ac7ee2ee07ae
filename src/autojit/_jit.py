"""The public functions."""

from __future__ import annotations

import copyreg
import enum
import os
import site
import sys
import sysconfig
import types
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, TypeVar, Unpack, overload

import cloudpickle
import jax
import numpy as np

from autojit import _core
from autojit._core import Dispatcher, Skeleton
from autojit._exceptions import Traceback
from autojit._explain import explain
from autojit._jax_private import is_leaf, is_tracing, settings
from autojit._options import QUIET, UNSET, JitOptions, checked, signature
from autojit._reduce import arrays_differ, reduce, set_state
from autojit._results import LAZY_TYPES
from autojit._specialize import EAGER, say_where, specialize
from autojit._stages import stage
from autojit._state import state_of
from autojit._traced import ValueNeededError
from autojit._tree import is_inexact
from autojit._warnings import mark_seen, replay

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class CacheInfo(NamedTuple):
    """What a dispatcher has done since its cache was last cleared.

    Attributes
    ----------
    hits : int
        Calls that an existing specialization served.
    misses : int
        Calls that made a new specialization.
    traces : int
        How often the function body was traced. One specialization is traced again for
        arrays of another shape or dtype, as under ``jax.jit``.
    currsize : int
        The number of specializations.
    maxsize : int or None
        Their bound; None if there is none.
    currbytes : int
        How many bytes the static parts of all specializations have.
    maxbytes : int or None
        Their bound; None if there is none.
    """

    hits: int
    misses: int
    traces: int
    currsize: int
    maxsize: int | None
    currbytes: int
    maxbytes: int | None


class SpecializationInfo(NamedTuple):
    """What a dispatcher has for one static part that calls had.

    Attributes
    ----------
    skeleton : Skeleton
        The static part.
    hits : int
        How many calls it has served after the first.
    traces : int
        How often the function body was traced for it: once for each shape and dtype of
        the arrays, as under ``jax.jit``.
    trace_seconds : float
        How long that took.
    compile_seconds : float
        How long the rest of these calls took: lowering, compiling and running once.
    bytes : int
        How many bytes the static part takes.
    """

    skeleton: Skeleton
    hits: int
    traces: int
    trace_seconds: float
    compile_seconds: float
    bytes: int


@overload
def jit(fun: Callable[P, R], /, **options: Unpack[JitOptions]) -> Dispatcher[P, R]: ...


@overload
def jit(
    fun: None = None, /, **options: Unpack[JitOptions]
) -> Callable[[Callable[P, R]], Dispatcher[P, R]]: ...


def jit(
    fun: Callable[P, R] | None = None, /, **options: Unpack[JitOptions]
) -> Dispatcher[P, R] | Callable[[Callable[P, R]], Dispatcher[P, R]]:
    """Compile a function with JAX, whatever its arguments are.

    The arrays that are found in the arguments, however deep, are traced; all the rest
    is static. The function sees the same objects with tracers in place of the arrays,
    and the caller gets the same results with arrays in place of the tracers.

    Parameters
    ----------
    fun : callable, optional
        The function. Without it, a decorator is returned. If it is an object with
        state (a bound method, a partial, a module that can be called), arrays in it are
        traced too.
    inline : bool, default: False
        See ``jax.jit``.
    keep_unused : bool, default: False
        See ``jax.jit``.
    compiler_options : dict, optional
        See ``jax.jit``.
    donate_argnums : int or sequence of int, optional
        Which positional arguments are donated: the compiled function may use the memory
        of all arrays in them, which are deleted. See ``jax.jit``, also for how one of
        this and `donate_argnames` is inferred from the other.
    donate_argnames : str or iterable of str, optional
        The same by name. If `fun` is an object with state, ``"self"`` donates the
        arrays in that.
    static_argnums : int or sequence of int, optional
        Which positional arguments hold no arrays. All that is no array is static
        anyway: this is there for functions that were wrapped by ``jax.jit``, and makes
        an array there an error, as it does.
    static_argnames : str or iterable of str, optional
        The same by name.
    traced : bool, str or iterable of str, optional
        Paths of arguments, as messages write them, in which Python numbers and numpy
        arrays and scalars are traced as under ``jax.jit``: ``"lr"``, ``"state.step"``,
        ``"config['lr']"``, ``"batch"``. A bool stays static. A number that the function
        returns untouched is the very one that came in. ``"self"`` is an object with
        state that is wrapped. True means all arguments. ``"auto"`` traces them where
        two different ones have been seen, unless the function needs the value.
    forward : bool, default: True
        Whether an array that the function returns untouched is handed straight back:
        the very object that came in, without a copy or an output of the compiled
        function. Donated arrays never are.
    share : bool or hashable, default: True
        With whom this dispatcher shares what it compiles: with all others of the
        function that have equal options. What one has traced, another takes if all that
        the function reads is as it was. Anything hashable but True and False names a
        group, and shares within that; False shares with none.
    retrace_warning : int or None, default: 4
        After how many traces for calls that differ in one place alone to warn of them,
        once, with that place and what to do. None means never.
    lost_change_warning : bool, default: True
        Whether to warn if the function changes an argument in place and does not return
        it: the function has a copy, so that the change is lost.
    maxsize : int or None, default: 4096
        How many specializations to keep, one for each different static part of a call.
        The least recently used go. None means all. `set_limits` bounds what all
        functions keep together.
    maxbytes : int or None, default: 268435456
        How many bytes the static parts of the specializations may have together: numpy
        arrays, strings and the objects around them. The least recently used go, never
        the one used last. None means no bound.

    Returns
    -------
    Dispatcher
        A callable that behaves like `fun`, with ``cache_info()`` and
        ``clear_cache()``. All that are made of one function with equal options share
        what they compile.

    Raises
    ------
    TypeError
        If `fun` can't be called, or an option is of the wrong type.
    ValueError
        If `maxsize` or `maxbytes` is not positive, or an option names an argument that
        is none of `fun`'s. In the first call, if a path in `traced` leads nowhere.

    Warns
    -----
    RetraceWarning
        See `retrace_warning`.
    LostChangeWarning
        See `lost_change_warning`.

    See Also
    --------
    jax.jit : traces Python scalars, and wants static arguments named and hashable.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import autojit
    >>> @autojit.jit
    ... def scale(params, config):
    ...     y = params["w"] * config["factor"]
    ...     return {"y": jnp.tanh(y) if config["squash"] else y, "from": config}
    >>> out = scale({"w": jnp.ones(2)}, {"factor": 3.0, "squash": False})
    >>> out["y"]
    Array([3., 3.], dtype=float32)
    >>> out["from"]
    {'factor': 3.0, 'squash': False}
    >>> out = scale({"w": jnp.zeros(2)}, {"factor": 3.0, "squash": False})
    >>> scale.cache_info()
    CacheInfo(hits=1, misses=1, traces=1, currsize=1, maxsize=4096, currbytes=...)
    """
    if not options and fun is not None:
        return Dispatcher(fun, *UNSET)
    known = checked(options)
    if fun is None:
        return lambda fun: Dispatcher(fun, *known.of(fun))
    return Dispatcher(fun, *known.of(fun))


vars(jit)["__signature__"] = signature(jit)


_AS_THE_REFERENCE = checked(QUIET)


def jax_autojit(fun: Callable[P, R]) -> Dispatcher[P, R]:
    """Compile a function with JAX: a drop-in for array-api-extra's ``jax_autojit``.

    Every array of a result is a new one, also where the function returns its argument.

    Parameters
    ----------
    fun : callable
        The function.

    Returns
    -------
    Dispatcher
        As `jit` returns it.

    See Also
    --------
    jit : the same with options.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import autojit
    >>> def add(x, y: float, plus: bool):
    ...     return x + y if plus else x - y
    >>> autojit.jax_autojit(add)(jnp.ones(2), 2.0, True)
    Array([3., 3.], dtype=float32)
    """
    return Dispatcher(fun, *_AS_THE_REFERENCE)


@overload
def flatten(obj: object) -> tuple[list[jax.Array], Skeleton]: ...


@overload
def flatten(
    obj: object, leaf_type: type[T] | tuple[type[T], ...]
) -> tuple[list[T], Skeleton]: ...


@overload
def flatten(obj: object, leaf_type: types.UnionType) -> tuple[list[Any], Skeleton]: ...


def flatten(
    obj: object,
    leaf_type: type[Any] | tuple[type[Any], ...] | types.UnionType = jax.Array,
) -> tuple[list[Any], Skeleton]:
    """Take an object apart into its leaves and its skeleton.

    Parameters
    ----------
    obj : object
        Anything.
    leaf_type : type, tuple or union of types, default: jax.Array
        What to take out. By default all that is traced: also a `jax.Ref`, a hijax value
        and a token. Instances are found however deep they lie; an instance that
        occurs twice is two leaves.

    Returns
    -------
    leaves : list
        The instances of `leaf_type`, in the order of a walk through `obj`.
    skeleton : Skeleton
        All the rest. ``skeleton.unflatten(leaves)`` gives a copy of `obj`. Skeletons
        compare and hash by value.

    Raises
    ------
    RecursionError
        If `obj` is nested too deeply. The message names the path.

    See Also
    --------
    tree : the same for JAX, as a pytree.

    Notes
    -----
    What is put together is a copy: to go on with what a function has changed in it, it
    has to be taken apart anew. A body of ``jax.lax.scan`` that returns leaves, to be
    put together around the skeleton from before the loop, loses without a word all that
    it has changed beside the arrays. With `tree` it is kept, or an error.

    Examples
    --------
    >>> import autojit
    >>> leaves, skeleton = autojit.flatten({"a": [1, 2.5], "b": 3}, int)
    >>> leaves
    [1, 3]
    >>> skeleton
    Skeleton({'a': [*, 2.5], 'b': *})
    >>> skeleton.unflatten(["x", "y"])
    {'a': ['x', 2.5], 'b': 'y'}
    """
    isinstance(None, leaf_type)  # a TypeError here, not from inside the walk
    return _core.flatten(obj, None if leaf_type is jax.Array else leaf_type)


def _find_by_name(dispatcher: Dispatcher[..., Any]) -> str | None:
    """Where pickle would look the dispatcher up, if it is there."""
    name = getattr(dispatcher, "__qualname__", None)
    found: Any = sys.modules.get(getattr(dispatcher, "__module__", None) or "")
    if not isinstance(name, str) or found is None:
        return None
    for part in name.split("."):
        found = getattr(found, part, None)
    return name if found is dispatcher else None


def _empty() -> Dispatcher[..., Any]:
    return Dispatcher._empty()


def _reduce_by_value(dispatcher: Dispatcher[..., Any]) -> tuple[Any, ...]:
    info = dispatcher.cache_info()
    bounds = info.maxsize or 0, info.maxbytes or 0
    fun: Any = dispatcher._fun
    instance: tuple[Any, ...] = ()
    if isinstance(fun, types.MethodType):
        # Pickle would look the method up by its name, which may be the dispatcher's.
        fun, instance = fun.__func__, (fun.__self__,)
    # As its state: the object that it is of may hold it.
    state = fun, instance, dispatcher._options, *bounds, vars(dispatcher)
    return _empty, (), state


def _reduce_dispatcher(dispatcher: Dispatcher[..., Any]) -> str | tuple[Any, ...]:
    """Reduce to a name, as pickle does for functions, or else to the parts."""
    return _find_by_name(dispatcher) or _reduce_by_value(dispatcher)


def _reduce_for_cloudpickle(dispatcher: Dispatcher[..., Any]) -> Any:
    """Reduce what another process can't import to its parts, as cloudpickle does."""
    if getattr(dispatcher, "__module__", None) == "__main__":
        return _reduce_by_value(dispatcher)
    return _reduce_dispatcher(dispatcher)


def _library_paths() -> tuple[str, ...]:
    """Return the folders in which installed code lies."""
    known = sysconfig.get_paths()
    paths = {known[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    paths |= {*site.getsitepackages(), site.getusersitepackages()}
    return tuple(os.path.join(path, "") for path in paths)


copyreg.pickle(Dispatcher, _reduce_dispatcher)
cloudpickle.CloudPickler.dispatch_table[Dispatcher] = _reduce_for_cloudpickle

_core.configure(
    leaf_types=(jax.Array, jax.core.Tracer, jax.Ref),
    is_leaf=is_leaf,
    is_inexact=is_inexact,
    identity_types=(
        enum.Enum,
        types.BuiltinFunctionType,
        types.MethodDescriptorType,
        types.WrapperDescriptorType,
        types.MethodWrapperType,
        types.ClassMethodDescriptorType,
        types.GetSetDescriptorType,
        types.MemberDescriptorType,
        type(jax.jit(len)),
        jax.custom_jvp,
        jax.custom_vjp,
        jax.numpy.ufunc,
        np.ufunc,
        # `jax.extend.core.Primitive`, of which the import takes longer than ours.
        type(jax.lax.add_p),
        # It compares what it refers to, which the function may look into.
        weakref.ref,
        super,  # taken apart, it would be an instance of the class
    ),
    state_of=state_of,
    reduce=reduce,
    set_state=set_state,
    arrays_differ=arrays_differ,
    specialize=specialize,
    to_array=jax.numpy.array,
    settings=settings,
    stage=stage,
    explain=explain,
    stand_ins=jax.ShapeDtypeStruct,
    is_tracing=is_tracing,
    value_needed=ValueNeededError,
    say_where=say_where,
    replay=replay,
    mark_seen=mark_seen,
    lazy_types=LAZY_TYPES,
    cache_info=CacheInfo,
    specialization_info=SpecializationInfo,
    eager=EAGER,
    copyreg_table=copyreg.dispatch_table,
    traceback_type=Traceback,
    library_paths=_library_paths(),
)
