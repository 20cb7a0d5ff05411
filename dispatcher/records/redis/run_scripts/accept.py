"""Commands that accept runs, for ``lua/accept.lua``, and its replies. Pure.

Runs of one call have almost everything in common. That part is rendered once per kind of run: the transition
:func:`transitions.create` and the :func:`placement` of a sample, as JSON with places for each run's id and the time.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from dispatcher.errors import InvalidInput
from dispatcher.records.effects import QUEUES_TOPIC
from dispatcher.records.redis.bounds import MOST_RUNS
from dispatcher.records.redis.connection.client import Command
from dispatcher.records.redis.keys import Keys
from dispatcher.records.redis.run_scripts.change import Push, fields_of, flat, queue_entry
from dispatcher.records.redis.scripts import script
from dispatcher.runs import transitions
from dispatcher.runs.change import Ring, ring_for
from dispatcher.runs.indexes import placement
from dispatcher.runs.record import Record
from dispatcher.runs.routing import Route
from dispatcher.support.ids import check_run_id
from dispatcher.support.parsing import MOST

#: Most bytes of specs and doorbells in a batch of several runs: a script may hold up the server for a few ms.
BYTES = 2**20

# The id of a sample. Random, so that no flow's name can contain it.
_ID = uuid.uuid4().hex

_MOST_COMMON = 256

#: Fields of a new record that differ between runs, or that the script fills with the time.
_OWN = {"id", "spec_bytes", "signature", "spec_digest", "key", "created_at", "queued_at", "rung_at"}


class BatchKey(NamedTuple):
    """Everything that runs of a batch have in common: the list for doorbells (or ''), blobs, and :attr:`Spec.kind`."""

    list: str
    blobs: tuple[str, ...]
    flow: str
    route: Route
    tags: tuple[str, ...]
    on_exit: bool
    start_within: float | None
    day: int
    requires: tuple[str, ...]


class Batch:
    """Runs with the same key that one call of the script accepts."""

    def __init__(self, key: BatchKey) -> None:
        self.key = key
        self.records: list[Record] = []
        self.words: list[Any] = []
        self.size = 0

    def add(self, record: Record, doorbell: bytes) -> None:
        """Add a run.

        Raises:
            UnknownRun: its id isn't one.
            InvalidInput: its spec is longer than any release reads.
        """
        check_run_id(record.id)
        if len(record.spec_bytes) > MOST:
            raise InvalidInput(
                f"run: its environment, options and parameters have {len(record.spec_bytes):,} bytes, more than "
                f"{MOST:,}; let large parameters travel apart (DISPATCHER__LIMITS__INLINE), name large files by path"
            )
        self.records.append(record)
        self.words += (record.id, record.spec_bytes, record.signature, record.spec_digest, record.key, doorbell)
        self.size += len(record.spec_bytes) + len(doorbell)

    def has_room(self, key: BatchKey, size: int) -> bool:
        """Return True if another run with ``key``, of ``size`` bytes, may be added."""
        return key == self.key and len(self.records) < MOST_RUNS and self.size + size <= BYTES

    def stored(self, reply: Sequence[Any], earlier: Callable[[Record, dict[str, bytes]], Record]) -> list[Record]:
        """Return the records that are stored now, in order.

        Args:
            reply: of the script.
            earlier: parses the fields of a record that was stored before, in the place of the given one.
        """
        return [
            earlier(record, fields_of(answer))
            if isinstance(answer, list)
            else transitions.accepted(record, float(answer)).but(version=1)
            for record, answer in zip(self.records, reply, strict=True)
        ]


class Batcher:
    """Sorts runs into batches, and makes their commands."""

    def __init__(self, keys: Keys, *, clock_offset: float) -> None:
        self._keys = keys
        self._offset = clock_offset
        self._common: dict[BatchKey, str] = {}

    def batches(self, records: Iterable[Record], push: Callable[[Ring], Push | None]) -> Iterator[Batch]:
        """Yield the records, in their order, in batches."""
        batch: Batch | None = None
        for record in records:
            spec = record.spec
            pushed = push(ring_for(record))
            list_key, doorbell = pushed[:2] if pushed else ("", b"")
            key = BatchKey(list_key, spec.blobs, *spec.kind)
            if batch is None or not batch.has_room(key, len(record.spec_bytes) + len(doorbell)):
                if batch is not None:
                    yield batch
                batch = Batch(key)
            batch.add(record, doorbell)
        if batch is not None:
            yield batch

    def command(self, batch: Batch) -> Command:
        """Return the command that accepts a batch."""
        common = self._common.get(batch.key)
        if common is None:
            if len(self._common) >= _MOST_COMMON:
                self._common.clear()
            common = self._common[batch.key] = self._render_common(batch.key, batch.records[0])
        return script("accept").command((), common, *batch.words)

    def missing(self, reply: Sequence[Any]) -> list[str]:
        """Return the digests of missing shared blobs from a reply."""
        return [self._keys.digest(key.decode()) for key in reply[1:]] if reply[0] == b"" else []

    def _render_common(self, key: BatchKey, sample: Record) -> str:
        """Return the part of the script's arguments that runs with this key have in common, as JSON."""
        keys = self._keys
        change = transitions.create(sample.but(id=_ID, key=""), 0.0)
        fields = {name: value for name, value in change.after.to_fields().items() if name not in _OWN}
        places: dict[float, list[str]] = defaultdict(list)
        for index, seconds in placement(change.after).items():
            places[seconds].append(keys.index(index))
        [event] = change.events
        common: dict[str, Any] = {
            "offset": self._offset,
            "run": keys.run_prefix,
            "its_events": keys.events(_ID).removeprefix(keys.run(_ID)),
            "key": keys.key_prefix,
            "topic": keys.topic_prefix,
            "events": keys.all_events,
            "fields": flat(fields | {"version": "1"}),
            "fact": event.to_fields()["fact"].split(_ID),
            "places": list(places.items()),
            "blobs": [keys.blob(digest) for digest in key.blobs],
            "queue": [keys.queues, keys.routes, keys.topic(QUEUES_TOPIC), *queue_entry(key.route)],
            "list": key.list,
        }
        kind = hashlib.sha256(json.dumps([common, key.on_exit, key.day, key.requires]).encode()).hexdigest()[:16]
        common["fields"] += ["kind", kind]
        return json.dumps(common)
