"""Records of runs in Redis. Every change is one call of a function on the server."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial

from dispatcher.errors import Malformed, UnknownRun
from dispatcher.records.bell import Bell
from dispatcher.records.effects import conflict
from dispatcher.records.leases import Lease
from dispatcher.records.malformed import MalformedEntries
from dispatcher.records.query import Query
from dispatcher.records.redis.blobs import hold
from dispatcher.records.redis.changes import ChangeWriter
from dispatcher.records.redis.claims import Claims
from dispatcher.records.redis.connection.client import Client, Command
from dispatcher.records.redis.indexes import RedisIndexes
from dispatcher.records.redis.keys import Keys
from dispatcher.records.redis.retention import Retention
from dispatcher.records.redis.run_scripts.accept import Batch, Batcher
from dispatcher.records.redis.run_scripts.change import Push, StepList, fields_of
from dispatcher.records.redis.speculation.claim import ClaimPredictor
from dispatcher.records.redis.speculation.finish import FinishTemplates
from dispatcher.records.redis.stored_records import UNREADABLE_RECORD, StoredRecords, unknown
from dispatcher.records.runs import ClaimTransition, Runs
from dispatcher.records.snapshot import Snapshot, WrongPrediction
from dispatcher.runs import transitions
from dispatcher.runs.change import Change, Ring, ring_for
from dispatcher.runs.outcome import ExitCall, Outcome
from dispatcher.runs.record import FIXED, Record
from dispatcher.support.failpoints import failpoint
from dispatcher.support.ids import check_run_id
from dispatcher.support.parsing import number_of, whole_of


class RedisRuns(Runs):
    """Records in hashes, indexes in sorted sets."""

    def __init__(
        self, client: Client, keys: Keys, *, bell: Bell | None, clock_offset: float, malformed: MalformedEntries
    ) -> None:
        self._client = client
        self._keys = keys
        self._bell = bell
        self._offset = clock_offset
        self._records = StoredRecords(client, keys, clock_offset=clock_offset, malformed=malformed)
        self._indexes = RedisIndexes(client, keys, malformed)
        self._retention = Retention(client, keys, self._records, self._indexes)
        self._batcher = Batcher(keys, clock_offset=clock_offset)
        self._predictor = ClaimPredictor(keys)
        self._finishes = FinishTemplates(keys)
        self._claims = Claims(client, keys, clock_offset=clock_offset)
        self._changes = ChangeWriter(client, keys, self._records, clock_offset=clock_offset)
        self._predicted: Record | None = None  # the last run claimed by a prediction, as it was then

    def create(self, records: Sequence[Record], *, timeout: float = 15.0) -> list[Record]:
        failpoint("submit.shared")
        if len(records) > 1:
            hold(self._client, self._keys, {name for record in records for name in record.spec.blobs}, within=timeout)
        batches: list[Batch] = []

        def commands() -> Iterator[Command]:
            for batch in self._batcher.batches(records, self._push):
                batches.append(batch)
                yield self._batcher.command(batch)

        replies = self._client.run_many(commands(), within=timeout, submits=True, portion=1)
        self._client.accepted(replies, may_exist=any(isinstance(reply, list) and reply[0] != b"" for reply in replies))
        if missing := dict.fromkeys(digest for reply in replies for digest in self._batcher.missing(reply)):
            raise LookupError(*missing)
        stored = [
            record
            for batch, reply in zip(batches, replies, strict=True)
            for record in batch.stored(reply, self._records.earlier)
        ]
        stored_ids = {record.id for record in stored}
        failpoint("submit.stored")
        rung_elsewhere = (record for batch in batches if not batch.key.list for record in batch.records)
        self._publish([ring_for(record) for record in rung_elsewhere if record.id in stored_ids])
        clashes = (
            conflict(record, earlier.id)
            for record, earlier in zip(records, stored, strict=True)
            if record.spec_digest != earlier.spec_digest
        )
        if (clash := next(clashes, None)) is not None:
            raise clash
        return stored

    def get(self, run_id: str) -> tuple[Record, float]:
        fields, now = self._records.fields(run_id)
        return self._records.parse(run_id, fields), now

    def get_many(self, run_ids: Sequence[str]) -> list[Record | None]:
        return [None if record is UNREADABLE_RECORD else record for record in self._records.many(run_ids)]

    def version(self, run_id: str) -> int | None:
        raw = self._client.one("HGET", self._keys.run(run_id), "version")
        with suppress(Malformed):
            return None if raw is None else whole_of(raw, "version")
        return None

    def used(self, run_id: str, day: int) -> str:
        word = self._client.one("HGET", self._keys.used(day), run_id)
        return "" if word is None else word.decode()

    def snapshot(self, run_id: str, hint: str) -> Snapshot:
        check_run_id(run_id)  # a prediction puts it into steps before any key is made of it
        if (prediction := self._predictor.predict(run_id, hint)) is not None:
            return prediction
        fields, now = self._records.fields(run_id)
        self._predictor.note_read(run_id, hint, fields.get("kind", b"").decode(errors="replace"))
        return Snapshot(self._records.parse(run_id, fields), now)

    def claim(self, snapshot: Snapshot, transition: ClaimTransition, *, owner: str, holder: str) -> Record:
        run_id = snapshot.record.id
        if not snapshot.predicted:
            claimed = super().claim(snapshot, transition, owner=owner, holder=holder)
            self._predictor.learn(snapshot.record)
            return claimed
        predicted = self._predictor.claim(snapshot, transition, owner=owner, holder=holder)
        if predicted is None:
            raise WrongPrediction(Snapshot(*self.get(run_id)))
        change, own_values, after = predicted
        time, accepted_at, values = self._changes.apply_prepared(run_id, change, own_values)
        if accepted_at is not None:
            own = dict(zip(FIXED, values, strict=True)) | {"id": run_id.encode()}
            at = partial(number_of, accepted_at, "record: created_at")
            self._predicted = self._records.read(run_id, lambda: after.but(started_at=float(time)).accepted(at(), own))
            return self._predicted
        if not values:
            raise unknown(run_id)
        fields = fields_of(values)
        stored = self._records.parse(run_id, fields)
        if stored.change == after.change:  # the first reply was lost
            return stored
        if (stored.version, fields.get("kind")) != (1, snapshot.kind.encode()):  # else its spec was used before
            self._predictor.forget(snapshot.kind)
        raise WrongPrediction(Snapshot(stored, float(time)))

    def finish(self, record: Record, now: float, *, outcome: Outcome | None, exit_call: ExitCall | None) -> Record:
        rendered = self._finishes.render(record, now, outcome, exit_call) if record is self._predicted else None
        if rendered is None:
            return super().finish(record, now, outcome=outcome, exit_call=exit_call)
        change, own_values, after = rendered
        time, accepted_at, values = self._changes.apply_prepared(record.id, change, own_values)
        if accepted_at is not None:
            return after
        if not values:
            raise UnknownRun(f"run {record.id}: its retention is over")
        stored, now = self._records.parse(record.id, fields_of(values)), float(time)
        if stored.change == after.change:  # the first reply was lost
            return after
        transition = partial(transitions.finish, epoch=record.epoch, outcome=outcome, exit_call=exit_call)
        return self.update(record.id, transition, record=stored, now=now)

    def claim_attempt(
        self, run_id: str, *, attempt: int, holder: str, shard: str, entry: Mapping[str, str], void: str = ""
    ) -> tuple[Record, float]:
        fields, at = self._claims.make(run_id, attempt=attempt, holder=holder, shard=shard, entry=entry, void=void)
        return self._records.parse(run_id, fields), at

    def commit(self, change: Change, *, lease: Lease | None = None, void: str = "") -> tuple[Record | None, float]:
        if change.before is None:
            raise ValueError("create() accepts runs, not commit()")
        push = self._push(change.ring)
        step_list = StepList(self._keys)
        after = step_list.add_change(change, push)
        claim = self._claims.checked_by(change, void)
        steps, apart = step_list.encode(after.id)
        stored, now = self._changes.apply(after, change.before.version, steps, *apart, lease=lease, claim=claim)
        if stored is after and push is None and change.ring is not None:
            failpoint("bell.due", after.id)
            self._publish([change.ring])
        return stored, now

    def find(self, query: Query, *, limit: int | None = 100) -> Iterator[Record]:
        left = limit if limit is not None else sys.maxsize
        for run_ids in self._indexes.pages(query):
            for record in self.get_many(run_ids):
                if left <= 0:
                    return
                if record is not None and query.matches(record):
                    left -= 1
                    yield record

    def members(
        self, index: str, *, until: float | None = None, limit: int = 1000, skip: int = 0, highest_first: bool = False
    ) -> list[tuple[str, float]]:
        return self._indexes.members(index, until=until, limit=limit, skip=skip, highest_first=highest_first)

    def leave(self, index: str, runs: Collection[str] | Mapping[str, int], *, unreadable: bool = False) -> int:
        return self._indexes.leave(index, runs, unreadable=unreadable)

    def count(self, index: str) -> int:
        return self._indexes.count(index)

    def now(self) -> float:
        return self._records.now()

    def purge(self, *, limit: int = 1000) -> int:
        return self._retention.purge(limit)

    def _push(self, ring: Ring | None) -> Push | None:
        """Return the push of a doorbell that the script makes; None if there is none, or it is published."""
        if ring is None or self._bell is None:
            return None
        message = self._bell.message(ring)
        return None if message is None else (*message, ring.first)

    def _publish(self, rings: list[Ring]) -> None:
        if self._bell is not None and rings:
            self._bell.publish(rings)
