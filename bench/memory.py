"""How much memory a specialization takes, beyond what JAX keeps for it.

Some hundred specializations of one function are made, whose calls differ in one number
of a config, in a child process for each way:

- "stub": autojit, with no compiled function behind it, so that all is ours;
- "autojit": as it is used;
- "jax.jit": as many ``jax.jit`` functions of the arrays alone, flat.

What they take is measured twice, in a process each: the bytes that are allocated, which
malloc knows exactly (Python's own allocator is switched off for that; tracemalloc does
not see what C++ allocates), and the resident memory, which has the gaps and caches of
all allocators in it too. The configs share their values, which are the user's own: what
is counted are nodes.

Then a function with a bounded table makes very many different calls: memory has to stay
flat.

examples:
  python bench/memory.py              in some three minutes
  python bench/memory.py --quick      few specializations and calls
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from autojit import jit
from dispatch import OUT
from results import Environment
from stub import instead_of_jax_jit
from tables import new_table
from workloads import config_of, configured, count_nodes

LAYERS = (0, 6, 66)
"""Of the configs: 15, 105 and 1,005 nodes."""
WAYS = ("stub", "autojit", "jax.jit")
WARM_UP = 20
BOUND, CHECKPOINTS = 64, 5


# In the processes that allocate.


class _MallInfo2(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def used(measure: str) -> int:
    """Return how many bytes this process has allocated, or has in memory."""
    gc.collect()
    if measure == "resident":
        return int(psutil.Process().memory_info().rss)
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = _MallInfo2
    info = mallinfo2()
    return int(info.uordblks + info.hblkhd)


def configs(layers: int) -> Iterator[dict[str, Any]]:
    """Yield configs that differ in one number, and share all other values."""
    first = config_of(layers)
    for number in count():
        config = copy.deepcopy(first)  # of containers alone
        config["epsilon"] = float(number)
        yield config


def caller(way: str, **options: Any) -> Callable[[dict[str, Any]], Any]:
    """Return what is called with each config, and keeps what that makes."""
    x = jnp.arange(4.0)
    if way == "jax.jit":
        kept = []

        def call(config: dict[str, Any]) -> Any:
            dropout, epsilon = 0.5, config["epsilon"]
            kept.append(jax.jit(lambda x: dropout * x + epsilon))
            return kept[-1](x)

        return call
    function = jit(configured, retrace_warning=None, **options)
    return lambda config: function(config, x)


def stub_if(way: str) -> AbstractContextManager[None]:
    """Have the function itself run, uncompiled, where the way is "stub"."""
    if way == "stub":
        return instead_of_jax_jit(lambda flat, **_: flat)
    return nullcontext()


def measure_specializations(way: str, measure: str, layers: int, number: int) -> int:
    """Make specializations, and return by how much memory has grown."""
    call, made = caller(way), configs(layers)
    with stub_if(way):
        for config in islice(made, WARM_UP):
            call(config)
        before = used(measure)
        for config in islice(made, number):
            call(config)
        return used(measure) - before


def measure_growth(way: str, measure: str, number: int) -> list[int]:
    """Make different calls with a bounded table, and return the memory on the way."""
    call, made = caller(way, maxsize=BOUND), configs(0)
    found = []
    with stub_if(way):
        for config in islice(made, 2 * BOUND):
            call(config)
        for _ in range(CHECKPOINTS):
            for config in islice(made, number // CHECKPOINTS):
                call(config)
            found.append(used(measure))
    return found


# In the process that reports.


def in_child(measure: str, *arguments: Any) -> Any:
    """Return what a function of this file returns in a process of its own."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    if measure == "allocated":
        environment["PYTHONMALLOC"] = "malloc"
    done = subprocess.run(
        [sys.executable, __file__, "--child", json.dumps(arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout)


@dataclass(frozen=True)
class Cost:
    """Bytes of one specialization, measured in one way."""

    way: str
    measure: str
    nodes: int
    bytes: float


@dataclass(frozen=True)
class Growth:
    """Bytes of a process that makes different calls, after each part of them."""

    way: str
    measure: str
    calls: int
    bytes: list[int]


@dataclass(frozen=True)
class MemoryReport:
    """All that was measured, of so many specializations each."""

    environment: Environment
    specializations: int
    costs: list[Cost]
    growths: list[Growth]


def measure_all(
    console: Console, layers: Sequence[int], number: int, calls: dict[str, int]
) -> MemoryReport:
    """Run all child processes."""
    report = MemoryReport(Environment.current(), number, [], [])
    for measure in ("allocated", "resident"):
        for way in WAYS:
            with console.status(f"{measure}, {way}"):
                for layer in layers:
                    grown = in_child(measure, "cost", way, measure, layer, number)
                    nodes = count_nodes(config_of(layer))
                    report.costs.append(Cost(way, measure, nodes, grown / number))
                if way in calls:
                    found = in_child(measure, "growth", way, measure, calls[way])
                    report.growths.append(Growth(way, measure, calls[way], found))
    return report


def cost_table(report: MemoryReport, measure: str) -> Table:
    """Lay out what specializations cost, a line for each number of nodes."""
    table = new_table(f"Bytes of a specialization, {measure}")
    for title in ("nodes", *WAYS, "autojit beyond jax.jit"):
        table.add_column(title, justify="right")
    costs = {(c.way, c.nodes): c.bytes for c in report.costs if c.measure == measure}
    for nodes in sorted({nodes for _, nodes in costs}):
        row = [costs[way, nodes] for way in WAYS]
        row.append(costs["autojit", nodes] - costs["jax.jit", nodes])
        table.add_row(f"{nodes:,}", *(f"{value:,.0f}" for value in row))
    return table


def summary_line(report: MemoryReport) -> str:
    """Say what a specialization costs, and what a node adds, by a line of best fit."""
    ours = [c for c in report.costs if (c.way, c.measure) == ("stub", "allocated")]
    nodes = [cost.nodes for cost in ours]
    slope, start = np.polyfit(nodes, [cost.bytes for cost in ours], 1)
    return f"Without JAX: {start:,.0f} bytes, and {slope:.1f} for each node."


def growth_table(report: MemoryReport) -> Table:
    """Lay out how memory grows while different calls are made."""
    table = new_table(f"Different calls, of which {BOUND} are kept: MB on the way")
    table.add_column("")
    table.add_column("")
    table.add_column("calls", justify="right")
    for part in range(1, CHECKPOINTS + 1):
        table.add_column(f"{part / CHECKPOINTS:.0%}", justify="right")
    table.add_column("bytes a call, 2nd half", justify="right")
    for growth in report.growths:
        middle = CHECKPOINTS // 2
        late_calls = growth.calls * (CHECKPOINTS - 1 - middle) / CHECKPOINTS
        rate = (growth.bytes[-1] - growth.bytes[middle]) / late_calls
        table.add_row(
            growth.way,
            growth.measure,
            f"{growth.calls:,}",
            *(f"{value / 2**20:.1f}" for value in growth.bytes),
            f"{rate:.1f}",
        )
    return table


def main() -> None:
    """Do what the command line asks for."""
    options = parse()
    if options.child:
        which, *arguments = json.loads(options.child)
        measured = {"cost": measure_specializations, "growth": measure_growth}[which]
        print(json.dumps(measured(*arguments)))
        return
    console = Console()
    if options.quick:
        report = measure_all(console, LAYERS[:2], 20, {"stub": 1000})
    else:
        report = measure_all(console, LAYERS, 100, {"stub": 100_000, "autojit": 1000})
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(asdict(report), indent=2) + "\n")
    console.print(str(report.environment), style="bold", highlight=False)
    for measure in ("allocated", "resident"):
        console.print(cost_table(report, measure))
    console.print(summary_line(report))
    console.print(growth_table(report))
    console.print(f"Written: {options.json}", highlight=False)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a first look")
    parser.add_argument(
        "--json", type=Path, default=OUT / "memory.json", metavar="PATH"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
