"""What goes on during a run: the replacement, and the report of it."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Generator, Hashable
from typing import Any

import pytest

from pytest_autojit import SCOPES
from pytest_autojit._settings import Settings
from pytest_autojit._summary import details, summary


class Runner:
    """In a process that runs tests: replaces, counts, and puts back."""

    def __init__(
        self, config: pytest.Config, settings: Settings, report: Report
    ) -> None:
        from autojit import _install, _statistics
        from autojit._compilation_cache import compilation_cache

        self.config = config
        self.report = report
        self.scope = settings.share
        self.item: pytest.Item | None = None
        self.item_scope = self.scope
        with contextlib.ExitStack() as undo:
            if settings.cache_dir is not None:
                undo.enter_context(compilation_cache(settings.cache_dir))
            self.statistics = _statistics.start()
            undo.callback(_statistics.stop, self.statistics)
            self.installation = undo.enter_context(_install.install_with(self.choose))
            self.undo = undo.pop_all()
        self.find_copies, self.stop = _install.find_copies, _statistics.stop

    def choose(self) -> Hashable | None:
        """Return what the running test shares with; None: it does without autojit."""
        if self.item is not None and self.item.get_closest_marker("no_autojit"):
            return None
        if self.item_scope == "session":
            return True
        if self.item is None or self.item_scope == "none":
            return False
        nodeid = self.item.nodeid
        return nodeid if self.item_scope == "test" else nodeid.partition("::")[0]

    def pytest_collection_finish(self) -> None:
        """Look for copies that were imported in a way of their own."""
        self.find_copies()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Know which test is running."""
        marker = item.get_closest_marker("autojit_share")
        self.item = item
        self.item_scope = _scopes(marker)[0] if _scopes(marker) else self.scope
        try:
            return (yield)
        finally:
            self.item, self.item_scope = None, self.scope

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Check the marker of a test."""
        marker = item.get_closest_marker("autojit_share")
        if marker and _scopes(marker) not in [[scope] for scope in SCOPES]:
            raise pytest.UsageError(
                "the marker autojit_share takes one of "
                f"{', '.join(map(repr, SCOPES))}, as in autojit_share('test')"
            )

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Count no longer, and hand over."""
        self.stop(self.statistics)
        self.statistics.copies = self.installation.copies
        plain = self.statistics.to_plain()
        if hasattr(self.config, "workeroutput"):
            self.config.workeroutput["autojit"] = plain
        else:
            self.report.take(plain)

    def pytest_unconfigure(self) -> None:
        """Put back what was there."""
        self.undo.close()


def _scopes(marker: pytest.Mark | None) -> list[Any]:
    """Return what the marker autojit_share was given: one scope, if it is right."""
    return [*marker.args, *marker.kwargs.values()] if marker else []


class Report:
    """Says at the beginning that autojit is used, and at the end what it did."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self.config = config
        self.settings = settings
        self.unavailable = ""
        self.counted: list[dict[str, Any]] = []
        for name in ("jax", "autojit"):
            if importlib.util.find_spec(name) is None:
                self.unavailable = f"there is no module {name}"

    def pytest_report_header(self) -> str:
        """Say how autojit is used."""
        if self.unavailable:
            return f"autojit: not used, {self.unavailable}"
        return (
            f"autojit: on, share: {self.settings.share}, "
            f"compilation cache: {self.settings.about_cache}"
        )

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take what a worker of pytest-xdist has counted, unless it crashed."""
        self.take(getattr(node, "workeroutput", {}).get("autojit"))

    def take(self, found: dict[str, Any] | str | None) -> None:
        """Take what was counted, or why nothing was."""
        if isinstance(found, dict):
            self.counted.append(found)
        elif found:
            self.unavailable = found

    def pytest_sessionfinish(self) -> None:
        """Tell the process that started this worker why there is nothing to count."""
        if self.unavailable and hasattr(self.config, "workeroutput"):
            self.config.workeroutput["autojit"] = self.unavailable

    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, config: pytest.Config
    ) -> None:
        """Say what autojit did."""
        verbosity = config.get_verbosity()
        nothing_ran = config.getoption("collectonly", False)
        if verbosity < 0 or nothing_ran or not (self.counted or self.unavailable):
            return
        terminalreporter.write_sep("=", "autojit")
        for line in self.lines(verbosity):
            terminalreporter.write_line(line)

    def lines(self, verbosity: int) -> list[str]:
        """Return the lines of the summary."""
        lines = []
        if self.unavailable:
            lines.append(f"not used, {self.unavailable}")
        if self.counted:
            from autojit._statistics import Statistics

            total = Statistics()
            for plain in self.counted:
                total.add(plain)
            if total.copies:
                lines += summary(total, self.settings.about_cache)
                if verbosity > 0:
                    lines += details(total.traces())
            else:
                lines.append("no copy of array-api-extra was imported: nothing changed")
        if self.config.getoption("forked", False):
            lines.append("what happens in the processes of --forked is not counted")
        return lines
