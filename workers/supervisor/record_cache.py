"""A supervisor's copies of records: a run whose record doesn't change costs no read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from dispatcher.records.runs import Runs
from dispatcher.runs.record import Record

#: Records read at once. What isn't cached of them is freed before the next are read.
PORTION = 200


class RecordCache:
    """Records of indexes whose scores are versions: a record is read again only where its version differs.

    Args:
        runs: the records.
        prepare: returns of a record what is cached, or None if nothing may be done with the run.
    """

    def __init__(self, runs: Runs, prepare: Callable[[Record], Record | None]) -> None:
        self._runs = runs
        self._prepare = prepare
        self._records: dict[str, Record] = {}
        self.missing: set[str] = set()  #: runs of the last refresh without a readable record

    def refresh(self, members: Iterable[tuple[str, float]]) -> list[Record]:
        """Replace the contents by these runs, given with their versions. Return the records that were read because
        they are new or have changed."""
        versions = dict(members)
        for run_id in self._records.keys() - versions.keys():
            del self._records[run_id]
        stale = [
            run_id
            for run_id, version in versions.items()
            if (cached := self._records.get(run_id)) is None or cached.version != version
        ]
        fresh: list[Record] = []
        self.missing = set()
        for first in range(0, len(stale), PORTION):
            ids = stale[first : first + PORTION]
            portion = self._runs.get_many(ids)
            fresh += self._prepared(record for record in portion if record is not None)
            self.missing |= {run_id for run_id, record in zip(ids, portion, strict=True) if record is None}
        self._records |= {record.id: record for record in fresh}
        for run_id in self.missing:
            self._records.pop(run_id, None)
        return fresh

    def reread(self, ids: Iterable[str], owners: Collection[str]) -> list[Record]:
        """Read these runs now, cached or not. Return the records that one of ``owners`` owns."""
        portion = self._runs.get_many(list(ids))
        fresh = self._prepared(record for record in portion if record is not None and record.owner in owners)
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

    def _prepared(self, records: Iterable[Record]) -> list[Record]:
        return [prepared for record in records if (prepared := self._prepare(record)) is not None]


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
