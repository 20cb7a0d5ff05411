"""The server's clock, estimated between two readings."""

from __future__ import annotations

import time

from dispatcher.records.runs import Runs


class ServerClock:
    """Clock of the server that keeps the records, in seconds since the epoch.

    Args:
        runs: the records that are asked for the time.
    """

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._offset: float | None = None  # from this process's monotonic clock

    def read(self) -> float:
        """Ask the server for the time."""
        now = self._runs.now()
        self._offset = now - time.monotonic()
        return now

    def now(self) -> float:
        """Estimate the time by the last reading; the first call asks the server."""
        return self.read() if self._offset is None else self._offset + time.monotonic()
