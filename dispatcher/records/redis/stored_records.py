"""Reading the records of runs from their hashes. For ``records/redis`` alone.

Many may write to the server, so a key may hold anything. A record that can't be read is noted as malformed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dispatcher.errors import Malformed, UnknownRun, UnreadableRun
from dispatcher.records.malformed import MalformedEntries
from dispatcher.records.redis.connection.client import Client
from dispatcher.records.redis.connection.errors import is_wrong_type
from dispatcher.records.redis.keys import Keys
from dispatcher.records.redis.run_scripts.change import fields_of
from dispatcher.runs.record import Record
from dispatcher.support.ids import is_run_id

#: Stands for a record that is stored and can't be read.
UNREADABLE_RECORD: Any = object()


class StoredRecords:
    """Reads records, and the server's clock."""

    def __init__(self, client: Client, keys: Keys, *, clock_offset: float, malformed: MalformedEntries) -> None:
        self._client = client
        self._keys = keys
        self._offset = clock_offset
        self._malformed = malformed

    def now(self) -> float:
        """Return the server's clock, in seconds since the epoch."""
        return self._seconds(self._client.one("TIME"))

    def fields(self, run_id: str) -> tuple[Any, float]:
        """Return the fields of a record as stored, and the server's clock.

        Raises:
            UnknownRun: nothing is stored.
        """
        replies = self._client.call([("TIME",), ("HGETALL", self._keys.run(run_id))])
        now, fields = (reply if is_wrong_type(reply) else self._client.accepted([reply])[0] for reply in replies)
        if not fields:
            raise unknown(run_id)
        return fields if is_wrong_type(fields) else fields_of(fields), self._seconds(now)

    def many(self, run_ids: Sequence[str]) -> list[Any]:
        """Return records in the order of ``run_ids``; None for missing ones, :data:`UNREADABLE_RECORD` for others."""
        valid_ids = [run_id for run_id in run_ids if is_run_id(run_id)]
        replies = self._client.call([("HGETALL", self._keys.run(run_id)) for run_id in valid_ids])
        self._client.accepted([reply for reply in replies if not is_wrong_type(reply)])
        records: dict[str, Any] = {}
        for run_id, reply in zip(valid_ids, replies, strict=True):
            try:
                fields = reply if is_wrong_type(reply) else fields_of(reply)
                records[run_id] = self.parse(run_id, fields) if fields else None
            except UnreadableRun:
                records[run_id] = UNREADABLE_RECORD
        return [records.get(run_id) for run_id in run_ids]

    def parse(self, run_id: str, fields: Any) -> Record:
        """Return the record that was stored as these fields, or as another type than a hash.

        Raises:
            UnreadableRun: they aren't a record, or another run's.
        """

        def parsed() -> Record:
            if is_wrong_type(fields):
                raise Malformed("record: isn't a hash")
            record = Record.from_fields(fields)
            if record.id != run_id:
                raise Malformed("record: belongs to another run")
            return record

        return self.read(run_id, parsed)

    def read(self, run_id: str, parse: Callable[[], Record]) -> Record:
        """Return the record that ``parse`` returns.

        Raises:
            UnreadableRun: ``parse`` raised Malformed.
        """
        record = self._malformed.read(f"run {run_id}", parse)
        if record is None:
            raise UnreadableRun(f"run {run_id}: its stored record can't be read; nobody runs or changes it")
        return record

    def earlier(self, record: Record, fields: dict[str, bytes]) -> Record:
        """Return the record that was stored before ``record`` was submitted, under its id or idempotency key.

        If it is unreadable, the id or key can't be used: a record with another spec is returned.
        """
        run_id = fields.get("id", b"").decode(errors="replace")
        try:
            return self.parse(run_id, fields)
        except UnreadableRun:
            return record.but(id=run_id or "?", spec_digest="")

    def _seconds(self, reply: Sequence[bytes]) -> float:
        return int(reply[0]) + int(reply[1]) / 1e6 + self._offset


def unknown(run_id: str) -> UnknownRun:
    """Return the error for a run that isn't stored."""
    return UnknownRun(f"no run {run_id}, or its retention is over")
