"""Durations as people read and write them."""

from __future__ import annotations

import pytest

from dispatcher.support.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.004, "4 ms"), (0.42, "0.42 s"), (3.21, "3.2 s"), (42.4, "42 s"), (59.9, "1m 00s"), (185, "3m 05s"),
     (7260, "2h 01m"), (200000, "2d 7h"), (0, "0 ms"), (-1, "0 ms")],
)  # fmt: skip
def test_a_duration_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90.0), ("250ms", 0.25), ("1.5m", 90.0), ("2h", 7200.0), (" 7d ", 604800.0)]
)
def test_a_duration_is_a_number_that_may_have_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "-1", "1y", "1 m 2 s", "nan"])
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="write seconds or a unit"):
        parse_duration(text)
