"""Which specialization serves a call, whatever the calls before it were."""

import itertools
import random
import time
import tracemalloc

import jax.numpy as jnp
import numpy as np
import pytest
from kinds import Plain

import autojit


def patterns(count):
    """Orders in which `count` different calls may come."""
    rng = random.Random(count)
    yield [i % count for i in range(4 * count)]
    yield [i // 3 % count for i in range(6 * count)]
    yield [rng.randrange(count) for _ in range(8 * count)]


def arrays_that_differ_in_one_item(count):
    for i in range(count):
        array = np.zeros(300_000)
        array[array.size // count * i] = i + 1
        yield array


def reduced(i):
    value = Plain()
    value.name = i
    return {"set": {i, "a"}, "reduced": complex(i), "object": value}


VALUES = {
    "numbers": lambda count: range(count),
    "flags": lambda count: itertools.islice(
        itertools.product((False, True), repeat=6), count
    ),
    "late": lambda count: ([*range(300), i] for i in range(count)),
    "early": lambda count: ([i, *range(1000, 1300)] for i in range(count)),
    "arrays": arrays_that_differ_in_one_item,
    "sets": lambda count: ({"a", "b", i} for i in range(count)),
    "frozensets": lambda count: (frozenset({"a", f"{i}"}) for i in range(count)),
    "slices": lambda count: (slice(i, None) for i in range(count)),
    "ranges": lambda count: (range(i) for i in range(count)),
    "byte arrays": lambda count: (bytearray([i] * 5_000) for i in range(count)),
    "views": lambda count: (np.arange(40)[i::2] for i in range(count)),
    "objects": lambda count: map(reduced, range(count)),
    "big ints": lambda count: (10**30 + i for i in range(count)),
}


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("count", [2, 3, 12])
def test_calls_in_any_order(x, kind, count):
    traced = []

    def f(x, values, number):
        traced.append(number)
        return x + number

    jitted = autojit.jit(f, retrace_warning=None)
    values = [*VALUES[kind](count)]
    for order in patterns(count):
        for i in order:
            np.testing.assert_array_equal(jitted(x, values[i], i), x + i)
            np.testing.assert_array_equal(jitted(x + 1, values[i], i), x + 1 + i)
    assert sorted(traced) == [*range(count)]
    assert jitted.cache_info().currsize == count


@pytest.mark.parametrize("kind", VALUES)
def test_values_alone_tell_calls_apart(x, kind):
    jitted = autojit.jit(lambda x, value: x, retrace_warning=None)
    for order in patterns(5):
        for i in order:
            jitted(x, [*VALUES[kind](5)][i])  # made anew each time
    assert jitted.cache_info().traces == 5


@pytest.mark.parametrize("count", [2, 3, 12])
def test_a_large_array_is_not_copied_to_look_it_up(x, count):
    jitted = autojit.jit(lambda x, array: x * 2, retrace_warning=None)
    arrays = [*arrays_that_differ_in_one_item(count)]
    for array in arrays:
        jitted(x, array)
    # Of two that are alike but for what a sample shows, either may be the first.
    for order in patterns(count):
        for i in order:
            tracemalloc.start()
            jitted(x, arrays[i])
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < arrays[i].nbytes / 2


def test_traced_numbers_do_not_tell_calls_apart(x):
    jitted = autojit.jit(lambda x, rate, flag: x * rate, traced="rate")
    for i in range(20):
        np.testing.assert_allclose(jitted(x, i / 8, i % 3 == 0), x * (i / 8))
    assert jitted.cache_info().traces == 2


def test_calls_are_found_whatever_their_traced_numbers(x):
    """Without being taken apart, for which the array would be copied."""
    large = np.zeros(100_000)
    jitted = autojit.jit(lambda x, rate, flag, large: x * rate, traced="rate")
    rng = random.Random(0)
    for i in range(30):
        tracemalloc.start()
        result = jitted(x, i / 8, rng.randrange(3), large)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        np.testing.assert_allclose(result, x * (i / 8))
        assert peak < large.nbytes / 2 or i < 12
    assert jitted.cache_info().traces == 3


def test_what_refers_to_itself_many_times_is_looked_at_once(x):
    def tangle(flag):
        inner = [flag]
        for _ in range(300):
            inner = [inner, inner]
        inner[0].append(inner)
        return inner

    jitted = autojit.jit(lambda x, value: x)
    values = [tangle(flag) for flag in "ab"]
    for value in values * 3:
        jitted(x, value)
    assert jitted.cache_info().traces == 2


@pytest.mark.parametrize("maxsize", [1, 2])
def test_calls_that_the_table_has_no_room_for(x, maxsize):
    jitted = autojit.jit(lambda x, i: x + i, maxsize=maxsize, retrace_warning=None)
    for order in patterns(3):
        for i in order:
            np.testing.assert_array_equal(jitted(x, i), x + i)
    assert jitted.cache_info().currsize == maxsize


def test_other_dispatchers_of_the_function(x):
    def f(x, i):
        return x + i

    one = autojit.jit(f)
    for i in (0, 1, 0, 1):
        one(x, i)
    two = autojit.jit(f)
    for i in (1, 0, 1, 1, 0):
        for jitted in (one, two):
            np.testing.assert_array_equal(jitted(x, i), x + i)
    assert one.cache_info().traces == 2


def test_a_specialization_that_goes_while_another_is_matched(x):
    def f(x, value, i):
        return x + i

    jitted = autojit.jit(f)

    class Clearing:
        armed = False

        def __reduce__(self):
            if Clearing.armed:
                jitted.clear_cache()
            return Clearing, ()

    value = Clearing()
    for i in (0, 1, 0, 1, 0, 1):
        jitted(x, value, i)
    Clearing.armed = True
    for i in (0, 0, 1, 0, 1):
        np.testing.assert_array_equal(jitted(x, value, i), x + i)


def test_jnp_arrays_are_no_part_of_it(x):
    jitted = autojit.jit(lambda x, flag: x * 3 if flag else x)
    for i in range(6):
        other = jnp.full(2 + i % 2, i)
        expected = other * 3 if i % 3 else other
        np.testing.assert_array_equal(jitted(other, bool(i % 3)), expected)
    assert jitted.cache_info().currsize == 2


def test_what_is_shared_is_not_looked_at_for_ever(x):
    f = autojit.jit(lambda x, values, number: x * number)
    values = [[*range(40_000)]] * 40_000
    began = time.perf_counter()
    for number in range(3):
        f(x, values, number)
    assert time.perf_counter() - began < 2


def test_what_followed_may_be_gone(x):
    """Another dispatcher of the function drops it; the sanitizers would see its use."""

    def f(x, i):
        return x + i

    one, two = (autojit.jit(f, maxsize=2, retrace_warning=None) for _ in range(2))
    for i in (0, 1, 0, 1, 0, 1, 0):
        one(x, i)
    two(x, 2)  # 1 has to go, which came after 0 each time
    for i in (0, 0, 0, 1, 0, 1):
        np.testing.assert_array_equal(one(x, i), x + i)


RATE = 1


def test_what_is_likely_may_be_of_another_dispatcher(x, monkeypatch):
    def f(x, i):
        return x * RATE + i

    for rate in (1, 2, 1):
        monkeypatch.setitem(globals(), "RATE", rate)
        jitted = autojit.jit(f)
        for i in (0, 1, 0, 1, 1):
            np.testing.assert_array_equal(jitted(x, i), x * rate + i)


def test_what_is_likely_may_go_before_it_is_tried(x):
    class Number:
        is_clearing = False

        def __init__(self, value):
            self.value = value

        def __reduce__(self):
            if Number.is_clearing:
                Number.is_clearing = False
                jitted.clear_cache()
            return Number, (self.value,)

    jitted = autojit.jit(lambda x, number: x + number.value, retrace_warning=None)
    numbers = [Number(i) for i in range(4)]
    for order in patterns(4):
        for i in order:
            jitted(x, numbers[i])
    for i in (3, 1, 2, 0):
        for j in range(4):  # all of one fingerprint
            jitted(x, numbers[j])
        Number.is_clearing = True
        np.testing.assert_array_equal(jitted(x, numbers[i]), x + i)
