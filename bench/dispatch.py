"""Time what a call costs under autojit, and under everything else one could use.

All peers of a workload take turns, round by round, in one process. What counts is the
ratio to the baseline in the same round: `flat`, which is jax.jit called with the same
arrays, flat and positional, and computing the same.

examples:
  python bench/dispatch.py                             everything
  python bench/dispatch.py --quick --workload W1 W7    a first look at some workloads
  python bench/dispatch.py --peer autojit              one peer and the baseline
  python bench/dispatch.py --from-json bench/out/dispatch.json --plot dispatch.svg

Workloads are in bench/workloads.py, peers in bench/peers.py: to add one, write one
function there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

from case import Workload, Wrapper
from peers import PEERS
from results import Environment, Outcome, Report
from tables import outcome_table, summary_table
from timing import measure
from workloads import WORKLOADS

OUT = Path(__file__).parent / "out"
ROUNDS, QUICK_ROUNDS = 61, 7


def main() -> int:
    """Run what the command line asks for; return 1 if a peer fails or disagrees."""
    options = _parse()
    console = Console()
    chosen = [
        w for w in WORKLOADS.values() if {w.name, w.family} & set(options.workload)
    ]
    if options.from_json:
        report = _restrict(Report.read(options.from_json), chosen, options.peer)
        console.print(str(report.environment), style="bold", highlight=False)
        for outcome in report.outcomes:
            console.print(outcome_table(outcome))
    else:
        report = run(
            console, chosen, options.peer, QUICK_ROUNDS if options.quick else ROUNDS
        )
        report.write(options.json)
        console.print(f"Written: {options.json}", highlight=False)
    if report.outcomes:
        console.print(summary_table(report.outcomes))
        _draw(console, report, options.plot)
    return 0 if all(outcome.sound for outcome in report.outcomes) else 1


def run(
    console: Console,
    workloads: Collection[Workload],
    peers: Collection[str],
    rounds: int,
) -> Report:
    """Measure some workloads with some peers, and the baselines in any case."""
    report = Report(Environment.current(), rounds, left_out=[], outcomes=[])
    console.print(str(report.environment), style="bold", highlight=False)

    def leave_out(name: str, reason: ImportError) -> None:
        report.left_out.append(f"{name}: {reason}")
        console.print(f"{name} is left out: {reason}", style="yellow", highlight=False)

    wrappers: dict[str, Wrapper] = {}
    for name in peers:
        try:
            wrappers[name] = PEERS[name].wrapper()
        except ImportError as error:
            leave_out(name, error)

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    # It is refreshed by hand: a thread that does it by itself would disturb the clock.
    with Progress(
        *columns,
        TimeElapsedColumn(),
        console=console,
        auto_refresh=False,
        transient=True,
    ) as progress:
        task = progress.add_task("", total=rounds * len(workloads))
        for workload in workloads:
            progress.update(
                task, description=f"{workload.name} {workload.title}", refresh=True
            )
            try:
                case = workload.build()
            except ImportError as error:
                leave_out(workload.name, error)
                progress.advance(task, rounds)
                continue
            baseline = {case.baseline: PEERS[case.baseline].wrapper()}
            setups = {
                name: (setup, wrapper)
                for name, wrapper in (baseline | wrappers).items()
                if (setup := case.setup_for(PEERS[name]))
            }
            timings, failures = measure(
                case,
                setups,
                rounds,
                lambda: progress.update(task, advance=1, refresh=True),
            )
            outcome = Outcome(
                workload.name,
                workload.title,
                case.baseline,
                case.nodes,
                timings,
                failures,
            )
            report.outcomes.append(outcome)
            console.print(outcome_table(outcome))
    return report


def _restrict(
    report: Report, workloads: Collection[Workload], peers: Collection[str]
) -> Report:
    """Return a report of some workloads and peers only, and their baselines."""
    names = {workload.name for workload in workloads}
    outcomes = [
        replace(
            outcome,
            timings=[
                t for t in outcome.timings if t.peer in {*peers, outcome.baseline}
            ],
            failures={
                peer: why for peer, why in outcome.failures.items() if peer in peers
            },
        )
        for outcome in report.outcomes
        if outcome.workload in names
    ]
    return replace(report, outcomes=outcomes)


def _draw(console: Console, report: Report, path: Path) -> None:
    """Draw the picture, if that is possible."""
    try:
        from plot import draw
    except ImportError as error:
        console.print(f"No picture is drawn: {error}", style="yellow", highlight=False)
        return
    draw(report, path)
    console.print(f"Drawn: {path}", highlight=False)


def _parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [name for w in WORKLOADS.values() for name in (w.name, w.family)]
    slow = [w.name for w in WORKLOADS.values() if w.slow]
    parser.add_argument(
        "--workload",
        nargs="+",
        metavar="NAME",
        choices=names,
        default=[name for name in WORKLOADS if name not in slow],
        help=f"some of {', '.join(WORKLOADS)}; without its letter, all that have one; "
        f"without this, all but {', '.join(slow)}, which take minutes",
    )
    parser.add_argument(
        "--peer",
        nargs="+",
        metavar="NAME",
        choices=PEERS,
        default=list(PEERS),
        help=f"some of {', '.join(PEERS)}",
    )
    parser.add_argument(
        "--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds, not {ROUNDS}"
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="PATH",
        default=OUT / "dispatch.json",
        help="where to write the figures",
    )
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="PATH",
        default=OUT / "dispatch.png",
        help="where to draw them; .png, .svg or .pdf",
    )
    parser.add_argument(
        "--from-json",
        type=Path,
        metavar="PATH",
        help="show these figures, measure nothing",
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
