"""Compile functions of any objects with JAX, dispatched in C++."""

from autojit._core import Dispatcher, Skeleton
from autojit._jit import CacheInfo, flatten, jax_autojit, jit
from autojit._limits import ProcessInfo, process_info, set_limits
from autojit._pickle_flatten import pickle_flatten, pickle_unflatten

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
    "pickle_flatten",
    "pickle_unflatten",
    "process_info",
    "set_limits",
]
