"""Compile functions of any objects with JAX, dispatched in C++."""

from autojit._core import Dispatcher, Skeleton
from autojit._jit import CacheInfo, flatten, jax_autojit, jit
from autojit._limits import ProcessInfo, process_info, set_limits

__version__ = "0.1.0"

__all__ = [
    "CacheInfo",
    "Dispatcher",
    "ProcessInfo",
    "Skeleton",
    "__version__",
    "flatten",
    "jax_autojit",
    "jit",
    "process_info",
    "set_limits",
]
