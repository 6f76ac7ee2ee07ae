"""What a spawned process imports. `test_threads.py` sends it dispatchers."""

import jax.numpy as jnp
import numpy as np
from kinds import Data

import autojit


@autojit.jit
def scaled(box, n):
    return {"y": box.a * n, "n": n}


def plain(box, n):
    return {"y": box.a * n, "n": n, "plain": True}


def call(dispatcher, array, numbers):
    """Return results as numpy arrays, and what the dispatcher has done here."""
    dispatcher.clear_cache()
    box = Data(jnp.asarray(array))
    results = [np.asarray(dispatcher(box, n)["y"]) for n in numbers]
    return results, tuple(dispatcher.cache_info())
