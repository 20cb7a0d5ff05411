"""Outages of the server, logged once for all threads of a worker that miss it."""

from __future__ import annotations

import logging
import threading

from dispatcher.errors import ServerUnavailable
from dispatcher.support.log_throttle import LogThrottle

logger = logging.getLogger(__name__)


class Outage:
    """The threads that can't reach the server now. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._affected: set[str] = set()
        self._throttle = LogThrottle(logger)

    def begin(self, name: str, error: ServerUnavailable) -> None:
        """Note that a thread can't reach the server, or is refused; repeated calls are fine."""
        event = "The server refuses this worker" if error.denied else "The server is unavailable"
        with self._lock:
            self._affected.add(name)
            self._throttle.warn(f"{event}, trying again", error)

    def end(self, name: str) -> None:
        """Note that a thread can reach the server again."""
        with self._lock:
            self._affected.discard(name)
            if not self._affected:
                logger.info("The server is back")


#: Of this process, which is a worker once.
outage = Outage()
