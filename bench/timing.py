"""The clock: all calls of a workload take turns, round by round."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import repeat
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from case import Call, Case, Setup, Wrapper, arrays_in
from results import Timing

TURN = 0.02
"""Seconds that a peer gets in a round: long for the clock, short for a drift."""


def measure(
    case: Case,
    setups: Mapping[str, tuple[Setup, Wrapper]],
    rounds: int,
    on_round: Callable[[], None],
) -> tuple[list[Timing], dict[str, str]]:
    """Check the results of all peers, then time the peers.

    Parameters
    ----------
    case
        The workload.
    setups
        By name, how the peers are set up, and their wrappers.
    rounds
        How often each peer takes its turn.
    on_round
        Called after each round, out of the clock's sight.

    Returns
    -------
    timings : list of Timing
        In the order of `setups`.
    failures : dict of str to str
        By name, what was raised by peers that could not run the workload.
    """
    # The plain function, compiled by nobody, tells what is right.
    expected = _first_results(case, case.setup(lambda function: function))
    calls: dict[str, Call] = {}
    agrees: dict[str, bool] = {}
    failures: dict[str, str] = {}
    for name, (setup, wrapper) in setups.items():
        try:
            call = setup(wrapper)
            agrees[name] = _same_arrays(_first_results(case, call), expected)
            calls[name] = call
        except Exception as error:
            if name == case.baseline:
                raise
            # Whatever another peer raises is a finding.
            failures[name] = f"{type(error).__name__}: {error}".splitlines()[0]

    samples = _sample(calls, rounds, on_round)
    floor = samples[case.baseline]
    timings = [
        _condense(name, call, samples[name], floor, case.nodes, agrees[name])
        for name, call in calls.items()
    ]
    return timings, failures


def _first_results(case: Case, call: Call) -> Any:
    """Make the calls that compile and the one that is timed, and return all results."""
    first = call.first() if call.first is not None else None
    return first, case.finish(call.function(*call.args))


def _same_arrays(result: Any, expected: Any) -> bool:
    """Whether two results hold the same arrays, up to rounding."""
    ours, theirs = arrays_in(result), arrays_in(expected)
    return len(ours) == len(theirs) and all(
        a.shape == b.shape
        and a.dtype == b.dtype
        and np.allclose(a, b, rtol=1e-4, atol=1e-5)
        for a, b in zip(ours, theirs, strict=True)
    )


def _sample(
    calls: Mapping[str, Call], rounds: int, on_round: Callable[[], None]
) -> dict[str, list[float]]:
    """Return the seconds of a call in each round, by name."""
    counts = {name: _calibrate(call) for name, call in calls.items()}
    samples: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    with _no_garbage_collection():
        for number in range(rounds):
            # Every other round backwards: a drift of the machine hits all alike.
            for name in reversed(order) if number % 2 else order:
                gc.collect()
                samples[name].append(_seconds_a_call(calls[name], counts[name]))
            on_round()
    return samples


def _calibrate(call: Call) -> int:
    """Return how many calls fill a turn, and warm up on the way."""
    count = 1
    while (spent := count * _seconds_a_call(call, count)) < TURN / 2:
        count *= 2
    return math.ceil(count * TURN / spent)


def _seconds_a_call(call: Call, count: int) -> float:
    """Return the mean time of `count` calls."""
    function, args, wait = call.function, call.args, call.wait
    if wait is None:
        start = perf_counter()
        for _ in repeat(None, count):
            function(*args)
        return (perf_counter() - start) / count
    start = perf_counter()
    for _ in repeat(None, count):
        wait(function(*args)).block_until_ready()
    return (perf_counter() - start) / count


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Leave collecting to ``gc.collect``, made fast by hiding what is there already."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def _condense(
    name: str,
    call: Call,
    seconds: Sequence[float],
    floor: Sequence[float],
    nodes: int | None,
    agrees: bool,
) -> Timing:
    """Condense the rounds of one peer, given those of the baseline."""
    ratios = [ours / base for ours, base in zip(seconds, floor, strict=True)]
    ratio = median(ratios)
    return Timing(
        peer=name,
        note=call.note,
        min_us=1e6 * min(seconds),
        median_us=1e6 * median(seconds),
        ratio=ratio,
        ratios=ratios,
        ns_per_node=1e9 * (ratio - 1) * min(floor) / nodes if nodes else None,
        agrees=agrees,
    )
