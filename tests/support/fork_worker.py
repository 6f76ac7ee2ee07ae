"""Fork after JAX and dispatchers have worked. `test_threads.py` runs this.

``python fork_worker.py WHAT HOW``: the child calls `WHAT`, ``jit`` or ``autojit``, in
the way that `HOW` names. The exit code tells whether the child got the right results in
time.

What is called has been compiled before: JAX cannot compile in a forked child, where the
threads that it compiles with are missing, and waits for them forever.
"""

import multiprocessing
import os
import signal
import sys
import threading
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from kinds import Plain

import autojit

warnings.filterwarnings("ignore", message=".*fork.*")

SECONDS = 60
SLOW = 100

under_way = threading.Barrier(5)
resume = threading.Event()


def pause(n):
    """Stay in the trace for a number that is slow, until all others are in theirs."""
    if n >= SLOW:
        under_way.wait(SECONDS)
        resume.wait(SECONDS)


def scaled(box, n):
    pause(n)
    return {"y": box.a * n, "n": n}


def scaled_flat(a, n):
    pause(n)
    return a * n


dispatcher = autojit.jit(scaled)
flat = jax.jit(scaled_flat, static_argnums=1)

CALLS = {
    "autojit": lambda a, n: dispatcher(Plain(a=a), n)["y"],
    "jit": flat,
}


def right(call, numbers):
    a = jnp.arange(3.0)
    for n in numbers:
        if np.asarray(call(a, n)).tolist() != [0.0, 1.0 * n, 2.0 * n]:
            return False
    return True


def in_child(call, numbers):
    """Run in a forked child; return whether it got the right results in time."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(SECONDS)
        code = 1
        try:
            code = 0 if right(call, numbers) else 1
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return status == 0


def hit(call):
    return in_child(call, [2, 2, 2])


def while_others_trace(call):
    """Fork while other threads of the parent are in the midst of a trace.

    Not while they compile or run: a lock of JAX that one of them holds just then would
    be held for ever in the child, whoever calls it there.
    """
    unfinished = set(range(4))

    def work(i):
        if right(call, [2, SLOW + i]):
            unfinished.discard(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    under_way.wait(SECONDS)
    results = [in_child(call, [2, 2, 2]) for _ in range(5)]
    resume.set()
    for thread in threads:
        thread.join()
    return all(results) and not unfinished


def pool(call):
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as workers:
        name = "jit" if call is flat else "autojit"
        return all(workers.starmap(right_by_name, [(name, [2, 1])] * 4))


def right_by_name(name, numbers):
    return right(CALLS[name], numbers)


if __name__ == "__main__":
    signal.alarm(4 * SECONDS)
    what, how = CALLS[sys.argv[1]], globals()[sys.argv[2]]
    assert right(what, [1, 2])
    sys.exit(0 if how(what) else 1)
