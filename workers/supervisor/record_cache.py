"""A supervisor's copies of records: a run whose record doesn't change costs no read."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from dispatcher.records.base import Records
from dispatcher.runs.record import Record
from workers.misplaced import MisplacedRuns

#: Records read at once. What isn't cached of them is freed before the next are read; a forged one may be large.
PORTION = 10

#: Seconds after which a refresh leaves the rest to the next one.
BUDGET = 5.0

#: An index by name: its runs with their versions.
Members = Mapping[str, Sequence[tuple[str, float]]]


class RecordCache:
    """Records of indexes whose scores are versions: a record is read again only where its version differs.

    Args:
        records: the runs', and the counters of what is rejected.
        prepare: returns of a record what is cached, or None if nothing may be done with the run.
        clock: monotonic, in seconds.
    """

    def __init__(
        self,
        records: Records,
        prepare: Callable[[Record], Record | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runs = records.runs
        self._prepare = prepare
        self._clock = clock
        self._misplaced = MisplacedRuns(records)
        self._records: dict[str, Record] = {}
        self._rejected: dict[str, float] = {}  # run with which nothing may be done → its version in the index
        self.complete = True  #: whether the last refresh has read all that it had to read

    def refresh(self, members: Members) -> list[Record]:
        """Replace the contents by the runs of these indexes. Return the records that were read because they are new or
        have changed.

        A record that has no place in its index, or isn't readable, is removed from there. One with which nothing may be
        done isn't read again until it changes.
        """
        versions = {run_id: version for runs in members.values() for run_id, version in runs}
        for run_id in self._records.keys() - versions.keys():
            del self._records[run_id]
        self._rejected = {run_id: at for run_id, at in self._rejected.items() if versions.get(run_id) == at}
        fresh: list[Record] = []
        end, self.complete = self._clock() + BUDGET, True
        for index, stale in self._stale(members):
            for first in range(0, len(stale), PORTION):
                if self._clock() >= end:
                    self.complete = False
                    break
                fresh += self._read(index, stale[first : first + PORTION], versions)
        self._misplaced.remove()
        return fresh

    def _stale(self, members: Members) -> Iterator[tuple[str, list[str]]]:
        """Yield the runs of each index that must be read; first those that are cached, since others may be forged."""
        stale: dict[str, list[str]] = {
            index: [
                run_id
                for run_id, version in runs
                if run_id not in self._rejected
                and ((cached := self._records.get(run_id)) is None or cached.version != version)
            ]
            for index, runs in members.items()
        }
        for known in (True, False):
            for index, run_ids in stale.items():
                yield index, [run_id for run_id in run_ids if (run_id in self._records) is known]

    def _read(self, index: str, ids: Sequence[str], versions: Mapping[str, float]) -> list[Record]:
        """Read and cache records; return those with whose runs something may be done."""
        fresh: list[Record] = []
        gone: list[str] = []
        for run_id, record in zip(ids, self._runs.get_many(ids), strict=True):
            self._records.pop(run_id, None)
            if record is None:
                gone.append(run_id)
            elif self._misplaced.note(index, record):
                continue
            elif (prepared := self._prepare(record)) is None:
                self._rejected[run_id] = versions[run_id]
            else:
                self._records[run_id] = prepared
                fresh.append(prepared)
        self._runs.leave(index, gone, unreadable=True)
        return fresh

    def reread(self, ids: Iterable[str], owners: Collection[str]) -> list[Record]:
        """Read these runs now, cached or not. Return the records that one of ``owners`` owns."""
        portion = self._runs.get_many(list(ids))
        ours = [record for record in portion if record is not None and record.owner in owners]
        fresh = [prepared for record in ours if (prepared := self._prepare(record)) is not None]
        self._records |= {record.id: record for record in fresh}
        return fresh

    def put(self, record: Record) -> None:
        """Cache a record that was written here, or read elsewhere."""
        if (prepared := self._prepare(record)) is None:
            self._records.pop(record.id, None)
        else:
            self._records[record.id] = prepared

    def drop(self, run_id: str) -> None:
        """Forget a record; the next refresh reads it again if the run is still there."""
        self._records.pop(run_id, None)

    def get(self, run_id: str) -> Record | None:
        """Return a record as last read, if it is cached."""
        return self._records.get(run_id)

    def __iter__(self) -> Iterator[Record]:
        return iter(list(self._records.values()))

    def __len__(self) -> int:
        return len(self._records)


def slim(record: Record) -> Record:
    """Remove the body of a request that won't be sent again: thousands of records are cached."""
    if record.handle is None or record.request is None or "body" not in record.request:
        return record
    return record.but(request=_without_body(record.request))


def slim_leftovers(record: Record) -> Record:
    """Remove the bodies of requests, also of what ended attempts have left. Such a record must not be written."""
    leftovers = [
        {**leftover, "request": _without_body(leftover["request"])} if _has_handle(leftover) else leftover
        for leftover in record.leftovers
    ]
    return slim(record.but(leftovers=tuple(leftovers)))


def _has_handle(leftover: Mapping[str, Any]) -> bool:
    return leftover["handle"] is not None and leftover["request"] is not None


def _without_body(request: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in request.items() if name != "body"}
