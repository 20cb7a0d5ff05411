"""A line as it is kept: clean and bounded."""

from __future__ import annotations

import pytest

from dispatcher.runner.lines import clean


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain", "plain"),
        ("a\tb", "a\tb"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("be\x07ll\x00\x9b", "bell"),
        ("half \ud800", "half \\ud800"),
        ("ünïcödé 日本 \u00a0", "ünïcödé 日本 \u00a0"),
        ("x" * 100, "x" * 60 + " …"),
        ("日" * 100, "日" * 20 + " …"),
    ],
)
def test_lines_are_clean_and_bounded(raw: str, shown: str) -> None:
    assert clean(raw, 64) == shown
    assert len(clean(raw, 64).encode()) <= 64
