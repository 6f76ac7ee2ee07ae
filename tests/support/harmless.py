"""Whether a dispatcher works as before, after what went wrong in a call."""

import numpy as np
from graphs import equal_leaves, same_graph
from kinds import Plain

import autojit


def counted():
    """Return a dispatcher that returns what it gets, and the list of its traces."""
    traces = []

    @autojit.jit
    def f(x, *objects):
        traces.append(objects)
        return x + 1, list(objects)

    return f, traces


def attempt(call, *args):
    """Return the result of a call and None, or None and the clear error it raised."""
    try:
        return call(*args), None
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        return None, error


def assert_works(f, x):
    """Check that a dispatcher of `counted` serves calls, old and new, as it should."""
    for obj in ([1, {"a": x}], Plain(a=x, b=[x])):
        before = f.cache_info()
        for y in (x, x + 1):
            result, (back,) = f(y, obj)
            np.testing.assert_array_equal(result, y + 1)
            assert same_graph(back, obj, equal_leaves)
        after = f.cache_info()
        assert after.hits + after.misses == before.hits + before.misses + 2
        assert after.currsize <= before.currsize + 1
