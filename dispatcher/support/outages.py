"""Waiting for a server that is away. Called by the other modules of :mod:`dispatcher.runner`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypeVar

from dispatcher.errors import ServerUnavailable

T = TypeVar("T")

#: Seconds that a runner in a container waits for a server that is away; less where the container is to end sooner.
PATIENCE = 600.0

_FIRST, _LONGEST = 0.2, 5.0  # seconds between two tries


def patiently(call: Callable[[], T], *, patience: float = math.inf) -> T:
    """Call, again while the server is away, for ``patience`` seconds: an ended flow's result outlives any outage.

    Without end nobody is left waiting in vain: a worker that is told to stop, or whose run was taken over, ends the
    process.

    Raises:
        ServerUnavailable: it was away for longer.
    """
    end = time.monotonic() + patience
    pause = _FIRST
    while True:
        try:
            return call()
        except ServerUnavailable:
            if time.monotonic() >= end:
                raise
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST)
