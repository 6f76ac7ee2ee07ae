"""Compile functions of any objects with JAX, dispatched in C++."""

from autojit._core import Dispatcher, Skeleton
from autojit._jit import CacheInfo, flatten, jax_autojit, jit

__version__ = "0.1.0"

__all__ = [
    "CacheInfo",
    "Dispatcher",
    "Skeleton",
    "__version__",
    "flatten",
    "jax_autojit",
    "jit",
]
