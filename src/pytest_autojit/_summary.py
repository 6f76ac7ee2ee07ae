"""The summary at the end of a run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autojit._statistics import Statistics, Trace

# How many functions it names with -v, and reasons for each.
_MOST = 10
_MOST_REASONS = 3


def summary(total: Statistics, cache: str) -> list[str]:
    """Return the lines that say how much of everything there was."""
    traces = total.traces()
    count = sum(trace.number for trace in traces)
    seconds = sum(trace.seconds for trace in traces)
    lines = [
        f"wrapped   {_times(total.wrappers, 'function')}; "
        f"{_times(total.calls, 'call')} in {total.seconds:,.1f} s",
        f"traced    {_times(count, 'time')} in {seconds:,.1f} s; "
        f"{_times(total.saved, 'trace')} saved",
    ]
    lines += _reasons(trace._replace(why=trace.why.split(":")[0]) for trace in traces)
    if total.hits or total.misses:
        lines.append(
            f"compiled  {_times(total.misses, 'program')}; "
            f"{total.hits:,} read from the cache, {cache}"
        )
    return lines


def details(traces: list[Trace]) -> list[str]:
    """Return what took longest to trace, and what was traced most often, and why."""
    functions: dict[str, list[Trace]] = {}
    for trace in traces:
        functions.setdefault(trace.function, []).append(trace)

    def seconds(name: str) -> float:
        return sum(trace.seconds for trace in functions[name])

    def count(name: str) -> int:
        return sum(trace.number for trace in functions[name])

    lines = []
    if functions:
        lines.append("longest to trace")
        longest = sorted(functions, key=seconds, reverse=True)[:_MOST]
        longest = [name for name in longest if seconds(name) >= 0.005] or longest[:1]
        lines += [
            f"{seconds(name):>12,.2f} s  {name}, {_times(count(name), 'time')}"
            for name in longest
        ]
    again = [name for name in functions if count(name) > 1]
    if again:
        lines.append("traced most often")
        for name in sorted(again, key=count, reverse=True)[:_MOST]:
            lines.append(f"{count(name):>10,}  {name}")
            lines += [
                "    " + line for line in _reasons(functions[name])[:_MOST_REASONS]
            ]
    return lines


def _reasons(traces: Iterable[Trace]) -> list[str]:
    """Return a line for each reason, the most frequent first."""
    counts: dict[str, int] = {}
    for trace in traces:
        counts[trace.why] = counts.get(trace.why, 0) + trace.number
    ordered = sorted(counts.items(), key=lambda item: item[1], reverse=True)
    return [f"{count:>14,}  {why}" for why, count in ordered]


def _times(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
