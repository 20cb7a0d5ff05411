"""A pytest plugin (``-p tests.chaos.telling``): appends how each test ended, and its rows, to ``CHAOS_FIGURES``."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from tests.chaos.figures import append


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """One line per test: that of its call, or of what failed before or after it."""
    report = yield
    if report.when == "call" or report.outcome != "passed":
        rows = [row for mark in item.iter_markers("row") for row in mark.args]
        outcome = report.outcome if report.when == "call" or report.outcome == "skipped" else "failed"
        append("test", test=item.nodeid, outcome=outcome, seconds=round(report.duration, 2), rows=rows)
    return report
