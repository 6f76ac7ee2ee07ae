"""What cannot be done with JAX's public interface.

`hide_frames` keeps the frames of a file out of the tracebacks that JAX filters. Public
alternatives that were tried: a ``__tracebackhide__`` variable is honoured by pytest and
IPython only, and cutting the traceback where the exception passes through us leaves the
frames that JAX adds between ours and the function's.
"""

from __future__ import annotations


def hide_frames(path: str) -> None:
    """Leave the frames of the file `path` out of JAX's filtered tracebacks."""
    try:
        from jax._src import traceback_util
    except ImportError:  # a later JAX: then our frames are seen, no more
        return
    register = getattr(traceback_util, "register_exclusion", None)
    if register is not None:
        register(path)
