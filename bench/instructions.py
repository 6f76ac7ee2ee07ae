"""Count the instructions of a hit: what a change to the core did, without noise.

Wall time of a busy machine says nothing of a change by 3 %, but the count of
instructions is the same each time. A child process runs under ``valgrind
--tool=callgrind``, with the real arguments of the workloads of bench/workloads.py. A
stub stands for the compiled function: it returns what JAX would make of the result, and
JAX does not run in a call.

There are two figures. "core" are the instructions of the extension module's own code:
what it executes itself, wherever that was called from. They are summed over the binary,
not over functions, since a release build has neither the names of functions nor their
borders: they are inlined. "total" adds what the core has called in CPython and the
C library, which a change could move work to, but not the stub.

examples:
  python bench/instructions.py                print the figures, in a minute or two
  python bench/instructions.py --check        compare them with bench/instructions.json
  python bench/instructions.py --update       write them there

Counts depend on the compiler and on CPython. Where these are not those of the recorded
figures, `--check` says so and passes.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from functools import partial
from importlib.metadata import version
from itertools import repeat
from operator import itemgetter
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table
from rich.text import Text

from autojit import _core, jit
from callgrind import OPTIONS, Profile, counted, read_profiles
from case import Call, Case
from stub import instead_of_jax_jit
from tables import new_table
from workloads import WORKLOADS

RECORD = Path(__file__).parent / "instructions.json"
FAMILIES = ("W1", "W2", "W3", "W7", "W8")
WARM_UP, CALLS = 20, 100
TOLERANCE = 0.03
"""What a count may rise by: less than a change one would want to know of."""


@dataclass(frozen=True)
class Count:
    """Instructions of one call. `total` is None where the stub cannot be told apart."""

    core: float
    total: float | None


# In the process that runs under valgrind.


def count(names: Sequence[str]) -> None:
    """Count the calls of some workloads, each under its name."""
    for name in names:
        call = set_up(WORKLOADS[name].build())
        function, args = call.function, call.args
        for _ in repeat(None, WARM_UP):
            function(*args)
        gc.collect()
        gc.disable()
        with counted(name):
            for _ in repeat(None, CALLS):
                function(*args)
        gc.enable()


def set_up(case: Case) -> Call:
    """Set up a workload for autojit, and make its first call, with stubs for JAX."""
    call = case.setup(jit)
    with instead_of_jax_jit(stub_of):
        if call.first is not None:
            call.first()
        call.function(*call.args)
    return call


def stub_of(flat: Callable[..., Any], **_: Any) -> Callable[..., Any]:
    """Stand for ``jax.jit``: trace at the first call, and compile nothing.

    As JAX does on each call, the stub makes a new `Result` of the right form, whose
    arrays are all the first leaf.
    """
    make: Callable[[], Any] | None = None

    def stub(*leaves: jax.Array) -> Any:
        nonlocal make
        if make is None:
            traced = jax.eval_shape(flat, *leaves)
            if isinstance(traced, _core.Result):
                arrays = leaves[:1] * len(jax.tree.leaves(traced))
                make = partial(_core.new_result, traced.skeleton, arrays)
            else:
                make = partial(itemgetter(0), leaves)
        return make()

    return stub


# In the process that reports.


def measure(names: Sequence[str]) -> Mapping[str, Count]:
    """Count the calls of some workloads in a child process."""
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder) / "callgrind"
        done = subprocess.run(
            [
                *("valgrind", "--quiet", *OPTIONS, f"--callgrind-out-file={prefix}"),
                *(sys.executable, __file__, "--child", "--workload", *names),
            ],
            # Dicts and sets of strings have the same order each time.
            env={**os.environ, "PYTHONHASHSEED": "0", "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            sys.exit(f"{done.stdout}{done.stderr}\nThe run under valgrind has failed.")
        profiles = read_profiles(prefix)
    return {name: summed(profiles[name]) for name in names}


def summed(profile: Profile) -> Count:
    """Sum up what the core and what it calls have executed."""
    core = _core.__file__
    calls_in = [
        cost
        for edge, cost in profile.edges.items()
        if edge.file != core and edge.callee_file == core
    ]
    # The core calls no other Python function in a hit.
    stubs = [
        cost
        for edge, cost in profile.edges.items()
        if edge.file == core
        and edge.callee in {"PyObject_Vectorcall", "_PyFunction_Vectorcall"}
    ]
    total = None
    if len(stubs) == 1 and stubs[0].calls == CALLS:
        # The call of the dispatcher is the one that all others are within.
        outermost = max(cost.instructions for cost in calls_in)
        total = (outermost - stubs[0].instructions) / CALLS
    return Count(profile.own[core] / CALLS, total)


@dataclass(frozen=True)
class Environment:
    """What counts depend on, beside the core itself."""

    machine: str
    python: str
    python_compiler: str
    core_compiler: str
    equinox: str

    def __str__(self) -> str:
        return (
            f"{self.machine} · Python {self.python} by {self.python_compiler} · "
            f"core by {self.core_compiler} · Equinox {self.equinox}"
        )

    @property
    def key(self) -> str:
        """What figures are recorded for, each beside the others."""
        return f"{self.machine}-{'.'.join(self.python.split('.')[:2])}"

    @classmethod
    def current(cls) -> Environment:
        """Describe this process."""
        # Compilers leave their names in a section of the binary that is not stripped.
        compilers = re.findall(
            rb"(?:GCC: \([^)]*\)|clang version) [\d.]+",
            Path(_core.__file__).read_bytes(),
        )
        return cls(
            machine=platform.machine(),
            python=platform.python_version(),
            python_compiler=platform.python_compiler(),
            core_compiler=", ".join(sorted({name.decode() for name in compilers})),
            equinox=version("equinox"),  # what the modules of W2 are made of
        )


@dataclass(frozen=True)
class Record:
    """The counts of one environment, by the names of workloads."""

    environment: Environment
    counts: dict[str, Count]


def read_records() -> dict[str, Record]:
    """Read the recorded counts, by the keys of their environments."""
    if not RECORD.exists():
        return {}
    records = json.loads(RECORD.read_text(encoding="utf-8"))
    return {
        key: Record(
            Environment(**record["environment"]),
            {name: Count(**counts) for name, counts in record["counts"].items()},
        )
        for key, record in records.items()
    }


def write_records(records: Mapping[str, Record]) -> None:
    """Write counts to where `read_records` finds them."""
    text = json.dumps({key: asdict(records[key]) for key in sorted(records)}, indent=2)
    RECORD.write_text(text + "\n", encoding="utf-8")


def check(console: Console, record: Record | None, new: Record) -> int:
    """Compare counts with the recorded ones; return 1 if one is too high."""
    if record is None or record.environment != new.environment:
        before = "nothing" if record is None else record.environment
        console.print(
            f"Nothing is compared: what is recorded is for {before}.",
            style="yellow",
            highlight=False,
        )
        return 0
    rises = [
        (name, which, after / before - 1)
        for name, count in new.counts.items()
        if name in record.counts
        for which, before, after in zip(
            ("core", "total"),
            astuple(record.counts[name]),
            astuple(count),
            strict=True,
        )
        if before and after and abs(after / before - 1) > TOLERANCE
    ]
    for name, which, rise in rises:
        console.print(f"{name}, {which}: {rise:+.1%}", style="red" if rise > 0 else "")
    if any(rise > 0 for _, _, rise in rises):
        console.print(
            "A hit has become more expensive. See which change did that: `valgrind "
            "--tool=callgrind` on a build with symbols says where. If it is worth it, "
            "say so in the commit, and record the new figures: "
            "python bench/instructions.py --update",
            style="bold red",
        )
        return 1
    if rises:
        console.print(
            "A hit has become cheaper. To keep it so, record the new figures: "
            "python bench/instructions.py --update"
        )
    return 0


def count_table(record: Record | None, new: Record) -> Table:
    """Lay out the counts, beside the recorded ones."""
    table = new_table("Instructions of a hit")
    table.add_column("")
    table.add_column("what is called")
    for title in ("core", "recorded", "total", "recorded"):
        table.add_column(title, justify="right")
    for name, count in new.counts.items():
        before = record.counts.get(name) if record else None
        figures = (
            count.core,
            before and before.core,
            count.total,
            before and before.total,
        )
        table.add_row(
            Text(name, "bold"),
            WORKLOADS[name].title,
            *("–" if figure is None else f"{figure:,.0f}" for figure in figures),
        )
    return table


def main() -> int:
    """Do what the command line asks for."""
    options = parse()
    chosen = [
        w.name for w in WORKLOADS.values() if {w.name, w.family} & set(options.workload)
    ]
    if options.child:
        count(chosen)
        return 0
    if shutil.which("valgrind") is None:
        sys.exit("This needs valgrind.")
    console = Console()
    records = read_records()
    new = Record(Environment.current(), measure(chosen))
    old = records.get(new.environment.key)
    console.print(str(new.environment), style="bold", highlight=False)
    console.print(count_table(old, new))
    if options.update:
        kept = old.counts if old and old.environment == new.environment else {}
        records[new.environment.key] = replace(new, counts={**kept, **new.counts})
        write_records(records)
    return check(console, old, new) if options.check else 0


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [name for w in WORKLOADS.values() for name in (w.name, w.family)]
    parser.add_argument(
        "--workload",
        nargs="+",
        metavar="NAME",
        choices=names,
        default=list(FAMILIES),
        help="others than %(default)s",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help=f"exit with 1 if a count is more than {TOLERANCE:.0%} above the recorded",
    )
    parser.add_argument("--update", action="store_true", help="record the counts")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
