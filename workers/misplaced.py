"""Removal of runs from indexes in which their record doesn't place them. For sweeps."""

from __future__ import annotations

from dispatcher.records.runs import Runs
from dispatcher.runs.record import Record

#: Sightings remembered at most.
MAX_SIGHTINGS = 10_000


class MisplacedRuns:
    """Sightings of runs in indexes where they don't belong. For one thread.

    An index is read before its records, so a run may have moved in between. It is removed from an index only when it is
    seen there for the second time with an unchanged record.
    """

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._versions: dict[tuple[str, str], int] = {}  # (index, run) → version of the record when it was last seen

    def note(self, index: str, record: Record) -> None:
        """Note that a run was seen in an index without belonging there, as far as this release can tell."""
        if record.foreign:
            return
        key = (index, record.id)
        if self._versions.pop(key, None) == record.version:
            self._runs.leave(index, [record.id])
            return
        if len(self._versions) >= MAX_SIGHTINGS:
            self._versions.clear()
        self._versions[key] = record.version
