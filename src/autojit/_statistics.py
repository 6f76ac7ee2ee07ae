"""What is counted while tests run: wrappers, calls, traces, compilations."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any, NamedTuple

import jax

from autojit import _core

_HIT = "/jax/compilation_cache/cache_hits"
_MISS = "/jax/compilation_cache/cache_misses"


class Trace(NamedTuple):
    """The traces of one function for one reason.

    Attributes
    ----------
    function : str
        The name of its module and its qualified name.
    seconds : float
        How long they took together. If the function calls another one that is traced in
        its course, that one's time is part of it.
    why : str
        What about the call was new: "new arguments"; "another shape, dtype or setting";
        "changed: " and the name of what the function reads that has another value; or
        "not to be shared", for traces that have changed what they read, or printed.
    number : int, default: 1
        How many.
    """

    function: str
    seconds: float
    why: str
    number: int = 1


class Statistics:
    """Counts of what autojit did.

    Attributes
    ----------
    copies : int
        The copies of array-api-extra in which ``jax_autojit`` was replaced.
    wrappers : int
        Functions that were wrapped.
    calls : int
        Calls of them from outside, not those from within another one.
    seconds : float
        How long these calls took together.
    saved : int
        Traces that a wrapper did without since another one had made them.
    hits : int
        Compiled programs that JAX read from its persistent cache.
    misses : int
        Those that it compiled, and wrote there.
    """

    def __init__(self) -> None:
        self.copies = 0
        self.wrappers = 0
        self.calls = 0
        self.seconds = 0.0
        self.saved = 0
        self.hits = 0
        self.misses = 0
        self._traces: dict[tuple[str, str], Trace] = {}

    def traces(self) -> list[Trace]:
        """Return the traces, one row for each function and reason."""
        return list(self._traces.values())

    def note(self, trace: Trace) -> None:
        """Count a trace, or several of one function with one reason."""
        key = trace.function, trace.why
        before = self._traces.get(key, trace._replace(seconds=0.0, number=0))
        self._traces[key] = trace._replace(
            seconds=before.seconds + trace.seconds, number=before.number + trace.number
        )

    def to_plain(self) -> dict[str, Any]:
        """Return all of it as numbers, strings, lists and a dict, as JSON has them."""
        numbers = {name: n for name, n in vars(self).items() if name != "_traces"}
        return {**numbers, "traces": [list(trace) for trace in self.traces()]}

    def add(self, plain: dict[str, Any]) -> None:
        """Add what `to_plain` returned in another process."""
        for name, value in plain.items():
            if name == "traces":
                for trace in value:
                    self.note(Trace(*trace))
            else:
                setattr(self, name, getattr(self, name) + value)


# A run of pytest within a test of another one counts for both.
_running: list[tuple[Statistics, tuple[int, float, int]]] = []
_lock = threading.Lock()
_listens = False


def _note_event(event: str, **_: object) -> None:
    if event in (_HIT, _MISS):
        with _lock:
            for statistics, _counted in _running:
                statistics.hits += event == _HIT
                statistics.misses += event == _MISS


def start() -> Statistics:
    """Begin to count.

    Returns
    -------
    Statistics
        What is counted from now on, until it is handed to `stop`. `calls`, `seconds`
        and `saved` are there only then.
    """
    global _listens
    statistics = Statistics()
    with _lock:
        if not _listens:
            # Once for the process: the oldest supported JAX cannot take it back.
            jax.monitoring.register_event_listener(_note_event)
            _listens = True
        _core.set_counting(True)
        _running.append((statistics, _core.counts()))
    return statistics


def stop(statistics: Statistics) -> None:
    """Count no longer, and fill in what the core has counted; at most once.

    Parameters
    ----------
    statistics : Statistics
        What `start` returned.
    """
    with _lock:
        for at, (found, before) in enumerate(_running):
            if found is statistics:
                calls, seconds, saved = _core.counts()
                statistics.calls += calls - before[0]
                statistics.seconds += seconds - before[1]
                statistics.saved += saved - before[2]
                del _running[at]
                break
        if not _running:
            _core.set_counting(False)


def note_wrapper() -> None:
    """Count a function that was wrapped."""
    with _lock:
        for statistics, _ in _running:
            statistics.wrappers += 1


class CountedTrace:
    """Count a trace, if anything is counted.

    One that failed has taken its time, too. What is traced in the course of this is
    part of it, and counted for itself.

    What a test prints, pytest shows with the test. So a trace that prints is not taken
    by another wrapper, whose function would print nothing.

    Parameters
    ----------
    specialization : Specialization
        What is traced.
    function : str
        See `Trace`.
    """

    def __init__(self, specialization: Any, function: str) -> None:
        self._specialization = specialization
        self._function = function

    def __enter__(self) -> None:
        self._why = self._specialization.why
        self._written = _written() if _running else ()
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        seconds = time.perf_counter() - self._began
        if not _running:
            return
        if self._written != _written():
            self._specialization.keep_to_one()
        with _lock:
            for statistics, _counted in _running:
                statistics.note(
                    Trace(self._function, seconds, self._why or "new arguments")
                )


def _written() -> tuple[int, ...]:
    """Return how much was written, if it is captured: a terminal can't tell."""
    try:
        return sys.stdout.tell(), sys.stderr.tell()
    except Exception:  # a stand-in may have no such method
        return ()
