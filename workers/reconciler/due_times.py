"""Due times: retries that came due, ``start_within`` that passed, an ``on_exit`` that nobody took."""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import partial

from dispatcher.errors import Refused, UnknownRun
from dispatcher.records.base import Records
from dispatcher.runs import indexes, transitions
from dispatcher.runs.change import Change
from dispatcher.runs.record import Record
from dispatcher.support.failpoints import failpoint
from workers.error_isolation import ErrorIsolation, MisplacedRuns
from workers.refusal import refusal

logger = logging.getLogger(__name__)


class DueTimes:
    """Applies the clock. For one thread.

    Args:
        records: of the runs.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self._each = ErrorIsolation(logger)
        self._misplaced = MisplacedRuns(records.runs)

    def sweep(self) -> int:
        """Apply the clock to all runs that it changes now; how many were looked at."""
        runs, seen = self._records.runs, 0
        for record in runs.under(indexes.DUE, until=runs.now()):
            seen += 1
            if indexes.next_due(record) is None:
                self._misplaced.note(indexes.DUE, record)
                continue
            with self._each.run(record.id), suppress(Refused, UnknownRun):  # another came first
                failpoint("clock.due", record.id)
                after = runs.update(record.id, partial(_ticked, self._records))
                failpoint("clock.ticked", record.id)
                if after.version != record.version:
                    logger.info("run %s: its time came, it is %s now", record.id, after.state)
        return seen


def _ticked(records: Records, record: Record, now: float) -> Change | None:
    """The clock's step; the end of a run whose signature doesn't hold, where the clock would repeat it."""
    if not records.runs.knows(record):  # a worker that has its key does this
        return None
    change = transitions.tick(record, now)
    due = indexes.next_due(record)
    return refusal(records, record, now) if change is None and due is not None and due <= now else change
