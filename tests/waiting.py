"""The one way that tests wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(predicate: Callable[[], T], description: str, *, timeout: float = 10.0, every: float = 0.02) -> T:
    """Call ``predicate`` until it gives something true, and give that; AssertionError after ``timeout`` seconds."""
    end = time.monotonic() + timeout
    while True:
        found = predicate()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout:g} s for {description}; last: {found!r}")
        time.sleep(every)
