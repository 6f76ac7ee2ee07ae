"""JAX's persistent compilation cache, set up for many short runs at the same time.

The files that JAX itself writes are there before they are complete, and it never
replaces a damaged one: each time that one is read, it warns, and compiles. Tests that
turn warnings into errors fail by that, also when another process is just about to write
the file. Hence JAX is given a store of ours.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from autojit._jax_private import use_store

_CONFIG: Any = jax.config  # its methods have no types in some versions
_SETTINGS: dict[str, Any] = {
    # By default only programs that take a second to compile are kept.
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
    # No bound: JAX would take a lock for each program.
    "jax_compilation_cache_max_size": -1,
    # Caches that XLA keeps in the same folder, for GPUs only. With them, its path is
    # part of each key in some versions of JAX: a folder that was moved would be of no
    # use.
    "jax_persistent_cache_enable_xla_caches": None,
}
_DIGEST_SIZE = 16


class Store:
    """A folder of compiled programs that many processes read and write.

    A file appears as a whole, and begins with a checksum of the rest. One that does not
    match is as good as none, and the program that is compiled then replaces it. If the
    folder can't be written, nothing is kept.

    Parameters
    ----------
    folder : path
        The folder. It is made when something is put into it.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder  # JAX logs it by this name

    def _file(self, key: str) -> Path:
        return self._path / f"{key}.program"

    def get(self, key: str) -> bytes | None:
        """Return what was put there, or None."""
        try:
            stored = self._file(key).read_bytes()
        except OSError:
            return None
        value = stored[_DIGEST_SIZE:]
        return value if stored[:_DIGEST_SIZE] == _digest(value) else None

    def put(self, key: str, value: bytes) -> None:
        """Keep a program."""
        file = self._file(key)
        part = file.with_name(f"{key}.{os.getpid()}-{threading.get_ident()}")
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            try:
                part.write_bytes(_digest(value) + value)
                part.replace(file)
            finally:
                part.unlink(missing_ok=True)  # a full disk, say
        except OSError:
            pass


def _digest(value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=_DIGEST_SIZE).digest()


@contextmanager
def compilation_cache(folder: Path) -> Iterator[None]:
    """Keep all that JAX compiles, until the end of the block.

    Parameters
    ----------
    folder : path
        Where to.
    """
    settings = {"jax_compilation_cache_dir": str(folder), **_SETTINGS}
    before = {name: getattr(_CONFIG, name) for name in settings}
    for name, value in settings.items():
        _CONFIG.update(name, value)
    use_store(Store(folder))
    try:
        yield
    finally:
        for name, value in before.items():
            _CONFIG.update(name, value)
        use_store(None)
