"""Removal of runs from indexes in which their records don't place them. For sweeps, monitors and supervisors.

No release leaves a run in such a place. Somebody who may write to the server can, and every reader of the index would
read the record again each time.
"""

from __future__ import annotations

import logging

from dispatcher.records.base import Records
from dispatcher.records.rejections import Rejected, count_rejection
from dispatcher.runs.indexes import belongs
from dispatcher.runs.record import Record
from dispatcher.support.log_throttle import LogThrottle

logger = logging.getLogger(__name__)

#: Runs that are removed at once.
PORTION = 100


class MisplacedRuns:
    """Finds misplaced runs among the records of an index, and removes, counts and logs them. For one thread."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._found: dict[str, dict[str, int]] = {}  # index → runs that have no place there, with their versions
        self._throttle = LogThrottle(logger)

    def note(self, index: str, record: Record) -> bool:
        """Return True if a record that was just read has no place in the index; its run will be removed from it."""
        if belongs(record, index):
            return False
        found = self._found.setdefault(index, {})
        found[record.id] = record.version
        if len(found) >= PORTION:
            self._remove(index)
        return True

    def remove(self) -> None:
        """Remove the noted runs, unless their records have changed meanwhile."""
        for index in list(self._found):
            self._remove(index)

    def _remove(self, index: str) -> None:
        found = self._found.pop(index)
        if removed := self._records.runs.leave(index, found):
            count_rejection(self._records.rejections, Rejected.ENTRY, removed)
            event = f"Removed run {next(iter(found))!a} from index {index!a}"
            self._throttle.warn(event, "its record doesn't place it there", kind=index.partition(":")[0])
