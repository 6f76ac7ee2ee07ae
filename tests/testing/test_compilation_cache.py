"""The store of compiled programs: what damage does to it, and what is put back."""

import os
import warnings

import jax
import jax.numpy as jnp
import pytest

from autojit import _statistics
from autojit._compilation_cache import Store, compilation_cache

SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_enable_xla_caches",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


def g(x):
    return jnp.sort(jnp.sin(x)) @ jnp.cos(x)


def compiled_and_read():
    """Compile the same as ever; return how much was compiled, and how much read."""
    jax.clear_caches()
    statistics = _statistics.start()
    jax.jit(g)(jnp.arange(7.0)).block_until_ready()
    _statistics.stop(statistics)
    return statistics.misses, statistics.hits


def truncate(file, size):
    os.truncate(file, size)


def flip_a_bit(file, at):
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: truncate(file, 0),
        lambda file: truncate(file, 10),
        lambda file: truncate(file, 16),
        lambda file: truncate(file, file.stat().st_size - 1),
        lambda file: flip_a_bit(file, 3),
        lambda file: flip_a_bit(file, 100),
        lambda file: file.write_bytes(b"\0" * file.stat().st_size),
    ],
    ids=["empty", "in the checksum", "no program", "end", "sum", "program", "zeros"],
)
def test_damaged_programs_are_compiled_again(tmp_path, damage):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with compilation_cache(tmp_path):
            made, read = compiled_and_read()
            assert made
            assert not read
            assert compiled_and_read() == (0, made)
        files = list(tmp_path.iterdir())
        assert len(files) == made
        for file in files:
            damage(file)
        with compilation_cache(tmp_path):
            assert compiled_and_read() == (made, 0)
            assert compiled_and_read() == (0, made)


def test_a_folder_can_be_moved(tmp_path):
    with compilation_cache(tmp_path / "before"):
        made, _ = compiled_and_read()
    (tmp_path / "before").rename(tmp_path / "after")
    with compilation_cache(tmp_path / "after"):
        assert compiled_and_read() == (0, made)


def test_settings_are_put_back(tmp_path):
    before = [getattr(jax.config, name) for name in SETTINGS]
    compiled_and_read()
    assert compiled_and_read()[1]  # from the folder of tests/conftest.py
    with compilation_cache(tmp_path / "new"):
        # Though JAX has found its cache already.
        assert compiled_and_read()[0]
        assert [getattr(jax.config, name) for name in SETTINGS] != before
    assert [getattr(jax.config, name) for name in SETTINGS] == before
    count = len(list((tmp_path / "new").iterdir()))
    assert compiled_and_read()[1]
    assert len(list((tmp_path / "new").iterdir())) == count


def test_a_folder_that_cannot_be_made_keeps_nothing(tmp_path):
    (tmp_path / "file").touch()
    store = Store(tmp_path / "file" / "folder")
    store.put("a", b"program")
    assert store.get("a") is None


def test_a_program_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "a.program").mkdir()
    store = Store(tmp_path)
    store.put("a", b"program")
    assert store.get("a") is None
    assert [file.name for file in tmp_path.iterdir()] == ["a.program"]


def test_store(tmp_path):
    store = Store(tmp_path / "a" / "b")
    assert store.get("a") is None
    store.put("a", b"program")
    store.put("b", b"")
    assert store.get("a") == b"program"
    assert store.get("b") == b""
    store.put("a", b"other")
    assert store.get("a") == b"other"
    assert len(list((tmp_path / "a" / "b").iterdir())) == 2  # and nothing in progress
