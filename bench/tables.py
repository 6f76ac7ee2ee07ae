"""What was measured, as tables on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from peers import PEERS
from results import Outcome, Timing


def outcome_table(outcome: Outcome) -> Table:
    """Lay out one workload, a line for each peer."""
    table = new_table(Text.assemble((outcome.workload, "bold"), "  ", outcome.title))
    table.add_column("peer", no_wrap=True)
    table.add_column("set-up")
    table.add_column("min µs", justify="right")
    table.add_column("median µs", justify="right")
    table.add_column(f"× {outcome.baseline}", justify="right")
    if outcome.nodes:
        table.add_column("ns a node", justify="right")
    table.add_column("agrees", justify="center")
    for timing in outcome.timings:
        cells = [
            timing.peer,
            timing.note,
            format_time(timing.min_us),
            format_time(timing.median_us),
            format_ratio(timing.ratio),
        ]
        if timing.ns_per_node is not None:
            cells.append(f"{timing.ns_per_node:.1f}")
        cells.append("yes" if timing.agrees else "[bold red]NO[/]")
        table.add_row(*cells, style="bold" if timing.peer == "autojit" else None)
    for peer, reason in outcome.failures.items():
        table.add_row(peer, Text(reason, "bold red"))
    return table


def summary_table(outcomes: Sequence[Outcome]) -> Table:
    """Lay out all ratios, a line for each workload and a column for each peer."""
    by_peer = [
        {timing.peer: timing for timing in outcome.timings} for outcome in outcomes
    ]
    peers = [name for name in PEERS if any(name in timings for timings in by_peer)]
    table = new_table(Text("Times the baseline, which is given in µs"))
    table.add_column("", style="bold", no_wrap=True)
    for name in peers:
        # With a space, so that a narrow terminal can break the line.
        header = name.replace("-", " ")
        table.add_column(
            header, justify="right", style="bold" if name == "autojit" else None
        )
    for outcome, timings in zip(outcomes, by_peer, strict=True):
        cells = [_summary_cell(timings.get(name), outcome.baseline) for name in peers]
        table.add_row(outcome.workload, *cells)
    return table


def new_table(title: str | Text) -> Table:
    """Return an empty table, narrow enough for a terminal of 80 columns."""
    return Table(
        title=title,
        title_justify="left",
        title_style="none",
        box=SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )


def _summary_cell(timing: Timing | None, baseline: str) -> str:
    """Show the time of the baseline and the ratio of all others."""
    if timing is None:
        return "–"
    if timing.peer == baseline:
        return format_time(timing.min_us) + " µs"
    return format_ratio(timing.ratio)


def format_time(microseconds: float) -> str:
    """Show three digits."""
    return f"{microseconds:.0f}" if microseconds >= 100 else f"{microseconds:#.3g}"


def format_ratio(ratio: float) -> str:
    """Show a ratio to the hundredth, a large one to the unit, a tiny one in full."""
    if ratio < 0.1:
        return f"{ratio:.2g}"
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"
