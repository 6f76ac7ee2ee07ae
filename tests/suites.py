"""Run real test suites with autojit in place of the reference, and compare.

array-api-extra and SciPy test their functions under JAX by wrapping them with
``array_api_extra``'s ``jax_autojit``. This script runs those tests twice, each time in
a process of its own: once as they are, and once with ``autojit.jax_autojit`` under that
name. Each test has to end in the same way. If one does not, the script says which, with
both outcomes and the end of what pytest says, and ends with exit code 1.

    python tests/suites.py                      # all suites
    python tests/suites.py --quick              # a part of one, for CI
    python tests/suites.py scipy.cluster -k linkage
    python tests/suites.py array-api-extra -- --maxfail=3 -W ignore

The tests come with the installed packages. array-api-extra has to be installed, and
SciPy and hypothesis for the suites of SciPy.
"""

import argparse
import collections
import importlib
import importlib.metadata
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple


class Suite(NamedTuple):
    """What pytest is told, and where the name to replace may be bound."""

    package: str
    # Modules that import every copy of array_api_extra which the tests use.
    imports: list[str]
    arguments: list[str]
    filterwarnings: str
    quick: list[str] | None = None


SUITES = {
    "array-api-extra": Suite(
        "array_api_extra",
        ["array_api_extra._lib._helpers", "array_api_extra.testing"],
        ["--pyargs", "array_api_extra.tests.main", "-k", "jax and not gpu"],
        "error",
        [
            *["--pyargs", "array_api_extra.tests.main.test_helpers"],
            *["array_api_extra.tests.main.test_testing"],
            *["array_api_extra.tests.main.test_lazy"],
            *["array_api_extra.tests.main.test_at"],
            *["-k", "jax and not gpu"],
        ],
    ),
    "scipy.cluster": Suite(
        "scipy",
        ["scipy._lib._array_api"],
        ["--pyargs", "scipy.cluster", "-m", "array_api_backends"],
        "default",
    ),
    "scipy.special": Suite(
        "scipy",
        ["scipy._lib._array_api"],
        ["--pyargs", "scipy.special", "-m", "array_api_backends"],
        "default",
    ),
}

# The installed tests don't bring along the pytest settings of their repositories. What
# changes an outcome there is repeated here.
SETTINGS = """\
[pytest]
xfail_strict = true
filterwarnings =
    {filterwarnings}
    ignore::pytest.PytestUnknownMarkWarning
    ignore::pytest.PytestDeprecationWarning
"""

ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    # Some tests are named after the elements of a set.
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "SCIPY_ARRAY_API": '["jax.numpy"]',
}

OUTCOMES = ["passed", "failed", "error", "skipped", "xfailed", "xpassed"]


# In the process that runs the tests.


class Recorder:
    """A pytest plugin that writes down how each test ended, as it ends."""

    def __init__(self, file: Path) -> None:
        self.file = file.open("w", buffering=1)
        self.ended: dict[str, dict[str, Any]] = {}

    def write(self, **record: Any) -> None:
        print(json.dumps(record), file=self.file)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.write(
                test=report.nodeid, outcome="error", text=report.longreprtext[-2000:]
            )

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.ended[nodeid] = {"outcome": "passed", "seconds": 0, "text": ""}

    def pytest_runtest_logreport(self, report: Any) -> None:
        outcome = report.outcome
        if hasattr(report, "wasxfail"):
            outcome = "xfailed" if report.skipped else "xpassed"
        elif report.failed and report.when != "call":
            outcome = "error"
        ended = self.ended[report.nodeid]
        ended["seconds"] += report.duration
        if outcome != "passed":
            ended |= {"outcome": outcome, "text": report.longreprtext[-2000:]}

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.write(test=nodeid, **self.ended.pop(nodeid))


def holders_of_name(package: str) -> list[Any]:
    """Return each module of the package that holds array_api_extra's ``jax_autojit``.

    The package is array_api_extra, or one that has a copy of its own.
    """
    return [
        module
        for name, module in list(sys.modules.items())
        if f"{name}.".startswith(f"{package}.")
        and "array_api_extra"
        in getattr(vars(module).get("jax_autojit"), "__module__", "")
    ]


def count_and_swap(package: str, swap: bool) -> list[int]:
    """Put a counting function, ours or the reference's, in the name's place.

    Done before any test is imported, so that no module has the old one.
    """
    count = [0]

    def counted(wrap: Any) -> Any:
        def jax_autojit(fun: Any) -> Any:
            count[0] += 1
            return wrap(fun)

        return jax_autojit

    holders = holders_of_name(package)
    assert holders, "no module holds jax_autojit: the packages have changed"
    if swap:
        import autojit

        ours = counted(autojit.jax_autojit)
        print(f"autojit {autojit.__version__} from {autojit.__file__}")
    for module in holders:
        module.jax_autojit = ours if swap else counted(module.jax_autojit)
        print(f"replaced {module.__name__}.jax_autojit")
    return count


def run_tests(request: dict[str, Any]) -> int:
    """Run one suite, one way. Called in a new process."""
    import pytest

    for module in request["imports"]:
        importlib.import_module(module)
    count = count_and_swap(request["package"], request["swap"])
    recorder = Recorder(Path(request["file"]))
    status = pytest.main(request["arguments"], plugins=[recorder])
    left = [module.__name__ for module in holders_of_name(request["package"])]
    assert not left, f"imported later, and not replaced: {left}"
    recorder.write(wrapped=count[0], status=int(status))
    return 0


# In the process that compares.


class Run(NamedTuple):
    """What became of one suite, run one way."""

    ended: dict[str, dict[str, Any]]
    wrapped: int
    seconds: float


def run_suite(suite: Suite, swap: bool, arguments: list[str], folder: Path) -> Run:
    """Run one suite, one way, and read what was written down."""
    way = "autojit" if swap else "reference"
    file, log = folder / f"{way}.jsonl", folder / f"{way}.log"
    settings = folder / "pytest.ini"
    settings.write_text(SETTINGS.format(filterwarnings=suite.filterwarnings))
    options = ["-p", "no:cacheprovider", "-q", "-c", str(settings)]
    # The names of tests are relative to this one.
    (package,) = importlib.util.find_spec(suite.package).submodule_search_locations
    options += ["--rootdir", str(Path(package).parent)]
    request = {
        "package": suite.package,
        "imports": suite.imports,
        "arguments": [*options, *arguments],
        "swap": swap,
        "file": str(file),
    }
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with log.open("w") as output:
        process = subprocess.run(
            [sys.executable, __file__, "--run-tests", json.dumps(request)],
            # An empty folder: hypothesis and pytest may write here.
            cwd=folder,
            env={**os.environ, **ENVIRONMENT},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime - before.ru_utime
    records = (
        [json.loads(line) for line in file.read_text().splitlines()]
        if (file.exists())
        else []
    )
    # 0: all passed, 1: some failed, 5: nothing was selected. The rest is no comparison.
    if records and records[-1].get("status") == 5:
        sys.exit("no test was selected")
    if not records or records[-1].get("status") not in (0, 1):
        print(log.read_text()[-5000:])
        last = records[-1].get("test") if records else None
        sys.exit(f"the tests did not end, {process.returncode=}; the last: {last}")
    end = records.pop()
    ended = {record.pop("test"): record for record in records}
    return Run(ended, end["wrapped"], seconds)


def compare(name: str, reference: Run, ours: Run) -> int:
    """Print a table of counts and all differences; return how many there are."""
    runs = {"reference": reference, "autojit": ours}
    print(f"\n{name:<17}", *(f"{o:>8}" for o in OUTCOMES), " wrapped     CPU s")
    for way, run in runs.items():
        counts = collections.Counter(test["outcome"] for test in run.ended.values())
        row = [f"{counts[outcome]:>8}" for outcome in OUTCOMES]
        print(f"  {way:<15}", *row, f"{run.wrapped:>8} {run.seconds:>9.0f}")
    different = [
        test
        for test in {**reference.ended, **ours.ended}
        if len({run.ended.get(test, {}).get("outcome") for run in runs.values()}) > 1
    ]
    for test in different:
        print(f"\nDIFFERENT: {test}")
        for way, run in runs.items():
            ended = run.ended.get(test, {"outcome": "not run", "text": ""})
            print(f"--- {way}: {ended['outcome']}\n{ended['text']}")
    if not ours.wrapped:
        print("\nNothing was wrapped, so nothing is shown.")
    if reference.wrapped != ours.wrapped:
        print("\nNot as much was wrapped.")
    return len(different) + (reference.wrapped != ours.wrapped) + (not ours.wrapped)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=", ".join(SUITES))
    parser.add_argument("-k", metavar="EXPRESSION", help="as of pytest: which tests")
    parser.add_argument("--quick", action="store_true", help="what CI runs")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the logs in")
    # What comes after `--` is for pytest.
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options = parser.parse_args(sys.argv[1:split])
    extra = sys.argv[split + 1 :]
    chosen = options.suites or list(SUITES)
    if unknown := set(chosen) - set(SUITES):
        parser.error(f"no such suite: {', '.join(sorted(unknown))}")
    if options.quick:
        chosen = [name for name in chosen if SUITES[name].quick]
    if not chosen:
        parser.error("no such suite has a quick part")

    different = 0
    for name in chosen:
        suite = SUITES[name]
        arguments = [*((options.quick and suite.quick) or suite.arguments)]
        if options.k:
            if "-k" in arguments:
                at = arguments.index("-k") + 1
                arguments[at] = f"({arguments[at]}) and ({options.k})"
            else:
                arguments += ["-k", options.k]
        with tempfile.TemporaryDirectory(prefix="autojit-suites-") as folder:
            root = options.keep / name if options.keep else Path(folder)
            root = root.resolve()
            root.mkdir(parents=True, exist_ok=True)
            runs = [
                run_suite(suite, swap, [*arguments, *extra], root)
                for swap in (False, True)
            ]
        version = importlib.metadata.version(suite.package)
        different += compare(f"{name} {version}", *runs)
    print(f"\n{different} differences" if different else "\nNo difference.")
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run-tests"]:
        # The folder of this file is no place to import from.
        del sys.path[0]
        sys.exit(run_tests(json.loads(sys.argv[2])))
    main()
