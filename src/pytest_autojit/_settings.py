"""What the options and the ini file say."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import sys
from pathlib import Path

import pytest

from pytest_autojit import SCOPES


class Settings:
    """What the options and the ini file say."""

    def __init__(self, config: pytest.Config) -> None:
        self.share: str = config.getoption("autojit_share") or config.getini(
            "autojit_share"
        )
        if self.share not in SCOPES:
            raise pytest.UsageError(
                f"autojit_share = {self.share} in the ini file: it has to be one of "
                f"{', '.join(SCOPES)}"
            )
        self.cache_dir, self.about_cache = _cache_dir(config)


def _cache_dir(config: pytest.Config) -> tuple[Path | None, str]:
    """Return the folder for compiled programs, if there is one, and how to call it."""
    given: str | None = config.getoption("autojit_cache_dir")
    base = config.invocation_params.dir
    if given is None:
        given = config.getini("autojit_cache_dir")
        base = config.inipath.parent if config.inipath else config.rootpath
    if given in ("", "none"):
        return None, "off"
    if given is not None:
        root = base / Path(given).expanduser()
    elif jax_has := _cache_dir_of_jax():
        return None, f"JAX's own, {jax_has}"
    else:
        cache = getattr(config, "cache", None)  # not with -p no:cacheprovider
        if cache is None:
            return None, "off"
        try:
            root = cache.mkdir("autojit")
        except OSError as error:
            return None, f"off ({one_line(error)})"
    folder = root / _kind_of_machine()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return None, f"off ({one_line(error)})"
    if folder.is_relative_to(config.rootpath):
        return folder, str(folder.relative_to(config.rootpath))
    return folder, str(folder)


def _cache_dir_of_jax() -> str | None:
    jax = sys.modules.get("jax")
    if jax is not None:
        found: str | None = jax.config.jax_compilation_cache_dir
        return found
    return os.environ.get("JAX_COMPILATION_CACHE_DIR")


def _kind_of_machine() -> str:
    """Return a name for all machines that may share compiled programs.

    A program that was compiled for another processor may crash. Python does not count.
    """
    try:
        jaxlib = importlib.metadata.version("jaxlib")
    except importlib.metadata.PackageNotFoundError:
        jaxlib = ""
    about = [jaxlib, os.environ.get("XLA_FLAGS", ""), platform.machine()]
    try:
        with open("/proc/cpuinfo") as file:  # Linux; each CPU has the same
            features = (
                line for line in file if line.lower().startswith(("flags", "feat"))
            )
            about.append(next(features, ""))
    except OSError:
        about.append(platform.processor())
    return f"jaxlib-{jaxlib}-{hashlib.sha256(repr(about).encode()).hexdigest()[:8]}"


def one_line(error: BaseException) -> str:
    """Return an error as one line of text."""
    return " ".join(f"{type(error).__name__}: {error}".split())
