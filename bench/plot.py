"""What was measured, as a picture."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from peers import PEERS
from results import Outcome, Report
from tables import format_ratio, format_time

GAP = 1.2
"""Room between two groups, in bars."""
MIN_WIDTH = 16.0
"""Least room of a row, in bars: a few bars do not fill the whole picture."""
MAX_WIDTH = 40.0
"""About the most room of a row."""


def draw(report: Report, path: Path) -> None:
    """Draw a group of bars a workload. The suffix of `path` chooses the format."""
    rows = _rows(report.outcomes)
    timings = [timing for outcome in report.outcomes for timing in outcome.timings]
    used = {timing.peer for timing in timings}
    heights = [timing.min_us for timing in timings]
    bottom = 10.0 ** math.floor(math.log10(min(heights)))
    figure = Figure(figsize=(11, 1.0 + 3.5 * len(rows)), layout="constrained")
    for axes, row in zip(
        figure.subplots(len(rows), squeeze=False).flat, rows, strict=True
    ):
        _draw_row(axes, row)
        axes.set_xlim(-0.5 - GAP / 2, max(_width(row), MIN_WIDTH) - 0.5 - GAP / 2)
        # Bars stand on a power of ten; above them, room for their ratios.
        axes.set_ylim(bottom, max(heights) * 20)
    figure.suptitle(
        "Time of one call in µs, log scale; "
        "on each bar, times the dashed floor of its group\n"
        f"{report.environment}",
        fontsize="medium",
    )
    figure.legend(
        handles=[
            Patch(color=p.colour, label=p.label)
            for p in PEERS.values()
            if p.name in used
        ],
        loc="outside lower center",
        ncols=4,
        frameon=False,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _width(row: Sequence[Outcome]) -> float:
    """Return the room that the groups of a row take, in bars."""
    return sum(len(outcome.timings) + GAP for outcome in row)


def _rows(outcomes: Sequence[Outcome]) -> list[Sequence[Outcome]]:
    """Split the groups in rows of about equal width."""
    width = _width(outcomes)
    rows: list[list[Outcome]] = [[] for _ in range(math.ceil(width / MAX_WIDTH))]
    left = 0.0
    for outcome in outcomes:
        middle = left + _width([outcome]) / 2
        rows[int(len(rows) * middle / width)].append(outcome)
        left += _width([outcome])
    return [row for row in rows if row]


def _draw_row(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    """Draw some groups side by side."""
    centres, left = [], 0.0
    for outcome in outcomes:
        right = left + len(outcome.timings) - 1
        for x, timing in enumerate(outcome.timings):
            is_floor = timing.peer == outcome.baseline
            axes.bar(
                left + x, timing.min_us, width=0.88, color=PEERS[timing.peer].colour
            )
            axes.annotate(
                f"{format_time(timing.min_us)} µs"
                if is_floor
                else f"{format_ratio(timing.ratio)}×",
                (left + x, timing.min_us),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                va="bottom",
                rotation=90,
                fontweight="bold" if timing.peer == "autojit" else "normal",
            )
            if is_floor:
                axes.hlines(
                    timing.min_us,
                    left - 0.5,
                    right + 0.5,
                    "black",
                    "dashed",
                    linewidth=0.8,
                )
        centres.append((left + right) / 2)
        left = right + 1 + GAP
    axes.set_xticks(centres, [_group_label(outcome) for outcome in outcomes])
    axes.tick_params(axis="x", length=0)
    axes.tick_params(axis="y", which="both", length=0)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.grid(axis="y", color="#dddddd")
    axes.set_axisbelow(True)
    axes.spines[["top", "left", "right"]].set_visible(False)


def _group_label(outcome: Outcome) -> str:
    """Return the name and the title of a workload, as wide as its group."""
    width = 4 + 4 * len(outcome.timings)
    return f"$\\bf{{{outcome.workload}}}$\n{textwrap.fill(outcome.title, width)}"
