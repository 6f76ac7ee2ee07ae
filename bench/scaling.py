"""How the cost of a call grows: with static nodes, with leaves, with specializations.

Each point is a workload as in bench/dispatch.py, timed in the same way. What is shown
is the time over the floor, which is jax.jit on the same arrays, flat; where there are
several specializations, as many of these. If growth is linear, "ns each" stays the same
from line to line. It is the minimum that is compared, which is disturbed least; a time
below the floor is one that is lost in its noise.

examples:
  python bench/scaling.py                                in some eight minutes
  python bench/scaling.py --quick                        small sizes, few rounds
  python bench/scaling.py --full                         the largest sizes too: an hour
  python bench/scaling.py --from-json bench/out/scaling.json --plot scaling.svg
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from case import Call, Case, Workload, Wrapper
from dispatch import OUT, run
from peers import PEERS
from results import Outcome, Report
from tables import format_time, new_table
from workloads import flat, one_of, with_config, with_copies

ROUNDS, QUICK_ROUNDS = 21, 3


@dataclass(frozen=True)
class Axis:
    """What grows.

    Attributes
    ----------
    title
        What a size counts.
    build
        Builds the workload of a size.
    sizes
        From small to large.
    quick
        How many of them are for a first look.
    full
        Those that take very long.
    each
        Whether the cost is expected to grow in proportion.
    """

    title: str
    build: Callable[[int], Case]
    sizes: Sequence[int]
    quick: int
    full: Sequence[int] = ()
    each: bool = True


def with_nodes(count: int) -> Case:
    """Build a call with a config of `count` nodes, 15 at least."""
    return with_config(count // 15 - 1)


def with_equal_nodes(count: int) -> Case:
    """Build a call with an equal copy of a config of `count` nodes, 15 at least."""
    return with_copies(count // 15 - 1)


def with_leaves(count: int) -> Case:
    """Build a call with a list of arrays."""

    def total(arrays: list[jax.Array]) -> jax.Array:
        return jnp.sum(jnp.stack(arrays))

    def wait(result: jax.Array) -> jax.Array:
        return result

    arrays = [jnp.array(float(i)) for i in range(count)]

    def call(jit: Wrapper) -> Call:
        return Call(jit(total), (arrays,), wait=wait)

    return Case(
        call,
        {"flat": flat(total, arrays, wait=wait), "jax.jit": call, "nnx.jit": call},
    )


NODES = [15, 45, 150, 450, 1500, 4500, 15_000, 45_000, 99_990]
AXES = {
    "nodes": Axis("static nodes in one config", with_nodes, NODES, quick=4),
    "copies": Axis("static nodes in equal copies", with_equal_nodes, NODES, quick=4),
    "leaves": Axis(
        "arrays in a list",
        with_leaves,
        # XLA compiles a function of 10,000 arguments in half a minute for each peer.
        [10, 30, 100, 300, 1000, 3000],
        quick=3,
        full=[10_000],
    ),
    "specializations": Axis(
        "specializations, called at random",
        one_of,
        [1, 2, 4, 16, 64, 256, 1000],
        quick=3,
        # Each is compiled for each peer.
        full=[4000, 10_000],
        each=False,
    ),
}


def workloads_of(names: Sequence[str], quick: bool, full: bool) -> list[Workload]:
    """Return the workloads of some axes."""
    found = []
    for name in names:
        axis = AXES[name]
        sizes = axis.sizes[: axis.quick] if quick else axis.sizes
        found += [
            Workload(f"{name} {size}", axis.title, partial(axis.build, size))
            for size in [*sizes, *(axis.full if full else ())]
        ]
    return found


@dataclass(frozen=True)
class Point:
    """The cost of a call over the floor, by peer, and the floor, all in µs."""

    size: int
    floor: float
    over: dict[str, float]


def points_of(name: str, outcomes: Sequence[Outcome]) -> list[Point]:
    """Return the points of an axis, from small to large."""
    points = []
    for outcome in outcomes:
        axis, _, size = outcome.workload.partition(" ")
        if axis == name:
            (floor,) = (t for t in outcome.timings if t.peer == outcome.baseline)
            over = {
                timing.peer: timing.min_us - floor.min_us
                for timing in outcome.timings
                if timing.peer != outcome.baseline
            }
            points.append(Point(int(size), floor.min_us, over))
    return points


def peers_in(points: Sequence[Point]) -> list[str]:
    """Return the peers that are in some of the points, in the order of all."""
    return [name for name in PEERS if any(name in point.over for point in points)]


def scaling_table(axis: Axis, points: Sequence[Point]) -> Table:
    """Lay out an axis, a line for each size."""
    table = new_table(f"µs over the floor, by the number of {axis.title}")
    table.add_column("size", justify="right")
    table.add_column("floor", justify="right")
    for peer in peers_in(points):
        style = "bold" if peer == "autojit" else None
        table.add_column(peer.replace("-", " "), justify="right", style=style)
        if axis.each and peer == "autojit":
            table.add_column("ns each", justify="right", style=style)
    for point in points:
        cells = [f"{point.size:,}", format_time(point.floor)]
        for peer in peers_in(points):
            over = point.over.get(peer)
            cells.append("–" if over is None else format_time(over))
            if axis.each and peer == "autojit":
                cells.append(
                    "–" if over is None else format_time(1e3 * over / point.size)
                )
        table.add_row(*cells)
    return table


def draw(report: Report, path: Path) -> None:
    """Draw all axes side by side."""
    series = {name: points_of(name, report.outcomes) for name in AXES}
    series = {name: points for name, points in series.items() if points}
    figure = Figure(figsize=(4 * len(series), 4.5), layout="constrained")
    plots = figure.subplots(1, len(series), squeeze=False, sharey=True)
    handles = {}
    for axes, (name, points) in zip(plots.flat, series.items(), strict=True):
        sizes = [point.size for point in points]
        floors = [point.floor for point in points]
        label = "the floor itself: " + PEERS["flat"].label.removesuffix(": the floor")
        (handles[label],) = axes.plot(sizes, floors, "--", color=PEERS["flat"].colour)
        for peer in peers_in(points):
            # What is lost in noise has no place on a log axis.
            shown = [p for p in points if p.over.get(peer, 0) > 0]
            (handles[PEERS[peer].label],) = axes.plot(
                [point.size for point in shown],
                [point.over[peer] for point in shown],
                "o-",
                color=PEERS[peer].colour,
                markersize=4,
                linewidth=2.5 if peer == "autojit" else 1.2,
            )
        axes.set(xscale="log", yscale="log", xlabel=AXES[name].title)
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.yaxis.set_major_formatter("{x:,g}")
        axes.grid(color="#dddddd")
        axes.spines[["top", "right"]].set_visible(False)
    plots.flat[0].set_ylabel("µs over the floor")
    figure.suptitle(
        f"What a call costs over the floor\n{report.environment}", fontsize="medium"
    )
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=3,
        frameon=False,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main() -> int:
    """Do what the command line asks for; return 1 if a peer fails or disagrees."""
    options = parse()
    console = Console()
    if options.from_json:
        report = Report.read(options.from_json)
        console.print(str(report.environment), style="bold", highlight=False)
    else:
        report = run(
            console,
            workloads_of(options.axis, options.quick, options.full),
            options.peer,
            QUICK_ROUNDS if options.quick else ROUNDS,
        )
        report.write(options.json)
        console.print(f"Written: {options.json}", highlight=False)
    for name in options.axis:
        if points := points_of(name, report.outcomes):
            console.print(scaling_table(AXES[name], points))
    draw(report, options.plot)
    console.print(f"Drawn: {options.plot}", highlight=False)
    return 0 if all(outcome.sound for outcome in report.outcomes) else 1


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--axis", nargs="+", choices=AXES, default=list(AXES), help="what grows"
    )
    parser.add_argument(
        "--peer", nargs="+", choices=PEERS, default=list(PEERS), metavar="NAME"
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="the small sizes")
    size.add_argument("--full", action="store_true", help="those that take long too")
    parser.add_argument(
        "--json", type=Path, default=OUT / "scaling.json", metavar="PATH"
    )
    parser.add_argument(
        "--plot", type=Path, default=OUT / "scaling.svg", metavar="PATH"
    )
    parser.add_argument(
        "--from-json", type=Path, metavar="PATH", help="show these, measure nothing"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
