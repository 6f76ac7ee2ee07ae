"""What the benchmark is made of: a workload is called by way of a peer, and timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import jax

Function: TypeAlias = Callable[..., Any]
Wrapper: TypeAlias = Callable[..., Function]
"""What a peer offers: takes a function, and options of its own, and compiles it."""


@dataclass(frozen=True)
class Peer:
    """A way to compile a function.

    Attributes
    ----------
    name
        Short, for the command line and the columns.
    label
        In full, for the legend.
    colour
        Of its bars.
    general
        Whether it takes any arguments as they are. The others run only those workloads
        that say how, in `Case.special`.
    wrapper
        Imports the peer and returns its wrapper. Raises ImportError if not installed.
    """

    name: str
    label: str
    colour: str
    general: bool
    wrapper: Callable[[], Wrapper]


@dataclass(frozen=True)
class Workload:
    """Something that users call.

    Attributes
    ----------
    name
        Such as ``W7a``: a family and, if it has several members, a letter.
    title
        What is called, in a few words.
    build
        Builds it. Raises ImportError if something it needs is not installed.
    slow
        Whether it takes minutes, and is run only if it is asked for.
    """

    name: str
    title: str
    build: Callable[[], Case]
    slow: bool = False

    @property
    def family(self) -> str:
        """The name without its letter."""
        return self.name.rstrip("abcdefghijklmnopqrstuvwxyz")


@dataclass(frozen=True)
class Call:
    """A workload, set up for one peer: ``function(*args)`` is what is timed.

    Attributes
    ----------
    function, args
        What is called, and with what.
    note
        What the user had to do for it, in a few words.
    wait
        Picks one array of the result, to wait for it after each call. None where the
        work is so small that it is done when the call returns.
    first
        Makes the first calls, those that compile, if they are others than the one that
        is timed. What they result in is checked too.
    """

    function: Function
    args: tuple[Any, ...]
    note: str = ""
    wait: Callable[[Any], jax.Array] | None = None
    first: Callable[[], Any] | None = None


Setup: TypeAlias = Callable[[Wrapper], Call]


@dataclass(frozen=True)
class Case:
    """A workload, built.

    Attributes
    ----------
    setup
        Sets up the call for the peers that take any arguments as they are.
    special
        By name, the peers for which the call is set up in another way.
    baseline
        The peer to which the others are compared.
    finish
        Applied to each result, outside the timing, before it is checked.
    nodes
        Number of static nodes (containers, keys and values, without the arrays) where
        the cost of each is of interest.
    """

    setup: Setup
    special: Mapping[str, Setup] = field(default_factory=dict)
    baseline: str = "flat"
    finish: Function = lambda result: result
    nodes: int | None = None

    def setup_for(self, peer: Peer) -> Setup | None:
        """How to set up the call for `peer`; None if it cannot run this workload."""
        return self.special.get(peer.name, self.setup if peer.general else None)


def arrays_in(result: Any) -> list[jax.Array]:
    """Return the arrays of a pytree, in order, without whatever else is in it."""
    return [leaf for leaf in jax.tree.leaves(result) if isinstance(leaf, jax.Array)]
