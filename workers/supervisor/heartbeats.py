"""Signs of life of runners. Silence counts only while a report would have been received."""

from __future__ import annotations

import time
from collections.abc import Callable, Container

#: Seconds between two readings of all reports beyond which the silence in between doesn't count.
MAX_READ_GAP = 15.0


class Heartbeats:
    """Times of each runner's last report, by this process's monotonic clock.

    Args:
        clock: in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last_reports: dict[str, float] = {}
        self._counting_since = self._last_read = clock()

    def received(self, run_id: str) -> None:
        """Note a report of a run's runner."""
        self._last_reports[run_id] = self._clock()

    def all_read(self) -> None:
        """Note that all pending reports were read. After a gap, every silence starts again."""
        now = self._clock()
        if now - self._last_read > MAX_READ_GAP:
            self._counting_since = now
        self._last_read = now

    def restart(self) -> None:
        """Start every silence again: the server was unavailable, so no runner could report."""
        self._counting_since = self._clock()

    def silence(self, run_id: str) -> float:
        """Return the seconds for which a run's runner could have reported and didn't."""
        return self._clock() - max(self._last_reports.get(run_id, self._counting_since), self._counting_since)

    def retain(self, runs: Container[str]) -> None:
        """Forget all other runs."""
        self._last_reports = {run_id: at for run_id, at in self._last_reports.items() if run_id in runs}
