"""A pytest plugin: tests that array-api-extra jits are jitted by autojit.

It is a package of its own, which imports neither JAX nor autojit unless it is switched
on: pytest imports it in each run, in every environment that autojit is installed in.
"""

from __future__ import annotations

import os

import pytest

SCOPES = ("session", "module", "test", "none")

_MARKERS = (
    "no_autojit: array-api-extra's own jax_autojit jits what this test calls, also "
    "with --autojit.",
    "autojit_share(scope): with which tests this one shares what autojit compiles, as "
    "--autojit-share says it for all: 'session', 'module', 'test' or 'none'.",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options, and the settings of the same names."""
    group = parser.getgroup("autojit", "autojit in place of array-api-extra's jit")
    group.addoption(
        "--autojit",
        action="store_true",
        help="jit with autojit what tests jit through lazy_xp_function of "
        "array-api-extra, or of its copy in SciPy, scikit-learn and others; also with "
        "autojit = true in the ini file, or AUTOJIT_PYTEST=1 in the environment",
    )
    group.addoption(
        "--no-autojit", action="store_true", help="don't, whatever else says so"
    )
    group.addoption(
        "--autojit-share",
        choices=SCOPES,
        help="which tests share what is compiled for a function; default: session",
    )
    group.addoption(
        "--autojit-cache-dir",
        metavar="DIR",
        help="where JAX keeps compiled programs from one run to the next, or 'none'; "
        "by default where JAX is told to, or else in pytest's cache, so that "
        "--cache-clear removes them",
    )
    parser.addini("autojit", "as --autojit", type="bool", default=False)
    parser.addini("autojit_share", "as --autojit-share", default="session")
    parser.addini("autojit_cache_dir", "as --autojit-cache-dir", default=None)


# Last, for a conftest.py may set what JAX reads as it is imported.
@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Register the markers and, if the plugin is switched on, what does the work."""
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)
    if not _is_on(config):
        return
    from pytest_autojit._run import Report, Runner
    from pytest_autojit._settings import Settings, one_line

    settings = Settings(config)
    report = Report(config, settings)
    # The process that hands out tests to the workers of pytest-xdist runs none.
    is_worker = hasattr(config, "workerinput")
    if is_worker or config.getoption("dist", "no") == "no":
        try:
            config.pluginmanager.register(Runner(config, settings, report))
        except Exception as error:  # JAX has others than ImportError, too
            report.unavailable = one_line(error)
    config.pluginmanager.register(report)


def _is_on(config: pytest.Config) -> bool:
    if config.getoption("no_autojit"):
        return False
    by_environment = os.environ.get("AUTOJIT_PYTEST", "").lower()
    return bool(
        config.getoption("autojit")
        or config.getini("autojit")
        or by_environment in ("1", "true", "yes", "on")
    )
