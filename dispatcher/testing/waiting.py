"""Waiting in tests: for a condition, never for a span of time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(predicate: Callable[[], T], description: str, *, timeout: float = 10.0, every: float = 0.02) -> T:
    """Call ``predicate`` until it returns something true, and return that.

    Raises:
        AssertionError: it didn't within ``timeout`` seconds.
    """
    end = time.monotonic() + timeout
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout:g} s for {description}; last: {value!r}")
        time.sleep(every)
