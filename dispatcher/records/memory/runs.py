"""Records of runs in this process."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dispatcher.errors import ClaimStands, IdempotencyConflict, LeasePassed, Refused, SpecUsed, UnknownRun
from dispatcher.records.base import Bell, Runs
from dispatcher.records.effects import QUEUES_TOPIC, conflict, effects, ends_unstarted, spec_used
from dispatcher.records.leases import Lease
from dispatcher.records.memory.blobs import MemoryBlobs
from dispatcher.records.memory.events import MemoryEvents
from dispatcher.records.memory.inbox import MemoryInbox
from dispatcher.records.memory.leases import MemoryLeases
from dispatcher.records.memory.logs import MemoryLogs
from dispatcher.records.memory.queues import MemoryQueues
from dispatcher.records.memory.shared import Shared
from dispatcher.records.memory.workers import MemoryWorkers
from dispatcher.records.query import Query
from dispatcher.runs import transitions
from dispatcher.runs.change import Change, Ring
from dispatcher.runs.indexes import EXPIRING, placement
from dispatcher.runs.record import Record
from dispatcher.runs.states import State
from dispatcher.runs.use import Use
from dispatcher.support.ids import check_run_id


@dataclass(frozen=True, kw_only=True)
class Beside:
    """All that is kept beside the records, and changes with them."""

    blobs: MemoryBlobs
    logs: MemoryLogs
    events: MemoryEvents
    queues: MemoryQueues
    leases: MemoryLeases
    workers: MemoryWorkers
    inbox: MemoryInbox


class _Claim(NamedTuple):
    """A runner's claim on its attempt, that the record doesn't tell of yet."""

    holder: str
    at: float
    entry: Mapping[str, str]

    @property
    def raw(self) -> str:
        """All of it, as text."""
        return repr(tuple(self))


class MemoryRuns(Runs):
    """A dictionary of records; every step under the one lock."""

    def __init__(self, shared: Shared, beside: Beside, *, bell: Bell | None) -> None:
        self._shared = shared
        self._blobs = beside.blobs
        self._logs = beside.logs
        self._events = beside.events
        self._queues = beside.queues
        self._leases = beside.leases
        self._workers = beside.workers
        self._bell = bell
        self._records: dict[str, Record] = {}
        self._keys: dict[str, str] = {}
        self._inbox = beside.inbox
        self._claims: dict[tuple[str, int], _Claim] = {}
        self._used: dict[tuple[int, str], str] = {}  # day and run → how far its spec was used

    def create(self, records: Sequence[Record], *, timeout: float = 15.0) -> list[Record]:
        rings: list[Ring] = []
        clash: IdempotencyConflict | None = None
        found = []
        for record in records:
            check_run_id(record.id)
        with self._shared.changed:
            new = [record for record in records if self._earlier(record) is None]
            if missing := self._blobs.missing(name for record in new for name in record.spec.blobs):
                raise LookupError(*missing)
            for record in records:
                earlier = self._earlier(record)
                if earlier is None:
                    earlier = self._accept(record, rings)
                elif earlier.spec_digest != record.spec_digest:
                    clash = clash or conflict(record, earlier.id)
                found.append(earlier)
        self._ring(rings)
        if clash is not None:
            raise clash
        return found

    def get(self, run_id: str) -> tuple[Record, float]:
        with self._shared.changed:
            if (record := self._records.get(run_id)) is None:
                raise UnknownRun(f"no run {run_id}, or its retention is over")
            return record.but(), self._shared.clock()

    def version(self, run_id: str) -> int | None:
        with self._shared.changed:
            record = self._records.get(run_id)
            return None if record is None else record.version

    def used(self, run_id: str, day: int) -> str:
        with self._shared.changed:
            return self._used.get((day, run_id), "")

    def get_many(self, run_ids: Sequence[str]) -> list[Record | None]:
        with self._shared.changed:
            return [None if (record := self._records.get(run_id)) is None else record.but() for run_id in run_ids]

    def claim(
        self, run_id: str, *, attempt: int, holder: str, shard: str, entry: Mapping[str, str], void: str = ""
    ) -> tuple[Record, float]:
        with self._shared.changed:
            record, now = self.get(run_id)
            if (record.attempt, record.holder) == (attempt, holder):
                return record, now
            if record.attempt != attempt or record.state not in {State.PROVISIONING, State.PENDING}:
                raise Refused(f"attempt {attempt} of run {run_id} is closed: it is {record.state}")
            stands = self._claims.get((run_id, attempt))
            if stands is None or stands.raw == void:
                self._claims[run_id, attempt] = _Claim(holder, now, dict(entry))
                self._inbox.report(shard, {"time": repr(now), **entry})
                return record, now
            if stands.holder != holder:
                raise ClaimStands(run_id, entry=stands.entry, at=stands.at, now=now, raw=stands.raw)
            return record, stands.at

    def commit(self, change: Change, *, lease: Lease | None = None, void: str = "") -> tuple[Record | None, float]:
        if change.before is None:
            raise ValueError("a run is accepted by create()")
        with self._shared.changed:
            if lease is not None and self._leases.held("").get(lease.name) != lease:
                raise LeasePassed(f"shard {lease.name} has another holder now: epoch {lease.epoch} was passed")
            now = self._shared.clock()
            stored = self._records.get(change.after.id)
            if stored is None or stored.version != change.before.version:
                return None if stored is None else stored.but(), now
            self._heed_claim(change, void, now)
            self._use(stored.id, change.use)
            stored = self._apply(change, stored.version + 1, now)
        self._ring([change.ring] if change.ring else [])
        return stored.but(), now

    def find(self, query: Query, *, limit: int | None = 100) -> Iterator[Record]:
        with self._shared.changed:
            matching = [record for record in self._records.values() if query.matches(record)]
        matching.sort(key=lambda record: (record.created_at, record.id), reverse=True)
        yield from matching[:limit]

    def members(self, index: str, *, until: float | None = None, limit: int = 1000) -> list[tuple[str, float]]:
        with self._shared.changed:
            held = self._shared.indexes.get(index, {})
            within = [(name, score) for name, score in held.items() if until is None or score <= until]
            return sorted(within, key=lambda pair: (pair[1], pair[0]))[:limit]

    def leave(self, index: str, run_ids: Collection[str], *, unreadable: bool = False) -> None:
        with self._shared.changed:
            for run_id in run_ids:
                self._shared.leave(index, run_id)

    def count(self, index: str) -> int:
        with self._shared.changed:
            return len(self._shared.indexes.get(index, {}))

    def now(self) -> float:
        return self._shared.clock()

    def purge(self, *, limit: int = 1000) -> int:
        with self._shared.changed:
            due = self.members(EXPIRING, until=self._shared.clock(), limit=limit)
            for run_id, _ in due:
                record = self._records.pop(run_id)
                self._keys.pop(record.key, None)
                for index in placement(record):
                    self._shared.leave(index, run_id)
                for noun in (self._blobs, self._logs, self._events):
                    noun.purge(run_id)
            self._events.trim()
            return len(due)

    def leftovers(self) -> dict[str, int]:
        """Count what is kept of runs, by noun; empty when nothing is."""
        with self._shared.changed:
            kept = {
                "records": len(self._records),
                "keys": len(self._keys),
                "indexes": len(self._shared.indexes),
                "blobs": self._blobs.count(),
                "events": self._events.count(),
                "lines": self._logs.count(),
            }
            return {noun: count for noun, count in kept.items() if count}

    def _heed_claim(self, change: Change, void: str, now: float) -> None:
        """An attempt that its runner has claimed doesn't end as one that never started."""
        if not ends_unstarted(change):
            return
        key = change.after.id, change.before.attempt if change.before is not None else 1
        claim = self._claims.get(key)
        if claim is not None and claim.raw != void:
            raise ClaimStands(key[0], entry=claim.entry, at=claim.at, now=now, raw=claim.raw)
        self._claims.pop(key, None)

    def _earlier(self, record: Record) -> Record | None:
        if record.id in self._records:
            return self._records[record.id]
        return self._records.get(self._keys.get(record.key, "")) if record.key else None

    def _accept(self, record: Record, rings: list[Ring]) -> Record:
        now = self._shared.clock()
        change = transitions.create(record, now)
        self._blobs.adopt(record.id, record.spec.blobs)
        if record.key:
            self._keys[record.key] = record.id
        if change.ring is not None:
            rings.append(change.ring)
        return self._apply(change, 1, now)

    def _apply(self, change: Change, version: int, now: float) -> Record:
        after = change.after.but(version=version)
        meant = effects(change)
        after.mark_unverified()
        self._records[after.id] = after
        for index, score in meant.place.items():
            self._shared.place(index, after.id, score)
        for index in meant.leave:
            self._shared.leave(index, after.id)
        if meant.passed is not None:
            self._queues.note_passed(*meant.passed)
        if meant.claimed:
            self._claims.pop((after.id, after.attempt), None)
        if meant.claimed_by:
            self._workers.watch(meant.claimed_by)
        self._blobs.free(meant.freed)
        self._events.add(change.events)
        for topic, event in meant.notices:
            self._events.tell(topic, event)
        if change.ring is not None and self._queues.use(change.ring.route, now):
            self._events.tell(QUEUES_TOPIC, None)
        return after

    def _use(self, run_id: str, use: Use | None) -> None:
        if use is None:
            return
        word = self._used.get((use.day, run_id), "")
        if use.accepts is not None and word not in use.accepts:
            raise SpecUsed(spec_used(run_id, word))
        self._used[use.day, run_id] = use.word
        today = self._shared.clock() // 86400.0
        for key in [key for key in self._used if key[0] < today]:
            del self._used[key]

    def _ring(self, rings: list[Ring]) -> None:
        if self._bell is not None and rings:
            self._bell.publish(rings)
