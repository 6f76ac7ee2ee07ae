"""What is counted, and how counts of several processes are added."""

import json
import sys

import jax
import jax.numpy as jnp
import pytest

import autojit
from autojit import _core, _statistics
from autojit._statistics import Statistics, Trace


@pytest.fixture
def core(monkeypatch):
    """A core that counts."""

    class Core:
        now = (10, 1.0, 3)
        on = False

    core = Core()
    monkeypatch.setattr(_core, "counts", lambda: core.now)
    monkeypatch.setattr(_core, "set_counting", lambda on: setattr(core, "on", on))
    return core


def test_counts_of_the_core_are_those_since_the_start(core):
    outer = _statistics.start()
    assert core.on
    core.now = (15, 1.5, 3)
    inner = _statistics.start()
    core.now = (16, 2.0, 5)
    _statistics.stop(inner)
    assert core.on
    _statistics.stop(outer)
    assert not core.on
    core.now = (100, 100.0, 100)
    _statistics.stop(outer)  # nothing more
    assert (inner.calls, inner.seconds, inner.saved) == (1, 0.5, 2)
    assert (outer.calls, outer.seconds, outer.saved) == (6, 1.0, 2)


def test_traces():
    @autojit.jit
    def inner(x):
        if x.ndim > 1:
            raise KeyError
        return 2 * x

    @autojit.jit
    def outer(x, scale):
        return inner(x) * scale

    statistics = _statistics.start()
    outer(jnp.ones(2), 1)
    outer(jnp.ones(2), 1)
    outer(jnp.ones(2), 2)
    with pytest.raises(KeyError):
        outer(jnp.ones((2, 2)), 2)
    with jax.disable_jit():
        outer(jnp.ones(4), 2)
    _statistics.stop(statistics)
    outer(jnp.ones(5), 1)

    found = {}
    for trace in statistics.traces():
        name = trace.function.rpartition(".")[2]
        number, seconds = found.get(name, (0, 0.0))
        found[name] = number + trace.number, seconds + trace.seconds
    assert {name: number for name, (number, _) in found.items()} == {
        "outer": 3,
        "inner": 2,
    }
    # The time of the inner one is part of the outer one's.
    assert found["outer"][1] > found["inner"][1] > 0
    assert all(trace.function.startswith(__name__) for trace in statistics.traces())


def test_processes_are_added():
    first, second = Statistics(), Statistics()
    first.wrappers, second.wrappers = 1, 2
    first.seconds, second.hits = 0.5, 7
    first.note(Trace("f", 1.0, "new arguments"))
    first.note(Trace("f", 2.0, "changed: x"))
    second.note(Trace("f", 0.5, "new arguments", 2))
    total = Statistics()
    for one in (first, second):
        total.add(json.loads(json.dumps(one.to_plain())))
    assert (total.wrappers, total.seconds, total.hits, total.calls) == (3, 0.5, 7, 0)
    assert total.traces() == [
        Trace("f", 1.5, "new arguments", 3),
        Trace("f", 2.0, "changed: x", 1),
    ]


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_trace_that_prints_is_not_shared(capsys, name):
    """So that pytest shows with each test what its function printed."""

    def fun(x):
        print("traced", file=getattr(sys, name))
        return x

    statistics = _statistics.start()
    try:
        for _ in range(3):
            autojit.jit(fun)(jnp.ones(2))
            assert "".join(capsys.readouterr()) == "traced\n"
    finally:
        _statistics.stop(statistics)
