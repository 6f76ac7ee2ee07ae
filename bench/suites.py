"""How long SciPy's array API tests take with autojit, and with the reference.

    python bench/suites.py                     # all of it, three rounds
    python bench/suites.py --rounds 1 scipy.cluster

Each run is pytest in a process of its own, one after the other: with the reference,
which is array-api-extra's own ``jax_autojit``; with ``--autojit`` and an empty
compilation cache; with the cache that this leaves; and each of them with two workers of
pytest-xdist, where the reference is given the same cache. The time in jitted calls is
that of the outermost of them; for autojit it is what the plugin counts. A test that
ends in another way than with the reference is named, and the exit code is then 1.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

RESULT = "AUTOJIT_BENCH_RESULT"
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "PYTHONHASHSEED": "0",  # some tests are named after the elements of a set
    "SCIPY_ARRAY_API": '["jax.numpy"]',
}
CACHE = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
OPTIONS = ["-q", "-p", "suites", "-W", "ignore::pytest.PytestUnknownMarkWarning"]


# In the processes that run tests, where this is a plugin of pytest.


class Clock:
    """The time in jitted calls, but for those within another."""

    def __init__(self) -> None:
        self.calls = 0
        self.seconds = 0.0
        self.depth = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        self.depth += 1
        began = time.perf_counter()
        try:
            yield
        finally:
            self.depth -= 1
            if self.depth == 0:
                self.calls += 1
                self.seconds += time.perf_counter() - began

    def around(self, wrap: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return a ``jax_autojit`` whose wrappers take the time of their calls."""

        def jax_autojit(fun: Any) -> Any:
            jitted = wrap(fun)

            def timed(*args: Any, **kwargs: Any) -> Any:
                with self.running():
                    return jitted(*args, **kwargs)

            # SciPy asks its functions for what others have attached to them.
            with contextlib.suppress(AttributeError, TypeError):
                functools.update_wrapper(timed, jitted)
            return timed

        return jax_autojit


CLOCK = Clock()
OUTCOMES: dict[str, str] = {}


def pytest_collection_finish(session: Any) -> None:
    if counted_by_plugin(session.config) is not None:
        return
    for module in list(sys.modules.values()):
        patch = getattr(module, "__dict__", {}).get("patch_lazy_xp_functions")
        scope = getattr(patch, "__globals__", {})
        if "jax_autojit" not in scope and "_helpers" in scope:
            scope = vars(scope["_helpers"])
        found = scope.get("jax_autojit")
        if found is not None and not hasattr(found, "is_timed"):
            scope["jax_autojit"] = CLOCK.around(found)
            scope["jax_autojit"].is_timed = True


def pytest_runtest_logreport(report: Any) -> None:
    outcome = report.outcome
    if hasattr(report, "wasxfail"):
        outcome = "xfailed" if report.skipped else "xpassed"
    if report.when == "call" or outcome != "passed":
        OUTCOMES[report.nodeid] = outcome


def counted_by_plugin(config: Any) -> Any:
    """Return what autojit's plugin counts, or None if it is off."""
    found = (getattr(p, "statistics", None) for p in config.pluginmanager.get_plugins())
    return next((one for one in found if hasattr(one, "saved")), None)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: Any) -> None:
    count = counted_by_plugin(session.config) or CLOCK
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    Path(f"{os.environ[RESULT]}.{worker}.json").write_text(
        json.dumps(
            {"calls": count.calls, "seconds": count.seconds, "outcomes": OUTCOMES}
        )
    )


# In the process that compares.


class Run(NamedTuple):
    wall: float
    jitted: float
    calls: int
    outcomes: dict[str, str]


def run(packages: list[str], arguments: list[str], environment: dict[str, str]) -> Run:
    """Run the tests once."""
    (scipy,) = importlib.util.find_spec("scipy").submodule_search_locations
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result"
        settings = Path(folder) / "pytest.ini"
        settings.write_text("[pytest]\n")
        began = time.perf_counter()
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", *OPTIONS, *arguments),
                *("-p", "no:cacheprovider", "-m", "array_api_backends"),
                *("-c", str(settings), "--rootdir", str(Path(scipy).parent)),
                *("--pyargs", *packages),
            ],
            cwd=folder,
            env={
                **os.environ,
                **ENVIRONMENT,
                **environment,
                RESULT: str(result),
                "PYTHONPATH": str(Path(__file__).parent),
            },
            capture_output=True,
            text=True,
        )
        wall = time.perf_counter() - began
        if done.returncode not in (0, 1):
            sys.exit(done.stdout[-5000:] + done.stderr[-5000:])
        parts = [json.loads(p.read_text()) for p in Path(folder).glob("result.*.json")]
    # A controller of pytest-xdist has all outcomes, and no calls.
    return Run(
        wall,
        sum(part["seconds"] for part in parts),
        sum(part["calls"] for part in parts),
        max((part["outcomes"] for part in parts), key=len),
    )


def rounds_of(packages: list[str], workers: list[str]) -> dict[str, Run]:
    """Run the tests in each way once, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        shared = {**CACHE, "JAX_COMPILATION_CACHE_DIR": str(cache / "jax")}
        environment = shared if workers else {}
        ours = ["--autojit", "--autojit-cache-dir", str(cache / "autojit"), *workers]
        runs = {"reference": run(packages, workers, environment)}
        if workers:
            runs["reference, second run"] = run(packages, workers, environment)
        runs["autojit"] = run(packages, ours, {})
        runs["autojit, second run"] = run(packages, ours, {})
    return runs


def main() -> None:
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("packages", nargs="*")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    packages = options.packages or ["scipy.cluster", "scipy.special"]
    table = Table("run", "wall s", "× reference", "in jitted calls s", "× reference")
    different = set()
    for workers in ([], ["-n", "2"]):
        rounds = [rounds_of(packages, workers) for _ in range(options.rounds)]
        for way, first in rounds[0].items():
            base = "reference"
            if workers and way.endswith("second run"):
                base = "reference, second run"
            walls = [one[way].wall for one in rounds]
            jitted = [one[way].jitted for one in rounds]
            row = [f"{way}{', -n 2' if workers else ''}"]
            for times, of in ((walls, "wall"), (jitted, "jitted")):
                ratio = statistics.median(
                    mine / getattr(one[base], of)
                    for mine, one in zip(times, rounds, strict=True)
                )
                row += [f"{statistics.median(times):.1f}", f"{ratio:.2f}"]
            table.add_row(*row)
            reference = rounds[0]["reference"].outcomes
            different |= {
                f"{way}: {test}"
                for test in reference.keys() | first.outcomes.keys()
                if reference.get(test) != first.outcomes.get(test)
            }
        print(f"{first.calls:,} calls, {len(first.outcomes):,} tests")
    Console().print(table)
    print(*sorted(different), sep="\n")
    print(f"{len(different)} outcomes differ")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
