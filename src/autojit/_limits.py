"""Bounds on what all functions keep together."""

from __future__ import annotations

import sys
from types import EllipsisType
from typing import NamedTuple

from autojit import _core


class ProcessInfo(NamedTuple):
    """What the specializations of all functions keep in this process.

    Attributes
    ----------
    programs : int
        How often functions were traced for the specializations that there are: so many
        programs of JAX they keep.
    max_programs : int or None
        Its bound; None if there is none.
    maps : int
        The memory maps of the process, those of other code included; 0 where that
        can't be told.
    max_maps : int or None
        From how many maps on programs are dropped; None if there is no bound.
    """

    programs: int
    max_programs: int | None
    maps: int
    max_maps: int | None


def process_info() -> ProcessInfo:
    """Tell what the specializations of all functions keep in this process.

    Returns
    -------
    ProcessInfo
        Programs and memory maps, each with its bound.

    Examples
    --------
    >>> import autojit
    >>> autojit.process_info().max_programs
    4096
    """
    programs, max_programs, maps, max_maps = _core.process_info()
    return ProcessInfo(programs, max_programs or None, maps, max_maps or None)


def set_limits(
    *,
    max_programs: int | EllipsisType | None = ...,
    max_maps: int | EllipsisType | None = ...,
) -> None:
    """Bound what the specializations of all functions keep in this process.

    If there is too much, the specializations used least recently go, whatever function
    they are of. What is still needed is traced again.

    Parameters
    ----------
    max_programs : int or None, optional
        How many programs of JAX to keep: one for each specialization, and for each
        shape and dtype of its arrays. None means all, and ``...`` what it was; 4096 if
        it was never set.
    max_maps : int or None, optional
        From how many memory maps of the process on to drop half of the programs. On the
        CPU, a program has three for each of its kernels, and Linux allows a process
        65,530 (``/proc/sys/vm/max_map_count``), beyond which compilation crashes. None
        means no bound, and ``...`` what it was; half of what Linux allows if it was
        never set.

    Raises
    ------
    TypeError
        If a bound is neither an int nor None.
    ValueError
        If it is not positive.

    See Also
    --------
    process_info : what there is, and the bounds.

    Examples
    --------
    >>> import autojit
    >>> before = autojit.process_info()
    >>> autojit.set_limits(max_programs=100)
    >>> autojit.process_info().max_programs
    100
    >>> autojit.set_limits(max_programs=before.max_programs)
    """
    _, programs, _, maps = _core.process_info()
    if not isinstance(max_programs, EllipsisType):
        programs = as_bound("max_programs", max_programs)
    if not isinstance(max_maps, EllipsisType):
        maps = as_bound("max_maps", max_maps)
    _core.set_limits(programs, maps)


def as_bound(name: str, value: int | None) -> int:
    """Check a bound that a user gave; 0 stands for none.

    Parameters
    ----------
    name : str
        What the user calls it.
    value : int or None
        What the user gave.

    Returns
    -------
    int
        The bound as the core takes it.

    Raises
    ------
    TypeError
        If it is neither an int nor None.
    ValueError
        If it is not positive.
    """
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int or None, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return min(value, sys.maxsize)
