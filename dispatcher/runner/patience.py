"""Waiting for a server that is away. Called by the other modules of :mod:`dispatcher.runner`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from dispatcher.errors import ServerUnavailable

T = TypeVar("T")

PATIENCE = 600.0  # seconds
_FIRST, _LONGEST = 0.2, 5.0  # seconds between two tries


def patiently(call: Callable[[], T]) -> T:
    """Call, again while the server is away, for ten minutes: an ended flow's result outlives an outage.

    Raises:
        ServerUnavailable: it was away for longer.
    """
    end = time.monotonic() + PATIENCE
    pause = _FIRST
    while True:
        try:
            return call()
        except ServerUnavailable:
            if time.monotonic() >= end:
                raise
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST)
