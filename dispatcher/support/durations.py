"""Durations and points in time as text, and durations read from text. Pure; used wherever people see or write them."""

from __future__ import annotations

import math
import re
import time
from datetime import UTC, datetime, timedelta
from typing import overload

_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|)")


#: A duration as programs give it.
Seconds = float | int | timedelta


def seconds_of(value: object) -> float | None:
    """Return the seconds of a number or a timedelta; None if it is anything else, also for NaN and True."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or (isinstance(value, float) and math.isnan(value))
    ):
        return None
    return value


@overload
def utc(seconds: float) -> datetime: ...
@overload
def utc(seconds: None) -> None: ...
def utc(seconds: float | None) -> datetime | None:
    """Return a point in time, in seconds since the epoch, as a datetime in UTC; None as None."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def format_duration(seconds: float) -> str:
    """Return a duration in its two largest units: 4 ms, 0.42 s, 3.2 s, 12 s, 3m 05s, 2h 10m, 5d 3h.

    A negative one, which clock skew between hosts causes, counts as 0.
    """
    seconds = max(0.0, seconds)
    if seconds < 10:
        return _format_short(seconds)
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02}m"
    return f"{whole // 86400}d {whole % 86400 // 3600}h"


def format_time(seconds: float) -> str:
    """Return a point in time, in seconds since the epoch, in this machine's time zone: 2025-03-01 14:02:07."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def format_clock(seconds: float) -> str:
    """Return the time of day with milliseconds, in this machine's time zone: 14:02:07.123."""
    whole, fraction = divmod(seconds, 1)
    return f"{time.strftime('%H:%M:%S', time.localtime(whole))}.{int(fraction * 1000):03}"


def parse_duration(text: str) -> float:
    """Return the seconds of a number that may have a unit: 90, 500ms, 1.5m, 2h, 7d.

    Raises:
        ValueError: the text isn't of this form.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError("write seconds or a unit: 90, 1.5m, 2h, 7d")
    return float(match[1]) * _UNITS[match[2]]


def _format_short(seconds: float) -> str:
    if seconds < 0.1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
