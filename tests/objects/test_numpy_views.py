"""numpy arrays whose items do not lie in a row: views, and items that are repeated."""

import pickle
import tracemalloc

import numpy as np
import pytest

import autojit

BASE = np.arange(48, dtype=np.int32)
RECORDS = np.zeros(6, dtype=[("a", "i1"), ("b", "i4")])
RECORDS["b"] = np.arange(6)

VIEWS = {
    "every other": lambda: BASE[::2],
    "backwards": lambda: BASE[::-1],
    "rows": lambda: BASE.reshape(8, 6)[1::2],
    "columns": lambda: BASE.reshape(8, 6)[:, 1:4],
    "transposed": lambda: BASE.reshape(2, 4, 6).transpose(1, 0, 2),
    "fortran": lambda: BASE.reshape(8, 6).T,
    "windows": lambda: np.lib.stride_tricks.sliding_window_view(BASE, 5),
    "bytes": lambda: BASE.view("u1")[::3],
    "wide": lambda: BASE.astype("c16")[::2],
    "text": lambda: np.array(["ab", "c", "de"])[::2],
    "repeated number": lambda: np.broadcast_to(np.float32(2), (3, 4)),
    "repeated row": lambda: np.broadcast_to(BASE[:4], (3, 4)),
    "repeated column": lambda: np.broadcast_to(BASE[:4, None], (4, 3)),
    "repeated in the middle": lambda: np.broadcast_to(
        BASE[:12].reshape(3, 1, 4), (3, 5, 4)
    ),
    "repeated, every other": lambda: np.broadcast_to(BASE[:8:2, None], (4, 3)),
    "repeated, fortran": lambda: np.broadcast_to(
        BASE[:12].reshape(3, 4).T[:, None, :], (4, 2, 3)
    ),
    "repeated, nothing": lambda: np.broadcast_to(BASE[:0], (3, 0)),
    "repeated once": lambda: np.broadcast_to(BASE[:4], (1, 4)),
    "repeated records": lambda: np.broadcast_to(RECORDS[:3], (2, 3)),
    "records": lambda: RECORDS[::2],
}


@pytest.mark.parametrize("kind", VIEWS)
def test_the_function_gets_a_copy_of_its_own(x, kind):
    view = VIEWS[kind]()
    pickled = pickle.loads(pickle.dumps(view))
    seen = []

    def f(x, array):
        seen.append(array.copy())
        assert array.flags.writeable
        assert array.flags.owndata
        assert array.flags.f_contiguous == pickled.flags.f_contiguous
        array[...] = array[:1]  # not the caller's
        return x, array

    before = view.copy()
    jitted = autojit.jit(f)
    for _ in range(3):
        result = jitted(x, VIEWS[kind]())[1]
        assert result.shape == view.shape
    np.testing.assert_array_equal(seen[0], before)
    np.testing.assert_array_equal(view, before)
    assert len(seen) == 1


@pytest.mark.parametrize("kind", VIEWS)
def test_views_that_are_made_anew(x, kind):
    view = VIEWS[kind]()
    f = autojit.jit(lambda x, array: x)
    f(x, view)
    f(x, VIEWS[kind]())
    skeleton = autojit.flatten(view)[1]
    assert pickle.loads(pickle.dumps(skeleton)).unflatten([]).shape == view.shape
    assert autojit.flatten(VIEWS[kind]())[1] == skeleton
    assert hash(autojit.flatten(VIEWS[kind]())[1]) == hash(skeleton)
    assert f.cache_info().traces == 1


def test_every_item_counts(x):
    f = autojit.jit(lambda x, array: x * int(array.sum()), retrace_warning=None)
    for kind in ("every other", "columns", "transposed", "repeated in the middle"):
        view = VIEWS[kind]()
        items = np.zeros(BASE.shape, BASE.dtype)
        like = np.lib.stride_tricks.as_strided(items, view.shape, view.strides)
        for _ in range(3):
            np.testing.assert_array_equal(f(x, like), x * 0)
        for i in range(items.size):
            items[i] = 1
            np.testing.assert_array_equal(f(x, like), x * like.sum())
            items[i] = 0


def test_what_repeats_is_as_good_as_what_is_written_out(x):
    """The function has a copy, and cannot tell."""
    repeated = VIEWS["repeated row"]()
    skeletons = [
        autojit.flatten(array)[1]
        for array in (
            repeated,
            repeated.copy(),
            np.broadcast_to(repeated[:, :1], (3, 4)),
        )
    ]
    assert skeletons[0] == skeletons[1] != skeletons[2]
    assert hash(skeletons[0]) == hash(skeletons[1])
    assert autojit.flatten(skeletons[0].unflatten([]))[1] == skeletons[0]
    f = autojit.jit(lambda x, array: x * array.sum())
    for array in (repeated, repeated.copy(), repeated, repeated.copy()):
        np.testing.assert_array_equal(f(x, array), x * repeated.sum())
    assert f.cache_info().traces == 1


def test_what_repeats_is_kept_once(x):
    view = np.broadcast_to(np.arange(1000.0), (10_000, 1000))
    f = autojit.jit(lambda x, array: x * 2)
    f(x, view)
    tracemalloc.start()
    f(x, view)
    f(x, np.broadcast_to(np.arange(1000.0), (10_000, 1000)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1e5
    assert f.cache_info().traces == 1
    assert f.cache_info().currbytes < 1e5


def test_a_view_is_not_copied_to_compare_it(x):
    view = np.arange(200_000.0)[::2]
    f = autojit.jit(lambda x, array: x * 2)
    f(x, view)
    tracemalloc.start()
    f(x, view)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1e5


def test_items_of_no_bytes(x):
    f = autojit.jit(lambda x, array: x)
    for _ in range(4):
        f(x, np.zeros((2, 3), "V0"))
    assert f.cache_info().traces == 1
