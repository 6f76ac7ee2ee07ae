"""Compile functions of any objects with JAX, dispatched in C++.

PYTEST_DONT_REWRITE: since there is a plugin in this distribution, pytest would want to
rewrite its assertions, and warn if autojit is imported before pytest starts.
"""

from autojit._advice import LostChangeWarning, RetraceWarning
from autojit._core import Dispatcher, Skeleton, Tree
from autojit._explain import RetracingError, max_traces, no_retracing
from autojit._install import install, uninstall
from autojit._jit import CacheInfo, SpecializationInfo, flatten, jax_autojit, jit
from autojit._limits import ProcessInfo, process_info, set_limits
from autojit._pickle_flatten import pickle_flatten, pickle_unflatten
from autojit._state import register_state
from autojit._tree import tree

__version__ = "0.1.0"

__all__ = [
    "CacheInfo",
    "Dispatcher",
    "LostChangeWarning",
    "ProcessInfo",
    "RetraceWarning",
    "RetracingError",
    "Skeleton",
    "SpecializationInfo",
    "Tree",
    "__version__",
    "flatten",
    "install",
    "jax_autojit",
    "jit",
    "max_traces",
    "no_retracing",
    "pickle_flatten",
    "pickle_unflatten",
    "process_info",
    "register_state",
    "set_limits",
    "tree",
    "uninstall",
]
