"""Throttle log warnings: a repeated reason is logged once in a while, with the number of omitted ones."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable

#: Seconds between two warnings of the same reason.
INTERVAL = 60.0

#: Reasons remembered. Others may choose their words.
MOST_REASONS = 1000

# Parts that differ between objects with the same reason: our names, addresses, numbers.
_VARIABLE_PARTS = re.compile(r"flow-[\w-]+|0x[0-9a-f]+|\d+")


class LogThrottle:
    """Logs warnings, throttled by reason. Not thread-safe.

    Args:
        logger: the logger to use.
        clock: a clock in seconds.
    """

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._clock = clock
        self._logged: dict[str, tuple[float, int]] = {}  # reason → time of the last log, and number omitted since
        self._swept = clock()

    def warn(self, event: str, reason: object, *, kind: str = "") -> None:
        """Log an event, unless the same reason was logged a moment ago, for whatever object.

        Args:
            event: what happened to which object.
            reason: why.
            kind: stands for the reason, where its text differs between objects.
        """
        omitted = self.due(kind or reason)
        if omitted is not None:
            self._logger.warning("%s: %s%s", event, reason, f" (and {omitted} more like it before)" if omitted else "")

    def due(self, reason: object) -> int | None:
        """Return how often a reason was omitted since it was last logged; None if that was a moment ago."""
        key, now = _VARIABLE_PARTS.sub("…", str(reason)), self._clock()
        logged_at, omitted = self._logged.get(key, (now - INTERVAL, 0))
        if now - logged_at < INTERVAL:
            self._logged[key] = logged_at, omitted + 1
            return None
        if now - self._swept >= 10 * INTERVAL or len(self._logged) >= MOST_REASONS:
            self._swept = now
            self._logged = {name: entry for name, entry in self._logged.items() if now - entry[0] < 10 * INTERVAL}
            if len(self._logged) >= MOST_REASONS:
                self._logged.clear()
        self._logged[key] = now, 0
        return omitted
