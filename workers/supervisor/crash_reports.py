"""Crash reports: what infrastructure still tells of an attempt that crashed, read before its teardown.

However the crash was noticed (by an observation, a report or a clock), the attempt's teardown comes next, and waits
while its report is read. A run's state never waits for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Mapping
from functools import partial
from typing import Any

from backends.base import Backend, CrashReport, Reporting
from dispatcher.errors import LeasePassed, Malformed, UnknownRun
from dispatcher.records.base import Records
from dispatcher.records.leases import Lease
from dispatcher.runs import infrastructure
from dispatcher.runs.record import Record
from dispatcher.support.short_repr import short_repr
from workers.supervisor.log_tails import LOG_LINES, OUTCOME_LINES, lines_of
from workers.supervisor.request_threads import RequestThreads
from workers.supervisor.shards import Shards
from workers.updates import try_update

logger = logging.getLogger(__name__)

#: Reports read at once.
THREADS = 4

#: Seconds after its end from which on an attempt gets no report: its teardown is open for another reason.
REPORT_WITHIN = 600.0


class CrashReports:
    """Reader of crash reports. For the supervisor's thread alone.

    Args:
        records: of the runs.
        backend: asked, if it can tell more than how an attempt ended.
        wake: called when a report was read.
    """

    def __init__(self, records: Records, backend: Backend, wake: Callable[[], None]) -> None:
        self._records = records
        self._backend = backend
        self._threads = RequestThreads(THREADS, wake)
        self._begun: dict[tuple[str, int], str] = {}  # attempt → its shard

    def begin(self, cached: Record, leftover: Mapping[str, Any], shard: str, now: float) -> bool:
        """Begin to read the report of an ended attempt, if it crashed and has none; return True if that was begun.

        Args:
            cached: its run, as read when the attempt had ended, or later.
            leftover: what it has left.
            shard: the shard that is responsible for it.
            now: the server's clock, in seconds since the epoch.

        Raises:
            ServerUnavailable: the records can't be read now.
        """
        attempt, handle = leftover["attempt"], leftover["handle"]
        key = (cached.id, attempt)
        if key in self._begun or handle is None or now - leftover.get("ended", now) > REPORT_WITHIN:
            return False
        if not isinstance(self._backend, Reporting) or not infrastructure.awaits_report(cached, attempt):
            return False
        try:
            record, _ = self._records.runs.get(cached.id)  # its last lines may have come since
        except (UnknownRun, Malformed):
            return False
        self._begun[key] = shard  # once, whatever comes of it
        if record.outcome is None or not infrastructure.awaits_report(record, attempt):
            return False
        has_lines = bool(record.outcome.log_tail)
        return self._threads.submit(key, partial(self._backend.crash_report, handle, lines_known=has_lines))

    def is_pending(self, run_id: str, attempt: int) -> bool:
        """Return True while a report is read: the infrastructure must not be deleted yet."""
        return self._threads.is_pending((run_id, attempt))

    def store(self, shards: Shards) -> None:
        """Store the reports that were read."""
        for key, report in self._threads.results():
            run_id, attempt = key
            lease = shards.lease(self._begun.get(key, ""))
            if not isinstance(report, CrashReport):
                why = report if isinstance(report, Exception) else f"the backend returned {short_repr(report, 200)}"
                logger.info("Run %s: its crash report can't be read: %s", run_id, why)
            elif report.text and lease is not None:
                try:
                    try_update(self._store, run_id, attempt, report, lease)
                except (LeasePassed, Malformed, UnknownRun) as error:
                    logger.info("Run %s: its crash report can't be stored: %s", run_id, error)

    def _store(self, run_id: str, attempt: int, report: CrashReport, lease: Lease) -> Record:
        lines = report.lines[-LOG_LINES:]
        if lines:
            record, now = self._records.runs.get(run_id)
            self._records.logs.append(run_id, lines_of(record, [("stdout", text) for text in lines], now))
        step = partial(infrastructure.crash_report, attempt=attempt, text=report.text, lines=lines[-OUTCOME_LINES:])
        return self._records.runs.update(run_id, step, lease=lease)

    def retain(self, runs: Container[str]) -> None:
        """Forget the attempts of all other runs."""
        self._begun = {key: shard for key, shard in self._begun.items() if key[0] in runs or self.is_pending(*key)}

    def shutdown(self) -> None:
        """Read no more; running requests aren't waited for."""
        self._threads.shutdown()
