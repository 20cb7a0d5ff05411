"""Due times: retries that are due, ``start_within`` that has passed, an ``on_exit`` that no process took."""

from __future__ import annotations

import logging
from functools import partial

from dispatcher.records.base import Records
from dispatcher.runs import indexes, transitions
from dispatcher.runs.change import Change
from dispatcher.runs.record import Record
from dispatcher.support.failpoints import failpoint
from workers.error_isolation import ErrorIsolation
from workers.misplaced import MisplacedRuns
from workers.refusal import refusal
from workers.updates import try_update

logger = logging.getLogger(__name__)


class DueTimes:
    """Sweep of the runs whose time has come. For one thread.

    Args:
        records: of the runs.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self._isolation = ErrorIsolation(logger)
        self._misplaced = MisplacedRuns(records)

    def sweep(self) -> int:
        """Take the transition of each run that is due now. Return how many were examined."""
        runs, examined = self._records.runs, 0
        for record in runs.under(indexes.DUE, until=runs.now()):
            examined += 1
            if self._misplaced.note(indexes.DUE, record):
                continue
            with self._isolation.run(record.id):
                failpoint("clock.due", record.id)
                after = try_update(runs.update, record.id, partial(_tick, self._records))
                if after is None:  # another worker came first
                    continue
                failpoint("clock.ticked", record.id)
                if after.version != record.version:
                    logger.info("Run %s is due: now %s", record.id, after.state)
        self._misplaced.remove()
        return examined


def _tick(records: Records, record: Record, now: float) -> Change | None:
    """Take the clock's step. If it would repeat a run whose signature isn't valid, end the run instead."""
    if not records.runs.knows(record):  # left to a worker that has the run's key
        return None
    change = transitions.tick(record, now)
    due = indexes.next_due(record)
    return refusal(records, record, now) if change is None and due is not None and due <= now else change
