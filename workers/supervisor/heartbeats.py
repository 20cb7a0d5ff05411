"""Signs of life of runners, with what they say of their workers. Silence counts only while a report would have been
received."""

from __future__ import annotations

import time
from collections.abc import Callable, Container

from dispatcher.runs.cluster import WorkerReport
from dispatcher.runs.record import Record

#: Seconds between two readings of all reports beyond which the silence in between doesn't count.
MAX_READ_GAP = 15.0


class Heartbeats:
    """Times of each runner's last report, by this process's monotonic clock, and the last report of its workers.

    Args:
        clock: in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last_reports: dict[str, float] = {}
        self._workers: dict[str, tuple[int, WorkerReport]] = {}  # run → its attempt, and what that reported
        self._reported: set[str] = set()  # runs with a report since the last take_reported()
        self._counting_since = self._last_read = clock()

    def received(self, run_id: str) -> None:
        """Note a report of a run's runner."""
        self._last_reports[run_id] = self._clock()
        self._reported.add(run_id)

    def workers_reported(self, record: Record, workers: WorkerReport) -> None:
        """Note what a run's runner has reported of its workers."""
        self._workers[record.id] = record.attempt, workers

    def workers_of(self, record: Record) -> WorkerReport | None:
        """Return what the runner of a run's current attempt has reported last of its workers, if it has."""
        attempt, workers = self._workers.get(record.id, (0, None))
        return workers if attempt == record.attempt else None

    def take_reported(self) -> set[str]:
        """Remove and return the ids of the runs whose runners have reported since the last call."""
        reported, self._reported = self._reported, set()
        return reported

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
        self._workers = {run_id: workers for run_id, workers in self._workers.items() if run_id in runs}
