"""What cannot be done with JAX's public interface.

`hide_frames` keeps the frames of a file out of the tracebacks that JAX filters. Public
alternatives that were tried: a ``__tracebackhide__`` variable is honoured by pytest and
IPython only, and cutting the traceback where the exception passes through us leaves the
frames that JAX adds between ours and the function's.

`enclosing_traces` tells which traces go on when the current one ends. The public
``jax.checking_leaks`` finds tracers that outlive their trace too; but it clears JAX's
caches, and does not say where they are.
"""

from __future__ import annotations

from typing import Any


def hide_frames(path: str) -> None:
    """Leave the frames of the file `path` out of JAX's filtered tracebacks."""
    try:
        from jax._src import traceback_util
    except ImportError:  # a later JAX: then our frames are seen, no more
        return
    register = getattr(traceback_util, "register_exclusion", None)
    if register is not None:
        register(path)


def enclosing_traces() -> tuple[Any, ...]:
    """Return the traces that the current one runs in, the innermost first."""
    from jax._src import core

    found = []
    trace = getattr(core.trace_ctx.trace, "parent_trace", None)
    while trace is not None:
        found.append(trace)
        trace = getattr(trace, "parent_trace", None)
    return tuple(found)
