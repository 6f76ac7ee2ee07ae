"""Compare two reports of bench/dispatch.py: what has become faster or slower?

For each workload and peer, the ratios to the baseline in the rounds of one report are
tested against those of the other (Mann and Whitney's U test), with the p values
adjusted for the number of tests (Benjamini and Hochberg). The interval of the change is
a bootstrap of the quotient of medians. Exit code 1 if autojit has become slower
significantly, and by more than `--threshold`; the other peers are there as a control:
where they have changed too, it was the machine.

The rounds of one report ran in one process. What differs from process to process, such
as where objects lie in memory, looks like an effect of the change, and takes a per cent
or two: hence the threshold. Repeat what is in doubt.

example:
  python bench/dispatch.py --json before.json
  # make a change, and build it
  python bench/dispatch.py --json after.json
  python bench/compare.py before.json after.json
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from results import Environment, Report, Timing
from tables import format_ratio, new_table

LEVEL = 0.01
"""Of significance, after the adjustment."""
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Change:
    """How one peer has changed in one workload: `change` is +0.1 if 10 % slower."""

    workload: str
    peer: str
    before: float
    after: float
    change: float
    low: float
    high: float
    p: float
    threshold: float

    @property
    def is_significant(self) -> bool:
        """Whether it is unlikely to be noise between the rounds."""
        return self.p < LEVEL

    @property
    def is_slower(self) -> bool:
        """Whether it has become slower, and by enough."""
        return self.is_significant and self.change > self.threshold

    @property
    def is_faster(self) -> bool:
        """Whether it has become faster, and by enough."""
        return self.is_significant and self.change < -self.threshold


def main() -> int:
    """Compare the reports of the command line; return 1 if autojit is slower."""
    options = parse()
    before, after = Report.read(options.before), Report.read(options.after)
    console = Console()
    for report in (before, after):
        console.print(str(report.environment), style="bold", highlight=False)
    if surroundings(before) != surroundings(after):
        console.print("The environments are not the same.", style="yellow")
    changes = compare(before, after, options.threshold)
    console.print(change_table(changes))
    slower = [c.workload for c in changes if c.is_slower and c.peer == "autojit"]
    if slower:
        console.print(f"autojit is slower: {', '.join(slower)}", style="bold red")
    return 1 if slower else 0


def surroundings(report: Report) -> Environment:
    """Return the environment but for autojit itself."""
    versions = dict(report.environment.versions)
    versions.pop("autojit", None)
    return replace(report.environment, versions=versions)


def compare(before: Report, after: Report, threshold: float) -> list[Change]:
    """Test all that both reports have, but for the baselines."""
    old, new = timings_in(before), timings_in(after)
    both = [key for key in new if key in old]
    tests = [stats.mannwhitneyu(new[k].ratios, old[k].ratios).pvalue for k in both]
    return [
        change_of(key, old[key], new[key], float(p), threshold)
        for key, p in zip(both, stats.false_discovery_control(tests), strict=True)
    ]


def timings_in(report: Report) -> dict[tuple[str, str], Timing]:
    """Return the timings of a report by workload and peer, but for the baselines."""
    return {
        (outcome.workload, timing.peer): timing
        for outcome in report.outcomes
        for timing in outcome.timings
        if timing.peer != outcome.baseline
    }


def change_of(
    key: tuple[str, str], old: Timing, new: Timing, p: float, threshold: float
) -> Change:
    """Estimate the change of one peer in one workload."""
    interval = stats.bootstrap(
        (new.ratios, old.ratios),
        relative_change,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=0,
    ).confidence_interval
    change = relative_change(np.array(new.ratios), np.array(old.ratios))
    return Change(
        *key,
        before=old.ratio,
        after=new.ratio,
        change=float(change),
        low=float(interval.low),
        high=float(interval.high),
        p=p,
        threshold=threshold,
    )


def relative_change(
    after: np.ndarray, before: np.ndarray, axis: int = -1
) -> np.ndarray:
    """Return by how much the median has grown."""
    return np.median(after, axis=axis) / np.median(before, axis=axis) - 1


def change_table(changes: list[Change]) -> Table:
    """Lay out the changes, a line for each workload and peer."""
    table = new_table("Times the baseline, before and after")
    for title in ("", "peer"):
        table.add_column(title, no_wrap=True)
    for title in ("before", "after", "change", f"{CONFIDENCE:.0%} interval", "p"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("")
    for c in changes:
        style, verdict = "", ""
        if c.is_slower:
            style, verdict = "red", "slower"
        elif c.is_faster:
            style, verdict = "green", "faster"
        elif c.is_significant:
            verdict = "small"
        table.add_row(
            c.workload,
            c.peer,
            format_ratio(c.before),
            format_ratio(c.after),
            f"{c.change:+.1%}",
            f"{c.low:+.1%} … {c.high:+.1%}",
            f"{c.p:.2g}",
            verdict,
            style=f"bold {style}" if c.peer == "autojit" else style,
        )
    return table


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path, help="a report of bench/dispatch.py")
    parser.add_argument("after", type=Path, help="another one")
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.03,
        help="which relative change counts, by default %(default)s",
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
