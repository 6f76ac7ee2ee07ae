"""The peers: every way to compile a function that the benchmark compares.

To add one, write a function that imports it and returns its wrapper: what is not
installed raises ImportError there and is left out. The colours are those that Okabe and
Ito chose to be told apart by colour-blind readers too.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import jax

from case import Peer, Wrapper

PEERS: dict[str, Peer] = {}


def peer(
    name: str, label: str, colour: str, *, general: bool = False
) -> Callable[[Callable[[], Wrapper]], Callable[[], Wrapper]]:
    """Register the decorated function as the `Peer.wrapper` of a new peer."""

    def register(wrapper: Callable[[], Wrapper]) -> Callable[[], Wrapper]:
        PEERS[name] = Peer(name, label, colour, general, wrapper)
        return wrapper

    return register


@peer("flat", "jax.jit on flat arrays: the floor", "#9a9a9a")
def flat() -> Wrapper:
    """``jax.jit`` of the arrays alone, flat and positional: nothing is faster."""
    return jax.jit


@peer("autojit", "autojit", "#d55e00", general=True)
def autojit() -> Wrapper:
    """This project."""
    from autojit import RetraceWarning, jit

    # Some workloads are about calls that are traced again and again.
    warnings.simplefilter("ignore", RetraceWarning)
    return jit


@peer("jax.jit", "jax.jit, set up by hand", "#0072b2")
def by_hand() -> Wrapper:
    """``jax.jit`` as somebody who knows it well sets it up."""
    return jax.jit


@peer("jax.jit-simple", "jax.jit, simpler set-up", "#56b4e9")
def simple() -> Wrapper:
    """``jax.jit`` with less work for the user, where that is possible at all."""
    return jax.jit


@peer("filter_jit", "Equinox filter_jit", "#009e73", general=True)
def filter_jit() -> Wrapper:
    """Equinox: arrays are traced, all other leaves of a pytree are static."""
    import equinox

    return equinox.filter_jit


@peer("nnx.jit", "Flax nnx.jit", "#cc79a7")
def nnx_jit() -> Wrapper:
    """Flax: ``jax.jit`` that also takes NNX modules and carries their changes back."""
    from flax import nnx

    return nnx.jit


@peer("jax_autojit", "array-api-extra jax_autojit", "#e69f00", general=True)
def reference() -> Wrapper:
    """The function of array-api-extra whose promises autojit keeps."""
    from array_api_extra._lib._helpers import jax_autojit

    return jax_autojit
