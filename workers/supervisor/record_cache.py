"""The supervisor's copy of records, so that an idle run costs it nothing but its place in an index."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from dispatcher.records.base import Runs
from dispatcher.runs.record import Record

#: Records read at once: what isn't kept of them is gone again before the next are read.
PORTION = 200


class RecordCache:
    """Records of indexes whose scores are versions: read again only where that differs.

    Args:
        runs: where they are read.
        keep: makes of a record what is worth keeping, None where nothing may be done with it.
    """

    def __init__(self, runs: Runs, keep: Callable[[Record], Record | None]) -> None:
        self._runs = runs
        self._keep = keep
        self._records: dict[str, Record] = {}
        self.missing: set[str] = set()  #: at the last refresh, runs without a record that can be read

    def refresh(self, members: Iterable[tuple[str, float]]) -> list[Record]:
        """These are all that there are, with their versions; what was read, because it is new or has changed."""
        versions = dict(members)
        for run_id in self._records.keys() - versions.keys():
            del self._records[run_id]
        stale = [
            run_id
            for run_id, version in versions.items()
            if (known := self._records.get(run_id)) is None or known.version != version
        ]
        found: list[Record] = []
        self.missing = set()
        for first in range(0, len(stale), PORTION):
            ids = stale[first : first + PORTION]
            portion = self._runs.get_many(ids)
            found += [kept for record in portion if record is not None and (kept := self._keep(record)) is not None]
            self.missing |= {run_id for run_id, record in zip(ids, portion, strict=True) if record is None}
        self._records |= {record.id: record for record in found}
        for run_id in self.missing:
            self._records.pop(run_id, None)
        return found

    def again(self, ids: Iterable[str], owners: Collection[str]) -> list[Record]:
        """Read these at once, whether or not they are known; what one of ``owners`` answers for."""
        portion = self._runs.get_many(list(ids))
        ours = (record for record in portion if record is not None and record.owner in owners)
        found = [kept for record in ours if (kept := self._keep(record)) is not None]
        self._records |= {record.id: record for record in found}
        return found

    def put(self, record: Record) -> None:
        """It has changed by our hand, or was read elsewhere."""
        if (kept := self._keep(record)) is None:
            self._records.pop(record.id, None)
        else:
            self._records[record.id] = kept

    def drop(self, run_id: str) -> None:
        """Read it again, if it is still there."""
        self._records.pop(run_id, None)

    def get(self, run_id: str) -> Record | None:
        """As last read."""
        return self._records.get(run_id)

    def __iter__(self) -> Iterator[Record]:
        return iter(list(self._records.values()))

    def __len__(self) -> int:
        return len(self._records)


def slim(record: Record) -> Record:
    """Without the body of a request that nobody sends again: thousands of them are kept."""
    if record.handle is None or record.request is None or "body" not in record.request:
        return record
    return record.but(request=_bodiless(record.request))


def slim_leftovers(record: Record) -> Record:
    """The same of what ended attempts have left; such a record is for reading alone."""
    left = [{**one, "request": _bodiless(one["request"])} if _is_known(one) else one for one in record.leftovers]
    return slim(record.but(leftovers=tuple(left)))


def _is_known(one: Mapping[str, Any]) -> bool:
    return one["handle"] is not None and one["request"] is not None


def _bodiless(request: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in request.items() if name != "body"}
