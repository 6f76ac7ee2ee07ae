"""Many threads at once, asyncio tasks, forked and spawned workers.

Threads switch every microsecond, which interleaves them as finely as CPython can. What
is counted is exact: each call is a hit or a miss, and each skeleton is traced once.
"""

import asyncio
import concurrent.futures
import contextlib
import contextvars
import faulthandler
import functools
import gc
import itertools
import multiprocessing
import os
import pickle
import random
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import spawn_worker
from jax import lax
from kinds import Data, Matmul, OpaqueValue, Plain
from notes import Notes

import autojit

TIMEOUT = 120  # only ever reached by a deadlock
THREADS = 8


@pytest.fixture(autouse=True)
def switching():
    """Switch threads as often as possible, and end what holds the GIL forever."""
    interval = sys.getswitchinterval()
    faulthandler.dump_traceback_later(3 * TIMEOUT, exit=True, file=sys.__stderr__)
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)
    faulthandler.cancel_dump_traceback_later()


def in_threads(work, count=THREADS):
    """Run ``work(i)`` in threads that start together; return the results in order."""
    barrier = threading.Barrier(count)
    results = [None] * count
    errors = []

    def run(i):
        try:
            barrier.wait(TIMEOUT)
            results[i] = work(i)
        except BaseException as error:
            errors.append(error)

    threads = [
        threading.Thread(target=run, args=(i,), daemon=True) for i in range(count)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + TIMEOUT
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if any(thread.is_alive() for thread in threads):
        with tempfile.TemporaryFile("w+") as file:
            faulthandler.dump_traceback(file, all_threads=True)
            file.seek(0)
            pytest.fail("deadlock\n" + file.read(), pytrace=False)
    if errors:
        raise errors[0]
    return results


class Meanwhile:
    """Repeat ``work()`` in another thread during the body of a ``with``.

    On a busy machine that thread may have no turn before the body is done. So the body
    has to take the numbers of its own turns from `turns`.
    """

    def __init__(self, work):
        self.work = work
        self.count = 0
        self.stop = threading.Event()
        self.errors = []
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        try:
            while not self.stop.is_set():
                self.work()
                self.count += 1
        except BaseException as error:
            self.errors.append(error)

    def turns(self, at_least, enough=None):
        """Count up to `at_least`, and on until ``enough()``.

        That is by default when the work was done thrice since the first turn.
        """
        last = self.count + 3
        if enough is None:

            def enough():
                return self.count >= last

        deadline = time.monotonic() + TIMEOUT
        for k in itertools.count():
            if self.errors or (k >= at_least and enough()):
                return
            assert time.monotonic() < deadline, "never enough"
            yield k

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join(TIMEOUT)
        assert not self.thread.is_alive()
        if self.errors:
            raise self.errors[0]


class Arrivals:
    """Let a trace wait until all threads are about to ask for what it traces.

    On a busy machine a pause alone may be over before they are.
    """

    def __init__(self, count=THREADS):
        self.all_there = threading.Event()
        self.missing = itertools.count(count - 1, -1)

    def arrive(self):
        if next(self.missing) == 0:
            self.all_there.set()

    def wait(self, pause):
        assert self.all_there.wait(TIMEOUT)
        time.sleep(pause)  # for what is left to do between the arrival and the trace


equal = np.testing.assert_array_equal


def assert_counts(f, calls, traces, currsize=None):
    """Check that each call was a hit or a miss, and how often `f` was traced."""
    info = f.cache_info()
    assert info.hits + info.misses == calls
    assert info.traces == traces
    assert info.currsize == (traces if currsize is None else currsize)


def again(times):
    """Run a test several times: threads meet in another way each time."""

    def decorate(test):
        @functools.wraps(test)
        def run(*args, **kwargs):
            for _ in range(times):
                test(*args, **kwargs)

        return run

    return decorate


# Dispatch.


def test_no_hit_is_lost(x):
    f = autojit.jit(lambda box, n: {"y": box.a * n, "box": box})
    f(Data(x), 2)

    def work(i):
        mine = x + i
        for _ in range(200):
            result = f(Data(mine, ["list"]), 2) if i % 2 else f(Data(mine), 2)
            equal(result["y"], mine * 2)
            assert result["box"].a is mine

    in_threads(work)
    assert_counts(f, calls=THREADS * 200 + 1, traces=2)


def test_threads_with_skeletons_of_their_own(x):
    f = autojit.jit(lambda box, n: box.a * n + len(box.b))

    def work(i):
        for k in range(60):
            n = (i + k) % 5
            equal(f(Data(x, {"k": n}), n), x * n + 1)

    in_threads(work)
    assert_counts(f, calls=THREADS * 60, traces=5)


def test_instances_are_not_shared_between_threads(x):
    f = autojit.jit(lambda box: [box, box])

    def work(i):
        return [f(Plain(a=x, items=[1, x])) for _ in range(50)]

    results = [r for of_thread in in_threads(work) for r in of_thread]
    assert all(a is b for a, b in results)
    assert len({id(a) for a, _ in results}) == len(results)
    assert len({id(a.items) for a, _ in results}) == len(results)


def test_the_least_recently_used_go_under_load(x):
    f = autojit.jit(lambda x, n: x * n, maxsize=3)

    def work(i):
        order = random.Random(i)
        for _ in range(25):
            n = order.randrange(6)
            equal(f(x, n), x * n)
            assert f.cache_info().currsize <= 3

    in_threads(work, 4)
    assert_counts(f, calls=4 * 25, traces=f.cache_info().traces, currsize=3)


# First calls.


@pytest.mark.parametrize("pause", [0.0, 0.02])
@again(10)
def test_racing_first_calls_trace_once(x, pause):
    traced = Notes()
    arrivals = Arrivals()

    @autojit.jit
    def f(box, n):
        traced.append(n)
        if pause:  # so that the others come while this one traces
            arrivals.wait(pause)
        return {"y": box.a * n}

    def work(i):
        mine = Data(x + i)
        arrivals.arrive()
        equal(f(mine, 3)["y"], mine.a * 3)

    in_threads(work)
    assert traced == [3]
    assert_counts(f, calls=THREADS, traces=1)


@again(5)
def test_racing_first_calls_of_several_skeletons_trace_each_once(x):
    traced = Notes()
    arrivals = Arrivals()

    @autojit.jit
    def f(box, n):
        traced.append(n)
        arrivals.wait(0.002)
        return box.a * n

    def work(i):
        arrivals.arrive()
        for n in range(4):
            equal(f(Data(x), (n + i) % 4), x * ((n + i) % 4))

    in_threads(work)
    assert sorted(traced) == [0, 1, 2, 3]
    assert_counts(f, calls=THREADS * 4, traces=4)


class SlowlyEqual(OpaqueValue):
    """Lets other threads run while it is compared and hashed."""

    def __eq__(self, other):
        time.sleep(0)
        return super().__eq__(other)

    def __hash__(self):
        time.sleep(0)
        return super().__hash__()


@again(20)
def test_racing_first_calls_with_values_that_run_python(x):
    f = autojit.jit(lambda x, key: x * key.value)
    in_threads(lambda i: [equal(f(x, SlowlyEqual(n)), x * n) for n in (2, 3)])
    assert_counts(f, calls=THREADS * 2, traces=2)


@again(5)
def test_racing_first_calls_with_two_shapes_trace_each_once():
    shapes = Notes()
    arrivals = Arrivals()

    @autojit.jit
    def f(box):
        shapes.append(box.a.shape)
        arrivals.wait(0.002)
        return box.a * 2

    def work(i):
        mine = Data(jnp.ones(2 + i % 2))
        arrivals.arrive()
        equal(f(mine), mine.a * 2)

    in_threads(work)
    assert sorted(shapes) == [(2,), (3,)]
    assert_counts(f, calls=THREADS, traces=2, currsize=1)


def test_racing_first_calls_that_fail_each_raise(x):
    arrivals = Arrivals()

    def body(box, n):
        arrivals.wait(0.002)
        raise KeyError(n)

    f = autojit.jit(body)

    def work(i):
        arrivals.arrive()
        for n in range(3):
            with pytest.raises(KeyError) as raised:
                f(Data(x), n)
            assert raised.value.args == (n,)

    in_threads(work)
    assert f.cache_info().currsize == 0
    assert f.cache_info().hits == 0


@again(10)
def test_a_failing_first_call_does_not_break_the_others(x):
    failures = itertools.count()
    arrivals = Arrivals()

    @autojit.jit
    def f(box, n):
        arrivals.wait(0.002)
        if next(failures) == 0:
            raise KeyError("only the first")
        return box.a * n

    def work(i):
        arrivals.arrive()
        try:
            equal(f(Data(x), 3), x * 3)
        except KeyError:
            return 1
        return 0

    assert sum(in_threads(work)) == 1
    # The others waited for the trace that failed, and in JAX each then makes its
    # own. What they have made stays.
    traces = f.cache_info().traces
    equal(f(Data(x), 3), x * 3)
    assert f.cache_info().currsize == 1
    assert f.cache_info().traces == traces


def test_a_call_without_compilation_leaves_the_trace_of_another_thread(x):
    tracing, go_on = threading.Event(), threading.Event()

    @autojit.jit
    def f(box, n):
        if n == 2 and isinstance(box.a, jax.core.Tracer):
            tracing.set()
            assert go_on.wait(TIMEOUT)
        return box.a * n

    def work(i):
        if i:
            return f(Data(x), 2)
        assert tracing.wait(TIMEOUT)
        try:
            f(Data(x), 3)
            with jax.disable_jit():
                return f(Data(x), 2)
        finally:
            go_on.set()

    for result in in_threads(work, 2):
        equal(result, x * 2)
    equal(f(Data(x), 2), x * 2)
    assert f.cache_info()[2:4] == (2, 2)


# No deadlocks.


@again(5)
def test_dispatchers_that_call_each_other_from_both_ends(x):
    """Each thread traces what the other is about to ask for."""
    arrivals = Arrivals()

    @autojit.jit
    def one(box, n):
        arrivals.wait(0.005)
        return two(box, n - 1) + 1 if n else box.a

    @autojit.jit
    def two(box, n):
        arrivals.wait(0.005)
        return one(box, n - 1) + 1 if n else box.a

    def work(i):
        arrivals.arrive()
        for n in (4, 3):
            equal((one, two)[i % 2](Data(x), n), x + n)

    in_threads(work)
    # Each has traced the numbers from 4 to 0, whoever asked for them first.
    assert [f.cache_info().traces for f in (one, two)] == [5, 5]


def test_a_thread_started_in_a_trace_may_call_the_dispatcher(x):
    """With another static: it must not wait for the trace that waits for it."""

    @autojit.jit
    def f(box, n):
        if n == 0:
            return box.a
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            constant = pool.submit(f, Data(np_x), n - 1).result(TIMEOUT)
        return box.a * constant

    np_x = jnp.arange(1.0, 4.0)
    (result,) = in_threads(lambda i: f(Data(x), 2), 1)
    equal(result, x * np_x * np_x)


def test_two_traces_that_wait_for_one_another(x):
    """Two skeletons are traced at the same time: each waits until the other is."""
    meeting = threading.Barrier(2)

    @autojit.jit
    def f(box, n):
        meeting.wait(TIMEOUT)
        return box.a * n

    results = in_threads(lambda i: f(Data(x), i), 2)
    equal(results[1], x)
    equal(results[0], x * 0)


@pytest.fixture
def uncompiled(monkeypatch):
    """Let each call run the function on the arrays themselves, without JAX."""
    monkeypatch.setattr(jax, "jit", lambda flat, **options: flat)


@pytest.mark.usefixtures("uncompiled")
def test_a_finalizer_may_dispatch_and_clear(x):
    """Garbage is collected in the middle of a dispatch, which runs any code.

    Nothing is compiled or computed here: what runs in the middle of JAX's own work may
    be too much for JAX (0.10 on CPython 3.11 crashes).
    """
    f = autojit.jit(lambda box, n: (box.a, n))
    dispatching = threading.local()
    order = random.Random(0)
    finalized, errors = [], []

    class Finalized:
        def __del__(self):
            finalized.append(getattr(dispatching, "now", False))
            try:
                assert f(Data(x), 7) == (x, 7)
                if order.random() < 0.1:
                    f.clear_cache()
            except BaseException as error:  # which would only be printed
                errors.append(error)

    def work(i):
        for k in range(100):
            cycle = [Finalized()]
            cycle.append(cycle)
            del cycle
            dispatching.now = True
            result = f(Data(x), k % 3)
            dispatching.now = False
            assert result == (x, k % 3)

    before = gc.get_threshold()
    gc.set_threshold(20)
    try:
        in_threads(work, 4)
    finally:
        gc.set_threshold(*before)
    assert errors == []
    assert any(finalized)


@pytest.mark.usefixtures("uncompiled")
def test_what_runs_while_a_thread_begins_to_listen_for_warnings_may_dispatch(x):
    outcomes = []

    def interrupt(frame, event, arg):
        code = frame.f_code
        in_warnings = code.co_filename == autojit._warnings.__file__
        if in_warnings and code.co_name in ("__init__", "caught"):
            sys.settrace(None)
            try:
                outcomes.append(autojit.jit(lambda n: (x, n))(len(outcomes)))
            except BaseException as error:
                outcomes.append(error)

    def work():
        sys.settrace(interrupt)
        try:
            outcomes.append(autojit.jit(lambda n: (x, n))(-1))
        finally:
            sys.settrace(None)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert outcomes == [(x, 0), (x, -1)]


# Clearing.


def test_clear_cache_while_others_trace(x):
    f = autojit.jit(lambda box, n: {"y": box.a * n, "n": n})

    def work(i):
        for k in others.turns(25):
            result = f(Data(x, ["static", k % 3]), k % 3)
            equal(result["y"], x * (k % 3))
            assert result["n"] == k % 3

    def clear():
        f.clear_cache()
        time.sleep(0.002)

    with Meanwhile(clear) as others:
        in_threads(work, 4)
    f.clear_cache()
    assert f.cache_info()[:4] == (0, 0, 0, 0)
    in_threads(lambda i: f(Data(x), 1))
    assert_counts(f, calls=THREADS, traces=1)


def test_jax_clear_caches_while_others_trace(x):
    f = autojit.jit(lambda box, n: {"y": box.a * n})

    def work(i):
        for k in others.turns(20):
            equal(f(Data(x), k % 2)["y"], x * (k % 2))
        return k + 1

    def clear():
        jax.clear_caches()
        time.sleep(0.02)

    with Meanwhile(clear) as others:
        calls = sum(in_threads(work, 4))
    info = f.cache_info()
    assert info.hits + info.misses == calls
    assert info.currsize == 2


def test_cache_info_while_others_trace(x):
    f = autojit.jit(lambda x, n: x * n)
    seen = []

    def work(i):
        return len([f(x, n % 3) for n in others.turns(50)])

    with Meanwhile(lambda: seen.append(f.cache_info())) as others:
        calls = sum(in_threads(work))
    counts = [info.hits + info.misses for info in seen]
    assert counts == sorted(counts)
    assert_counts(f, calls=calls, traces=3)


# Wrapping.


@again(10)
def test_wrapping_one_function_from_many_threads(x):
    traced = Notes()
    # Unseen: a trace that changes what it reads is taken by no other dispatcher.
    unseen = Arrivals()
    arrivals = contextvars.ContextVar("arrivals", default=unseen)

    def body(box, n):
        traced.append(n)
        arrivals.get().wait(0.002)
        return box.a * n

    def work(i):
        arrivals.get().arrive()
        f = autojit.jit(body)
        equal(f(Data(x), 3), x * 3)
        return f

    dispatchers = in_threads(work)
    assert traced == [3]
    for f in dispatchers:
        assert_counts(f, calls=THREADS, traces=1)


def test_wrapping_a_method_from_many_threads(x):
    traced = Notes()

    class Model:
        def __init__(self, w):
            self.w = w

        def scaled(self, n):
            traced.append(n)
            return self.w * n

    def work(i):
        for _ in range(20):
            model = Model(x + i)
            equal(autojit.jit(model.scaled)(2), model.w * 2)

    in_threads(work)
    assert traced == [2]


def test_wrapping_and_dropping(x):
    def body(box, n):
        return box.a * n

    kept = autojit.jit(body)

    def work(i):
        calls = 0
        for k in others.turns(100):
            f = autojit.jit(body)
            if k % 10 == 0:
                equal(f(Data(x), 2), x * 2)
                calls += 1
            del f
        return calls

    with Meanwhile(gc.collect) as others:
        calls = sum(in_threads(work))
    assert_counts(kept, calls=calls, traces=1)


def test_functions_that_end_in_many_threads(x):
    """The end of a function ends its table, whichever thread sees it."""

    class Token:
        pass

    def work(i):
        references = []
        for n in range(5):
            token = Token()
            references.append(weakref.ref(token))
            f = autojit.jit(lambda x, n=n, token=token: x * n)
            equal(f(x), x * n)
            references.append(weakref.ref(f))
            del f, token
        return references

    references = [r for of_thread in in_threads(work, 4) for r in of_thread]
    jax.clear_caches()
    gc.collect()
    assert [r() for r in references if r() is not None] == []


# What is being walked changes.


def test_attributes_that_another_thread_replaces(x):
    """Each state of the attribute is consistent by itself, and so is each result."""
    states = [(n, [jnp.full(3, float(n))] * n) for n in range(1, 4)]
    box = Plain(state=states[0])
    f = autojit.jit(lambda box: (box.state[0], [a * 2 for a in box.state[1]]))
    turn = itertools.cycle(states)
    seen = set()

    def replace():
        box.state = next(turn)

    def work(i):
        for _ in others.turns(100, lambda: len(seen) == len(states)):
            n, arrays = f(box)
            seen.add(n)
            assert len(arrays) == n
            for a in arrays:
                equal(a, jnp.full(3, 2.0 * n))

    with Meanwhile(replace) as others:
        in_threads(work, 4)
    assert f.cache_info().traces == len(states)


def test_containers_that_another_thread_changes(x):
    """A list and a dict grow and shrink: each result is of some state of theirs."""
    shared = Plain(items=[x], table={0: x}, names={"a"})
    f = autojit.jit(
        lambda box: (len(box.items), sum(box.items), len(box.table), sorted(box.names))
    )
    numbers = itertools.count()
    seen = set()

    def change():
        n = next(numbers) % 3
        shared.items.append(x)
        shared.table[n] = x
        shared.names.add(str(n))
        time.sleep(0)
        if len(shared.items) > 4:
            shared.items.clear()
            shared.items.append(x)
        shared.table.pop((n + 1) % 3, None)
        shared.names.discard(str(n))

    def work(i):
        for _ in others.turns(40, lambda: len(seen) > 2):
            try:
                count, total, size, names = f(shared)
            except RuntimeError as error:
                if "changed" not in str(error):
                    raise
                continue
            equal(total, x * count)
            assert 0 <= size <= 3
            assert names[-1] == "a"
            seen.add((count, size, *names))

    with Meanwhile(change) as others:
        in_threads(work, 4)


# What belongs to a thread.


def enable_x64():
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64

    return enable_x64()


def test_configuration_is_that_of_the_thread(x):
    calls = []

    @autojit.jit
    def f(box, n):
        calls.append(isinstance(box.a, jax.core.Tracer))
        return {"y": box.a * n, "ones": jnp.ones(2) * n}

    contexts = [
        (contextlib.nullcontext, jnp.float32),
        (enable_x64, jnp.float64),
        (jax.disable_jit, jnp.float32),
    ]

    def work(i):
        context, dtype = contexts[i % 3]
        with context():
            for _ in range(20):
                result = f(Data(x), 2)
                assert result["ones"].dtype == dtype
                equal(result["y"], x * 2)

    in_threads(work, 6)
    assert calls.count(False) == 2 * 20
    assert_counts(f, calls=4 * 20, traces=2, currsize=1)


def test_traces_of_other_threads_are_not_mixed_up(x):
    """One dispatcher inside of several transformations at once."""
    f = autojit.jit(lambda box, n: {"y": jnp.sin(box.a) * n})

    def g(x):
        return f(Data(x), 2)["y"]

    y, slope = jnp.sin(x) * 2, jnp.cos(x) * 2
    transformed = [
        (jax.jit(g), y),
        (jax.grad(lambda x: g(x).sum()), slope),
        (lambda x: jax.vmap(g)(jnp.stack([x, x])), jnp.stack([y, y])),
        (lambda x: jax.jvp(g, (x,), (x,)), (y, slope * x)),
        (lambda x: lax.scan(lambda c, row: (c, g(row)), 0.0, x)[1], y),
        (autojit.jit(g), y),
    ]
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5)

    def work(i):
        function, expected = transformed[i]
        for _ in range(3):
            jax.tree.map(close, function(x), expected)

    in_threads(work, len(transformed))
    assert f.cache_info().currsize == 1


def test_thread_pools(x):
    model = Matmul(jnp.eye(3) * 2, power=2)
    f = autojit.jit(model)
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        rows = [x + i for i in range(100)]
        for row, result in zip(rows, pool.map(f, rows, timeout=TIMEOUT), strict=True):
            equal(result, row * 4)
    assert_counts(f, calls=100, traces=1)


def test_asyncio_tasks(x):
    f = autojit.jit(lambda box, n: {"y": box.a * n})

    async def call(i):
        await asyncio.sleep(0)
        here = f(Data(x + i), i % 3)["y"]
        await asyncio.sleep(0)
        there = (await asyncio.to_thread(f, Data(x + i), i % 3))["y"]
        equal(here, (x + i) * (i % 3))
        equal(there, here)

    async def main():
        await asyncio.wait_for(asyncio.gather(*map(call, range(30))), TIMEOUT)

    asyncio.run(main())
    assert_counts(f, calls=60, traces=3)


def test_an_asyncio_task_in_a_trace(x):
    """The function may run an event loop while it is traced."""

    @autojit.jit
    def f(box):
        async def double(a):
            await asyncio.sleep(0)
            return g(Data(a), 2)

        async def main():
            return await asyncio.gather(double(box.a), double(box.a + 1))

        return asyncio.run(main())

    g = autojit.jit(lambda box, n: box.a * n)
    for _ in range(2):
        a, b = f(Data(x))
        equal(a, x * 2)
        equal(b, (x + 1) * 2)


# Processes.


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("how", ["hit", "while_others_trace", "pool"])
def test_forked_workers(how):
    """As with `jax.jit`: what was compiled before the fork can be called after it."""
    script = Path(__file__).parents[1] / "support" / "fork_worker.py"
    done = subprocess.run(
        [sys.executable, str(script), "autojit", how],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_spawned_workers_get_a_pickled_dispatcher(x):
    w = np.arange(3.0, dtype=np.float32)
    numbers = [2, 3, 2]
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        for dispatcher in (spawn_worker.scaled, autojit.jit(spawn_worker.plain)):
            assert pickle.loads(pickle.dumps(dispatcher))(Data(x), 2)["n"] == 2
            future = pool.submit(spawn_worker.call, dispatcher, w, numbers)
            results, info = future.result(TIMEOUT)
            equal(results, [w * n for n in numbers])
            assert info[:4] == (1, 2, 2, 2)
