"""Records of runs in Redis: every step is one script."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from dispatcher.errors import LeasePassed, Malformed, ServerUnavailable, SpecUsed, UnknownRun, UnreadableRun
from dispatcher.records.base import Begin, Bell, Runs
from dispatcher.records.effects import EVENTS_KEPT, UNREADABLE, conflict, spec_used
from dispatcher.records.leases import Lease
from dispatcher.records.left_out import LeftOut
from dispatcher.records.query import Look, Query, WrongGuess
from dispatcher.records.redis.blobs import hold
from dispatcher.records.redis.claims import Claims, claim_of
from dispatcher.records.redis.connection.client import Client, Command
from dispatcher.records.redis.connection.errors import is_of_an_entry, is_wrong_type
from dispatcher.records.redis.keys import Keys
from dispatcher.records.redis.run_scripts.accept import Acceptance, Portion
from dispatcher.records.redis.run_scripts.change import Program, Push, fields_of
from dispatcher.records.redis.run_scripts.prepared import Endings, plain
from dispatcher.records.redis.run_scripts.speculation import PLACES, Likes
from dispatcher.records.redis.scripts import script
from dispatcher.runs import indexes, transitions
from dispatcher.runs.change import Change, Ring, ring_for
from dispatcher.runs.outcome import ExitCall, Outcome
from dispatcher.runs.record import FIXED, Record
from dispatcher.runs.states import TERMINAL, State
from dispatcher.support.failpoints import failpoint
from dispatcher.support.ids import check_run_id, is_run_id
from dispatcher.support.parsing import LONGEST_NAME, number_of, run_id_of, whole_of

#: How many records a search reads at a time.
_PAGE = 100

# In the place of a record that can't be read.
_NO_RECORD: Any = object()


class RedisRuns(Runs):
    """Records in hashes, indexes in sorted sets."""

    def __init__(
        self, client: Client, keys: Keys, *, bell: Bell | None, clock_offset: float, left_out: LeftOut
    ) -> None:
        self._left_out = left_out
        self._client = client
        self._keys = keys
        self._bell = bell
        self._offset = clock_offset
        self._acceptance = Acceptance(keys, clock_offset=clock_offset)
        self._likes = Likes(keys)
        self._endings = Endings(keys)
        self._claims = Claims(client, keys, clock_offset=clock_offset)
        self._taken: Record | None = None  # the last one taken by a guess, as it stood then

    def create(self, records: Sequence[Record], *, timeout: float = 15.0) -> list[Record]:
        failpoint("submit.shared")
        if len(records) > 1:
            hold(self._client, self._keys, {name for record in records for name in record.spec.blobs}, within=timeout)
        portions: list[Portion] = []

        def commands() -> Iterator[Command]:
            for portion in self._acceptance.portions(records, self._push):
                portions.append(portion)
                yield self._acceptance.command(portion)

        replies = self._client.run_many(commands(), within=timeout, submits=True, portion=1)
        self._client.accepted(replies, may_exist=any(isinstance(reply, list) and reply[0] != b"" for reply in replies))
        if missing := dict.fromkeys(digest for reply in replies for digest in self._acceptance.missing(reply)):
            raise LookupError(*missing)
        found = [
            stored
            for portion, reply in zip(portions, replies, strict=True)
            for stored in portion.stored(reply, self._earlier)
        ]
        accepted = {stored.id for stored in found}
        failpoint("submit.stored")
        rung_elsewhere = (record for portion in portions if not portion.kind.list for record in portion.records)
        self._publish([ring_for(record) for record in rung_elsewhere if record.id in accepted])
        clashes = (
            conflict(record, earlier.id)
            for record, earlier in zip(records, found, strict=True)
            if record.spec_digest != earlier.spec_digest
        )
        if (clash := next(clashes, None)) is not None:
            raise clash
        return found

    def get(self, run_id: str) -> tuple[Record, float]:
        fields, now = self._fields(run_id)
        return self._record(run_id, fields), now

    def version(self, run_id: str) -> int | None:
        found = self._client.one("HGET", self._keys.run(run_id), "version")
        with suppress(Malformed):
            return None if found is None else whole_of(found, "version")
        return None

    def used(self, run_id: str, day: int) -> str:
        noted = self._client.one("HGET", self._keys.used(day), run_id)
        return "" if noted is None else noted.decode()

    def look(self, run_id: str, like: str) -> Look:
        check_run_id(run_id)  # it stands in steps that are prepared, before any key is made of it
        if (guess := self._likes.guess(run_id, like)) is not None:
            return guess
        fields, now = self._fields(run_id)
        self._likes.read(run_id, like, fields.get("kind", b"").decode(errors="replace"))
        return Look(self._record(run_id, fields), now)

    def take(self, look: Look, begin: Begin, *, owner: str, holder: str) -> Record:
        run_id = look.record.id
        if not look.kind:
            taken = super().take(look, begin, owner=owner, holder=holder)
            self._likes.learn(look.record)
            return taken
        if not plain(holder):
            raise WrongGuess(Look(*self.get(run_id)))
        steps, after = self._likes.claim(look, begin, owner=owner, holder=holder)
        arguments = self._offset, look.kind, steps, *PLACES, *FIXED
        time, accepted_at, found = self._client.run(script("guessed"), [self._keys.run(run_id)], *arguments)
        if accepted_at is not None:
            own = dict(zip(FIXED, found, strict=True)) | {"id": run_id.encode()}
            at = partial(number_of, accepted_at, "record: created_at")
            self._taken = self._read(run_id, lambda: after.but(started_at=float(time)).accepted(at(), own))
            return self._taken
        if not found:
            raise UnknownRun(f"no run {run_id}, or its retention is over")
        fields = fields_of(found)
        stored = self._record(run_id, fields)
        if stored.change == after.change:  # the first answer was lost
            return stored
        if (stored.version, fields.get("kind")) != (1, look.kind.encode()):  # else its spec was used before
            self._likes.forget(look.kind)
        raise WrongGuess(Look(stored, float(time)))

    def finish(self, record: Record, now: float, *, outcome: Outcome | None, exit_call: ExitCall | None) -> Record:
        end = self._endings.of(record, now, outcome, exit_call) if record is self._taken else None
        if end is None:
            return super().finish(record, now, outcome=outcome, exit_call=exit_call)
        steps, after = end
        stored, now = self._apply(after, record.version, steps)
        if stored is None:
            raise UnknownRun(f"run {record.id}: its retention is over")
        if stored is after:
            return after
        step = partial(transitions.finish, epoch=record.epoch, outcome=outcome, exit_call=exit_call)
        return self.update(record.id, step, record=stored, now=now)

    def get_many(self, run_ids: Sequence[str]) -> list[Record | None]:
        return [None if record is _NO_RECORD else record for record in self._stored(run_ids)]

    def _stored(self, run_ids: Sequence[str]) -> list[Any]:
        """As :meth:`get_many`, but :data:`_NO_RECORD` for what is stored and is no record."""
        ids = [run_id for run_id in run_ids if is_run_id(run_id)]
        replies = self._client.call([("HGETALL", self._keys.run(run_id)) for run_id in ids])
        self._client.accepted([reply for reply in replies if not is_wrong_type(reply)])
        records: dict[str, Any] = {}
        for run_id, reply in zip(ids, replies, strict=True):
            try:
                fields = reply if is_wrong_type(reply) else fields_of(reply)
                records[run_id] = self._record(run_id, fields) if fields else None
            except UnreadableRun:
                records[run_id] = _NO_RECORD
        return [records.get(run_id) for run_id in run_ids]

    def claim(
        self, run_id: str, *, attempt: int, holder: str, shard: str, entry: Mapping[str, str], void: str = ""
    ) -> tuple[Record, float]:
        fields, at = self._claims.make(run_id, attempt=attempt, holder=holder, shard=shard, entry=entry, void=void)
        return self._record(run_id, fields), at

    def commit(self, change: Change, *, lease: Lease | None = None, void: str = "") -> tuple[Record | None, float]:
        if change.before is None:
            raise ValueError("a run is accepted by create()")
        push = self._push(change.ring)
        program = Program(self._keys)
        after = program.commit(change, push)
        claim = self._claims.heeded(change, void)
        steps, apart = program.told(after.id)
        stored, now = self._apply(after, change.before.version, steps, *apart, lease=lease, claim=claim)
        if stored is after and push is None and change.ring is not None:
            failpoint("bell.due", after.id)
            self._publish([change.ring])
        return stored, now

    def _apply(
        self,
        after: Record,
        version: int,
        steps: bytes,
        *apart: str,
        lease: Lease | None = None,
        claim: tuple[Any, ...] = (),
    ) -> tuple[Record | None, float]:
        """Take steps, with words told ``apart``, if the record still has that version: ``after`` itself, or what stands
        in its place; the time.

        Raises:
            LeasePassed: ``lease`` isn't as given.
            ClaimStands: ``claim`` is the key of a claim, and one stands there other than the one that follows.
            SpecUsed: how far the run's spec was used doesn't allow the steps.
        """
        keys, held = [self._keys.run(after.id)], ("", "") if claim or apart else ()
        if apart:
            claim = claim or ("", "")
        if lease is not None:
            keys.append(self._keys.leases)
            held = lease.name, f"{lease.epoch} {lease.owner}"
        reply = self._client.run(script("commit"), keys, self._offset, version, steps, *held, *claim, *apart)
        now = float(reply[0])
        if len(reply) == 1:
            return after, now
        if reply[1] == b"used":
            raise SpecUsed(spec_used(after.id, reply[2].decode()))
        if reply[1] == b"passed" and lease is not None:
            raise LeasePassed(f"shard {lease.name} has another holder now: epoch {lease.epoch} was passed")
        if reply[1] == b"claimed":
            raise claim_of(after.id, reply[2], now)
        if not reply[1]:
            return None, now
        stored = self._record(after.id, fields_of(reply[1]))
        return after if after.change and stored.change == after.change else stored, now

    def _fields(self, run_id: str) -> tuple[dict[str, bytes], float]:
        """A record as stored, and the server's clock."""
        replies = self._client.call([("TIME",), ("HGETALL", self._keys.run(run_id))])
        now, fields = (reply if is_wrong_type(reply) else self._client.accepted([reply])[0] for reply in replies)
        if not fields:
            raise UnknownRun(f"no run {run_id}, or its retention is over")
        return fields if is_wrong_type(fields) else fields_of(fields), self._time(now)

    def _record(self, run_id: str, fields: Any) -> Record:
        """The record that was stored as these fields, or as another type than a hash.

        Raises:
            UnreadableRun: they are none, or another run's.
        """

        def read() -> Record:
            if is_wrong_type(fields):
                raise Malformed("record: isn't a hash")
            record = Record.from_fields(fields)
            if record.id != run_id:
                raise Malformed("record: is another run's")
            return record

        return self._read(run_id, read)

    def _read(self, run_id: str, read: Callable[[], Record]) -> Record:
        record = self._left_out.read(f"run {run_id}", read)
        if record is None:
            raise UnreadableRun(f"run {run_id}: what is stored of it can't be read; nobody runs it, nor changes it")
        return record

    def _earlier(self, record: Record, fields: dict[str, bytes]) -> Record:
        """The record that was there before one was accepted: its own, or that of its key."""
        named = fields.get("id", b"").decode(errors="replace")
        try:
            return self._record(named, fields)
        except UnreadableRun:  # as one with another spec: the key, or the id, can't be used
            return record.but(id=named or "?", spec_digest="")

    def find(self, query: Query, *, limit: int | None = 100) -> Iterator[Record]:
        left = limit if limit is not None else sys.maxsize
        for ids in self._pages(self._narrowest(query), since=query.since):
            for record in self.get_many(ids):
                if left <= 0:
                    return
                if record is not None and query.matches(record):
                    left -= 1
                    yield record

    def members(self, index: str, *, until: float | None = None, limit: int = 1000) -> list[tuple[str, float]]:
        most = "+inf" if until is None else repr(until)
        key = self._keys.index(index)
        flat = self._client.one("ZRANGEBYSCORE", key, "-inf", most, "WITHSCORES", "LIMIT", 0, limit)
        found: list[tuple[str, float]] = []
        strange: list[bytes] = []
        for raw, score in zip(flat[0::2], flat[1::2], strict=True):
            name = self._left_out.read(f"member {raw[:LONGEST_NAME]!r} of {index}", partial(run_id_of, raw))
            if name is None:
                strange.append(raw)
            else:
                found.append((name, float(score)))
        if strange:
            with suppress(ServerUnavailable):  # who may only read leaves that to others
                self._client.one("ZREM", key, *strange)
        return found

    def leave(self, index: str, run_ids: Collection[str], *, unreadable: bool = False) -> None:
        if run_ids:
            keys = [key for run_id in run_ids for key in self._keys.of_run(run_id)] if unreadable else []
            later = [("EXPIRE", key, int(UNREADABLE)) for key in keys]
            self._client.many([("ZREM", self._keys.index(index), *run_ids), *later])

    def count(self, index: str) -> int:
        return int(self._client.one("ZCARD", self._keys.index(index)))

    def now(self) -> float:
        return self._time(self._client.one("TIME"))

    def purge(self, *, limit: int = 1000) -> int:
        now = self.now()
        due = [run_id for run_id, _ in self.members(indexes.EXPIRING, until=now, limit=limit)]
        records = dict(zip(due, self._stored(due), strict=True))
        unreadable = [run_id for run_id, record in records.items() if record is _NO_RECORD]
        gone = [run_id for run_id, record in records.items() if record is None] + unreadable
        over: list[Record] = []
        early: list[Record] = []
        for record in records.values():
            if record is not None and record is not _NO_RECORD:
                (over if _expires(record) <= now else early).append(record)
        commands = [self._purge_of(record) for record in over]
        removed = self._client.accepted([one for one in self._client.run_many(commands) if not is_of_an_entry(one)])
        self._client.many([*(("DEL", *self._keys.of_run(run_id)) for run_id in unreadable), *self._corrected(early)])
        if strange := [*gone, *(record.id for record in over if record.unplaceable)]:
            self._sweep(strange)
        failpoint("purge.trimming")
        # Entries of the stream carry the server's own time in milliseconds.
        self._client.one("XTRIM", self._keys.all_events, "MINID", max(int((now - EVENTS_KEPT) * 1000), 0))
        return len(gone) + sum(map(int, removed))

    def _corrected(self, early: Sequence[Record]) -> Iterator[Command]:
        """The commands that put runs where they stand in the index of ends, or take them from it."""
        key = self._keys.index(indexes.EXPIRING)
        for record in early:
            at = _expires(record)
            yield ("ZREM", key, record.id) if at == math.inf else ("ZADD", key, "XX", repr(at), record.id)

    def _push(self, ring: Ring | None) -> Push | None:
        if ring is None or self._bell is None:
            return None
        message = self._bell.message(ring)
        return None if message is None else (*message, ring.first)

    def _publish(self, rings: list[Ring]) -> None:
        if self._bell is not None and rings:
            self._bell.publish(rings)

    def _narrowest(self, query: Query) -> str:
        """Of the indexes that hold all that is asked for, the one with the fewest runs."""
        fitting = [indexes.ALL]
        if query.state is not None:
            open_ = [] if query.state is State.UNKNOWN else [indexes.OPEN]
            fitting += [indexes.by_state(query.state)] if query.state in TERMINAL else open_
        if query.label is not None:
            fitting.append(indexes.by_label(query.label))
        if query.flow is not None:
            fitting.append(indexes.by_flow(query.flow))
        if query.tag is not None:
            fitting.append(indexes.by_tag(query.tag))
        sizes = self._client.many([("ZCARD", self._keys.index(index)) for index in fitting])
        return min(zip(sizes, fitting, strict=True))[1]

    def _pages(self, index: str, *, since: float | None) -> Iterator[list[str]]:
        """Ids of an index, newest first. Pages go by score, so that new runs don't shift them."""
        least = "-inf" if since is None else repr(since)
        most, skip = "+inf", 0
        while True:
            flat = self._client.one(
                "ZREVRANGEBYSCORE", self._keys.index(index), most, least, "WITHSCORES", "LIMIT", skip, _PAGE
            )
            scores = flat[1::2]
            if scores:
                yield [name for raw in flat[0::2] if is_run_id(name := raw.decode(errors="replace"))]
            if len(scores) < _PAGE:
                return
            last = scores[-1]
            skip = scores.count(last) + (skip if last == scores[0] and last.decode() == most else 0)
            most = last.decode()

    def _purge_of(self, record: Record) -> Command:
        keys = self._keys
        own, held_by = keys.of_run(record.id), map(keys.index, indexes.placement(record))
        return script("purge").command(own, record.version, record.id, keys.idempotency(record.key), *held_by)

    def _sweep(self, run_ids: Sequence[str]) -> None:
        """Take runs from every index: the server dropped their records, which would have said from which."""
        cursor = b"0"
        while True:
            cursor, names = self._client.one("SCAN", cursor, "MATCH", f"{self._keys.index_prefix}*", "COUNT", 1000)
            self._client.many([("ZREM", name, *run_ids) for name in names])
            if cursor == b"0":
                return

    def _time(self, reply: Sequence[bytes]) -> float:
        return int(reply[0]) + int(reply[1]) / 1e6 + self._offset


def _expires(record: Record) -> float:
    """When a run's retention is over; never, while it is open, or something that it has left isn't gone."""
    at = record.expires_at if record.foreign else indexes.placement(record).get(indexes.EXPIRING)
    return math.inf if at is None else at
