"""Runs to accept as the commands that ``lua/accept.lua`` takes, and its replies. Pure.

Runs of one call have almost everything in common: that is told once for a portion of them, and prepared once for all
portions and later calls. What a run means to the indexes, events and queues is still said by
:func:`transitions.create` and :func:`placement`, of a sample; the script puts in each run's id, and the time.
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
from dispatcher.records.redis.run_scripts.change import Push, described, fields_of, flat
from dispatcher.records.redis.scripts import script
from dispatcher.runs import transitions
from dispatcher.runs.change import Ring, ring_for
from dispatcher.runs.indexes import placement
from dispatcher.runs.record import Record
from dispatcher.runs.routing import Route
from dispatcher.support.ids import check_run_id
from dispatcher.support.parsing import MOST

#: Most bytes of specs and doorbells of one portion of several runs: a script may hold up the server for a few ms.
BYTES = 2**20

# The id of a sample. Random, so that no flow's name can hold it.
_ID = uuid.uuid4().hex

_MOST_KINDS = 256

#: Fields of a new record that each run has for itself, or that the script fills with the time.
_OWN = {"id", "spec_bytes", "signature", "spec_digest", "key", "created_at", "queued_at", "rung_at"}


class Kind(NamedTuple):
    """All that runs must have in common to be accepted together: where their doorbells go (or empty), the shared blobs,
    and :attr:`Spec.kind`."""

    list: str
    blobs: tuple[str, ...]
    flow: str
    route: Route
    tags: tuple[str, ...]
    on_exit: bool
    start_within: float | None
    day: int
    requires: tuple[str, ...]


class Portion:
    """Runs of one kind that one script accepts."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.records: list[Record] = []
        self.words: list[Any] = []
        self.size = 0

    def add(self, record: Record, doorbell: bytes) -> None:
        """One run more; its words in the order of the script.

        Raises:
            UnknownRun: its id isn't one.
            InvalidInput: its spec is longer than anybody would read.
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

    def takes(self, kind: Kind, size: int) -> bool:
        """Return True if another run of ``kind``, of so many bytes, may be added."""
        return kind == self.kind and len(self.records) < MOST_RUNS and self.size + size <= BYTES

    def stored(self, reply: Sequence[Any], earlier: Callable[[Record, dict[str, bytes]], Record]) -> list[Record]:
        """The records that stand after the script, in order; ``earlier`` reads one that was there before another."""
        return [
            earlier(record, fields_of(found))
            if isinstance(found, list)
            else transitions.accepted(record, float(found)).but(version=1)
            for record, found in zip(self.records, reply, strict=True)
        ]


class Acceptance:
    """Makes portions and commands."""

    def __init__(self, keys: Keys, *, clock_offset: float) -> None:
        self._keys = keys
        self._offset = clock_offset
        self._shared: dict[Kind, str] = {}

    def portions(self, records: Iterable[Record], push: Callable[[Ring], Push | None]) -> Iterator[Portion]:
        """The records in their order, in portions of one kind each."""
        portion: Portion | None = None
        for record in records:
            spec = record.spec
            pushed = push(ring_for(record))
            key, doorbell = pushed[:2] if pushed else ("", b"")
            kind = Kind(key, spec.blobs, *spec.kind)
            if portion is None or not portion.takes(kind, len(record.spec_bytes) + len(doorbell)):
                if portion is not None:
                    yield portion
                portion = Portion(kind)
            portion.add(record, doorbell)
        if portion is not None:
            yield portion

    def command(self, portion: Portion) -> Command:
        """The command that accepts a portion."""
        shared = self._shared.get(portion.kind)
        if shared is None:
            if len(self._shared) >= _MOST_KINDS:
                self._shared.clear()
            shared = self._shared[portion.kind] = self._told(portion.kind, portion.records[0])
        return script("accept").command((), shared, *portion.words)

    def missing(self, reply: Sequence[Any]) -> list[str]:
        """The digests of shared blobs that aren't there, as a reply says."""
        return [self._keys.digest(key.decode()) for key in reply[1:]] if reply[0] == b"" else []

    def _told(self, kind: Kind, like: Record) -> str:
        """Return what the script is told of all runs of a kind, in JSON."""
        keys = self._keys
        change = transitions.create(like.but(id=_ID, key=""), 0.0)
        fields = {name: value for name, value in change.after.to_fields().items() if name not in _OWN}
        places: dict[float, list[str]] = defaultdict(list)
        for index, seconds in placement(change.after).items():
            places[seconds].append(keys.index(index))
        [event] = change.events
        told: dict[str, Any] = {
            "offset": self._offset,
            "run": keys.run_prefix,
            "its_events": keys.events(_ID).removeprefix(keys.run(_ID)),
            "key": keys.key_prefix,
            "topic": keys.topic_prefix,
            "events": keys.all_events,
            "fields": flat(fields | {"version": "1"}),
            "fact": event.to_fields()["fact"].split(_ID),
            "places": list(places.items()),
            "blobs": [keys.blob(digest) for digest in kind.blobs],
            "queue": [keys.queues, keys.routes, keys.topic(QUEUES_TOPIC), *described(kind.route)],
            "list": kind.list,
        }
        name = hashlib.sha256(json.dumps([told, kind.on_exit, kind.day, kind.requires]).encode()).hexdigest()[:16]
        told["fields"] += ["kind", name]
        return json.dumps(told)
