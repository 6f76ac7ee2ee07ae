"""autojit without the compiler, where only its own work is to be measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import jax

from autojit import _specialize


@contextmanager
def instead_of_jax_jit(stub: Callable[..., Callable[..., Any]]) -> Iterator[None]:
    """Have specializations that are made meanwhile compiled by `stub`.

    It takes what ``jax.jit`` takes: a function of the flat leaves, and options.
    """
    stand_in = SimpleNamespace(**{**vars(jax), "jit": stub})
    with mock.patch.object(_specialize, "jax", stand_in):
        yield
