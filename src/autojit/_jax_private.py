"""What cannot be done with JAX's public interface.

`hide_frames` keeps the frames of a file out of the tracebacks that JAX filters. Public
alternatives that were tried: a ``__tracebackhide__`` variable is honoured by pytest and
IPython only, and cutting the traceback where the exception passes through us leaves the
frames that JAX adds between ours and the function's.

`is_tracing` has no public alternative since ``jax.core.trace_state_clean`` went.

`enclosing_traces` tells which traces go on when the current one ends. The public
``jax.checking_leaks`` finds tracers that outlive their trace too; but it clears JAX's
caches, and does not say where they are.

`is_leaf` tells whether JAX takes an object for a value of its own. The public
``jax.typeof`` alone can't: it also answers for numbers and numpy arrays, which are
static here, and it calls ``__jax_array__`` of objects that only offer to become one.

`settings` tells with which settings of JAX a function would be traced. ``jax.jit``
traces again when some of them change, and keeps silent about which; of the others it
takes no note.

`use_store` gives JAX's persistent compilation cache another place to keep programs. The
public settings can only name a folder; see `autojit._compilation_cache` for what is
wrong with the files that JAX writes there. A bound on its size, which makes JAX lock
the folder for each program, needs another package, and leaves damaged files in place.

`reuse_mlir_contexts` has JAX lower several programs in one MLIR context, much as it
does by itself from 0.11.1 on. Before, it makes a context for each program, which takes
longer than to lower a small one, and keeps a megabyte for as long as the program is
there. There is no public setting for it.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import jax


def hide_frames(path: str) -> None:
    """Leave the frames of the file `path` out of JAX's filtered tracebacks.

    And out of what it says about the places where values were made.
    """
    try:
        from jax._src import source_info_util, traceback_util
    except ImportError:  # a later JAX: then our frames are seen, no more
        return
    for module in (source_info_util, traceback_util):
        register = getattr(module, "register_exclusion", None)
        if register is not None:
            register(path)


def is_tracing() -> bool:
    """Tell whether JAX traces anything in this thread."""
    from jax._src import core

    return not core.trace_state_clean()


def is_leaf(obj: object) -> bool:
    """Whether `obj` is a value to JAX, beside its arrays: a hijax value or a token."""
    from jax._src import core

    try:
        if type(obj) not in core.pytype_aval_mappings:
            return False
        kind = type(jax.typeof(obj))
    except Exception:  # of a class that can't be hashed, or an unknown kind of JAX
        return False
    return any(
        getattr(base, "__name__", "") in ("HiType", "MutableHiType", "AbstractToken")
        and base.__module__.startswith("jax.")
        for base in kind.__mro__
    )


def enclosing_traces() -> tuple[Any, ...]:
    """Return the traces that the current one runs in, the innermost first."""
    from jax._src import core

    found = []
    trace = getattr(core.trace_ctx.trace, "parent_trace", None)
    while trace is not None:
        found.append(trace)
        trace = getattr(trace, "parent_trace", None)
    return tuple(found)


_CONFIG: Any = jax.config
# What holds each setting, by its name. Read from here, all together take a third of the
# time of the public attributes, and they are read several times for each trace.
_HOLDERS: Any = getattr(_CONFIG, "_value_holders", None)
# A change of these makes every ``jax.jit`` trace again.
_KNOWN_TO_JIT = {
    "jax_debug_key_reuse",
    "jax_default_device",
    "jax_default_matmul_precision",
    "jax_enable_x64",
    "jax_explicit_x64_dtypes",
    "jax_numpy_dtype_promotion",
    "jax_numpy_rank_promotion",
    "jax_random_seed_offset",
    "jax_softmax_custom_jvp",
    "jax_threefry_partitionable",
}


def settings() -> tuple[Any, ...]:
    """Return the settings of which ``jax.jit`` takes no note, in one order."""
    if not isinstance(_HOLDERS, dict):  # not in this JAX
        return ()
    return tuple([holder.value for holder in _unknown_to_jit(len(_HOLDERS))])


@functools.lru_cache(maxsize=1)
def _unknown_to_jit(count: int) -> list[Any]:
    """Return what holds these, of so many settings: a later import may add some."""
    return [one for name, one in _HOLDERS.items() if name not in _KNOWN_TO_JIT]


def use_store(store: Any) -> None:
    """Have JAX keep compiled programs in `store`; None: as its configuration says."""
    from jax.experimental.compilation_cache import compilation_cache

    # What JAX has decided at the first compilation holds until this.
    compilation_cache.reset_cache()
    if store is None:
        return
    try:
        from jax._src import compilation_cache as private
    except ImportError:
        return
    # A later JAX without these keeps them as its configuration says.
    if hasattr(private, "_cache") and hasattr(private, "_cache_initialized"):
        vars(private).update(_cache=store, _cache_initialized=True)


# About as many as a later JAX allows, for the same reason: what a program names (types,
# constants, places in the source) stays as long as any program of its context is kept.
_PROGRAMS_OF_A_CONTEXT = 10


def reuse_mlir_contexts() -> Callable[[], None]:
    """Have JAX lower several programs of a thread in one MLIR context.

    Returns
    -------
    callable
        Takes it back. What somebody else has put there in the meantime stays.
    """
    if jax.__version_info__ >= (0, 11, 1):  # which does so by itself
        return lambda: None
    from jax._src import compilation_cache
    from jax._src.interpreters import mlir

    is_on = True
    make, get_key = mlir.make_ir_context, compilation_cache.get_cache_key
    another = make()
    last = threading.local()

    # Asks whether it is on: somebody else may have kept it, and put it there again when
    # it had been taken back.
    @functools.wraps(make)
    def make_ir_context() -> Any:
        if not is_on:
            return make()
        if getattr(last, "left", 0) == 0:
            last.context, last.left = make(), _PROGRAMS_OF_A_CONTEXT
        last.left -= 1
        return last.context

    # The key is made of a copy of the program. While another is being lowered, as where
    # a lowering rule computes something, the copy would become part of that one, if
    # they are of one context and that is the current one.
    @functools.wraps(get_key)
    def get_cache_key(*args: Any, **kwargs: Any) -> Any:
        with another:
            return get_key(*args, **kwargs)

    replaced: list[tuple[Any, str, Any, Any]] = [
        (mlir, "make_ir_context", make, make_ir_context),
        (compilation_cache, "get_cache_key", get_key, get_cache_key),
    ]
    for module, name, _, ours in replaced:
        setattr(module, name, ours)

    def take_back() -> None:
        nonlocal is_on
        is_on = False
        for module, name, theirs, ours in replaced:
            if getattr(module, name) is ours:
                setattr(module, name, theirs)

    return take_back
