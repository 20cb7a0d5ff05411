"""Warnings that would come by the thousand: the same is said once in a while, with how often it was left out."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable

#: Seconds between two warnings of the same.
EVERY = 60.0

# What differs from one object to the next in what is else the same reason: names of ours, addresses, numbers.
_SINGLE = re.compile(r"flow-[\w-]+|0x[0-9a-f]+|\d+")


class LogThrottle:
    """Warns by a logger. For one thread.

    Args:
        logger: where to.
        clock: in seconds.
    """

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._clock = clock
        self._said: dict[str, tuple[float, int]] = {}  # reason → when it was given, and how often it was left out since
        self._swept = clock()

    def warn(self, what: str, why: object) -> None:
        """Say ``what`` happened, unless the same reason ``why`` was given a moment ago, of whatever object."""
        left = self.due(why)
        if left is not None:
            self._logger.warning("%s: %s%s", what, why, f" (and {left} more like it before)" if left else "")

    def due(self, why: object) -> int | None:
        """Return how often a reason was left out since it was last given; None if that is a moment ago, and it isn't
        due."""
        reason, now = _SINGLE.sub("…", str(why)), self._clock()
        at, left = self._said.get(reason, (now - EVERY, 0))
        if now - at < EVERY:
            self._said[reason] = at, left + 1
            return None
        if now - self._swept >= 10 * EVERY:
            self._swept = now
            self._said = {other: (at, left) for other, (at, left) in self._said.items() if now - at < 10 * EVERY}
        self._said[reason] = now, 0
        return left
