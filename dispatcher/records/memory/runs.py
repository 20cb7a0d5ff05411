"""Records of runs in this process."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from dispatcher.errors import IdempotencyConflict, LeasePassed, Refused, UnknownRun
from dispatcher.records.bell import Bell
from dispatcher.records.effects import QUEUES_TOPIC, conflict, effects
from dispatcher.records.leases import Lease
from dispatcher.records.memory.blobs import MemoryBlobs
from dispatcher.records.memory.claims import Claim, MemoryClaims, stands
from dispatcher.records.memory.events import MemoryEvents
from dispatcher.records.memory.inbox import MemoryInbox
from dispatcher.records.memory.leases import MemoryLeases
from dispatcher.records.memory.logs import MemoryLogs
from dispatcher.records.memory.queues import MemoryQueues
from dispatcher.records.memory.shared import SharedState
from dispatcher.records.memory.spec_uses import SpecUses
from dispatcher.records.memory.workers import MemoryWorkers
from dispatcher.records.query import Query
from dispatcher.records.runs import Runs
from dispatcher.runs import transitions
from dispatcher.runs.change import Change, Ring
from dispatcher.runs.indexes import EXPIRING, placement
from dispatcher.runs.record import Record
from dispatcher.runs.states import State
from dispatcher.support.ids import check_run_id


@dataclass(frozen=True, kw_only=True)
class Neighbors:
    """The other memory records, which change together with the records of runs."""

    blobs: MemoryBlobs
    logs: MemoryLogs
    events: MemoryEvents
    queues: MemoryQueues
    leases: MemoryLeases
    workers: MemoryWorkers
    inbox: MemoryInbox


def _changed(before: Record, after: Record) -> dict[str, Any]:
    """Return the fields of ``after`` that differ from ``before``."""
    names = [field.name for field in fields(Record)]
    return {name: value for name in names if (value := getattr(after, name)) is not getattr(before, name)}


class MemoryRuns(Runs):
    """A dictionary of records; every change happens under the one lock."""

    def __init__(self, shared: SharedState, neighbors: Neighbors, *, bell: Bell | None) -> None:
        self._shared = shared
        self._blobs = neighbors.blobs
        self._logs = neighbors.logs
        self._events = neighbors.events
        self._queues = neighbors.queues
        self._leases = neighbors.leases
        self._workers = neighbors.workers
        self._inbox = neighbors.inbox
        self._bell = bell
        self._records: dict[str, Record] = {}
        self._keys: dict[str, str] = {}
        self._claims = MemoryClaims()
        self._uses = SpecUses()

    def create(self, records: Sequence[Record], *, timeout: float = 15.0) -> list[Record]:
        rings: list[Ring] = []
        clash: IdempotencyConflict | None = None
        stored: list[Record] = []
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
                stored.append(earlier)
        self._ring(rings)
        if clash is not None:
            raise clash
        return stored

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
            return self._uses.get(run_id, day)

    def get_many(self, run_ids: Sequence[str]) -> list[Record | None]:
        with self._shared.changed:
            return [None if (record := self._records.get(run_id)) is None else record.but() for run_id in run_ids]

    def claim_attempt(
        self, run_id: str, *, attempt: int, holder: str, shard: str, entry: Mapping[str, str], void: str = ""
    ) -> tuple[Record, float]:
        with self._shared.changed:
            record, now = self.get(run_id)
            if (record.attempt, record.holder) == (attempt, holder):
                return record, now
            if record.attempt != attempt or record.state not in {State.PROVISIONING, State.PENDING}:
                raise Refused(f"attempt {attempt} of run {run_id} is closed: the run is {record.state}")
            claim = self._claims.standing(run_id, attempt, void=void)
            if claim is None:
                self._claims.add(run_id, attempt, Claim(holder, now, dict(entry)))
                self._inbox.report(shard, {"time": repr(now), **entry})
                return record, now
            if claim.holder != holder:
                raise stands(run_id, claim, now)
            return record, claim.at

    def commit(self, change: Change, *, lease: Lease | None = None, void: str = "") -> tuple[Record | None, float]:
        if change.before is None:
            raise ValueError("create() accepts runs, not commit()")
        with self._shared.changed:
            if lease is not None and self._leases.held("").get(lease.name) != lease:
                raise LeasePassed(f"shard {lease.name} has another holder now: epoch {lease.epoch} is over")
            now = self._shared.clock()
            stored = self._records.get(change.after.id)
            if stored is None or stored.version != change.before.version:
                return None if stored is None else stored.but(), now
            self._claims.check(change, void, now)
            if change.use is not None:
                self._uses.note(stored.id, change.use, now)
            after = change.after.but(version=stored.version + 1)
            merged = stored.but(
                **_changed(change.before, change.after)
            )  # a cached record may have less than the stored one
            self._apply(replace(change, after=merged), after.version, now)
        self._ring([change.ring] if change.ring else [])
        after.mark_unverified()
        return after, now

    def find(self, query: Query, *, limit: int | None = 100) -> Iterator[Record]:
        with self._shared.changed:
            matching = [record for record in self._records.values() if query.matches(record)]
        matching.sort(key=lambda record: (record.created_at, record.id), reverse=True)
        yield from matching[:limit]

    def members(
        self, index: str, *, until: float | None = None, limit: int = 1000, skip: int = 0, highest_first: bool = False
    ) -> list[tuple[str, float]]:
        with self._shared.changed:
            members = self._shared.indexes.get(index, {})
            within = [(run_id, score) for run_id, score in members.items() if until is None or score <= until]
            within.sort(key=lambda pair: (pair[1], pair[0]), reverse=highest_first)
            return within[skip : skip + limit]

    def leave(self, index: str, runs: Collection[str] | Mapping[str, int], *, unreadable: bool = False) -> int:
        with self._shared.changed:
            members = set(self._shared.indexes.get(index, {})).intersection(runs)
            if isinstance(runs, Mapping):
                members = {run_id for run_id in members if self.version(run_id) == runs[run_id]}
            for run_id in members:
                self._shared.leave(index, run_id)
            return len(members)

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
                for neighbor in (self._blobs, self._logs, self._events):
                    neighbor.purge(run_id)
            self._events.trim()
            return len(due)

    def leftovers(self) -> dict[str, int]:
        """Count the entries of runs, by noun; leave out those without any. For tests."""
        with self._shared.changed:
            counts = {
                "records": len(self._records),
                "keys": len(self._keys),
                "indexes": len(self._shared.indexes),
                "blobs": self._blobs.count(),
                "events": self._events.count(),
                "lines": self._logs.count(),
            }
            return {noun: count for noun, count in counts.items() if count}

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
        result = effects(change)
        after.mark_unverified()
        self._records[after.id] = after
        for index, score in result.place.items():
            self._shared.place(index, after.id, score)
        for index in result.leave:
            self._shared.leave(index, after.id)
        if result.passed is not None:
            self._queues.note_passed(*result.passed)
        if result.claimed:
            self._claims.drop(after.id, after.attempt)
        if result.claimed_by:
            self._workers.watch(result.claimed_by)
        self._blobs.free(result.freed)
        self._events.add(change.events)
        for topic, event in result.notices:
            self._events.publish(topic, event)
        if change.ring is not None and self._queues.use(change.ring.route, now):
            self._events.publish(QUEUES_TOPIC, None)
        return after

    def _ring(self, rings: list[Ring]) -> None:
        if self._bell is not None and rings:
            self._bell.publish(rings)
