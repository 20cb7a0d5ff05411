"""Pytest plugin (``-p tests.chaos.outcome_plugin``) that appends each test's outcome and rows to ``CHAOS_FIGURES``."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from tests.chaos.figures import append


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--row``: only tests of one row of the fault matrix."""
    parser.addoption("--row", type=int, default=None, help="play only the tests of this row of the fault matrix")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of other rows, where one is asked for."""
    row = config.getoption("row")
    if row is not None:
        items[:] = [item for item in items if any(row in mark.args for mark in item.iter_markers("row"))]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """One line per test: that of its call, or of what failed before or after it."""
    report = yield
    if report.when == "call" or report.outcome != "passed":
        rows = [row for mark in item.iter_markers("row") for row in mark.args]
        outcome = report.outcome if report.when == "call" or report.outcome == "skipped" else "failed"
        reason = str(report.longrepr[2]).removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else ""
        seconds = round(report.duration, 2)
        append("test", test=item.nodeid, outcome=outcome, seconds=seconds, rows=rows, reason=reason)
    return report
