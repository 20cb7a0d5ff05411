"""Removing runs whose retention is over. For ``records/redis`` alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from dispatcher.records.effects import EVENTS_KEPT
from dispatcher.records.redis.connection.client import Client, Command
from dispatcher.records.redis.connection.errors import is_of_an_entry
from dispatcher.records.redis.indexes import RedisIndexes
from dispatcher.records.redis.keys import Keys
from dispatcher.records.redis.scripts import script
from dispatcher.records.redis.stored_records import UNREADABLE_RECORD, StoredRecords
from dispatcher.runs.indexes import EXPIRING, placement
from dispatcher.runs.record import Record
from dispatcher.support.failpoints import failpoint


class Retention:
    """Purges runs that the index of expiring runs lists, and old events."""

    def __init__(self, client: Client, keys: Keys, records: StoredRecords, indexes: RedisIndexes) -> None:
        self._client = client
        self._keys = keys
        self._records = records
        self._indexes = indexes

    def purge(self, limit: int) -> int:
        """As :meth:`Runs.purge`."""
        now = self._records.now()
        due = [run_id for run_id, _ in self._indexes.members(EXPIRING, until=now, limit=limit, skip=0)]
        records = dict(zip(due, self._records.many(due), strict=True))
        unreadable = [run_id for run_id, record in records.items() if record is UNREADABLE_RECORD]
        gone = [run_id for run_id, record in records.items() if record is None] + unreadable
        over: list[Record] = []
        early: list[Record] = []
        for record in records.values():
            if record is not None and record is not UNREADABLE_RECORD:
                (over if _expires_at(record) <= now else early).append(record)
        replies = self._client.run_many([self._removal(record) for record in over])
        removed = self._client.accepted([reply for reply in replies if not is_of_an_entry(reply)])
        self._client.many([*(("DEL", *self._keys.of_run(run_id)) for run_id in unreadable), *self._corrections(early)])
        if unindexed := [*gone, *(record.id for record in over if record.unplaceable)]:
            self._indexes.remove_everywhere(unindexed)
        failpoint("purge.trimming")
        # Entries of the stream carry the server's own time in milliseconds.
        self._client.one("XTRIM", self._keys.all_events, "MINID", max(int((now - EVENTS_KEPT) * 1000), 0))
        return len(gone) + sum(map(int, removed))

    def _removal(self, record: Record) -> Command:
        """Return the command that removes a run with all its keys and index entries."""
        keys = self._keys
        own, held_by = keys.of_run(record.id), map(keys.index, placement(record))
        return script("purge").command(own, record.version, record.id, keys.idempotency(record.key), *held_by)

    def _corrections(self, early: Sequence[Record]) -> Iterator[Command]:
        """Yield commands that move runs to their place in the index of expiring runs, or remove them from it."""
        key = self._keys.index(EXPIRING)
        for record in early:
            at = _expires_at(record)
            yield ("ZREM", key, record.id) if at == math.inf else ("ZADD", key, "XX", repr(at), record.id)


def _expires_at(record: Record) -> float:
    """Return the end of a run's retention; infinity while it is open or its infrastructure isn't gone."""
    at = record.expires_at if record.foreign else placement(record).get(EXPIRING)
    return math.inf if at is None else at
