"""Waiting for a server that is away: the pauses between two attempts, and calls that survive an outage.

Used by runners, whose results must not get lost, by log shippers and by iterators that follow a run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from dispatcher.errors import ServerUnavailable

T = TypeVar("T")

#: Seconds of an outage that runners in containers, claimed runs and followers of a run survive.
MAX_OUTAGE = 600.0

_FIRST_PAUSE, _MAX_PAUSE = 0.2, 5.0  # seconds between two attempts


def pauses() -> Iterator[float]:
    """Yield the seconds to wait before each further attempt: exponential backoff, without end."""
    pause = _FIRST_PAUSE
    while True:
        yield pause
        pause = min(2 * pause, _MAX_PAUSE)


def retry_while_unavailable(
    call: Callable[[], T], *, within: float = math.inf, on_outage: Callable[[ServerUnavailable], None] | None = None
) -> T:
    """Call, and repeat while the server is away, for ``within`` seconds: a result outlives any outage.

    Without a limit, something else must end a process that waits in vain: the worker does, when it is told to stop or
    when the run was taken over. ``on_outage`` is called with the error of each attempt that is repeated.

    Raises:
        ServerUnavailable: it was away for longer.
    """
    end = time.monotonic() + within
    retries: Iterator[float] | None = None  # made once it is needed: each finished run passes here
    while True:
        try:
            return call()
        except ServerUnavailable as error:
            if time.monotonic() >= end:
                raise
            if on_outage is not None:
                on_outage(error)
        retries = retries or pauses()
        time.sleep(next(retries))
