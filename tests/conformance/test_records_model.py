"""Random histories of runs, in memory and on a real server; the invariants hold after every step.

100,000 steps in memory, 10,000 on a server, the same ones each time. ``CHAOS=long`` does ten times as many.
``RECORDS_SEED`` chooses others, ``RECORDS_STEPS`` their number on each.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import pytest
import redis
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from dispatcher.errors import IdempotencyConflict, Refused
from dispatcher.records.base import Records
from dispatcher.records.effects import UNUSED_BLOB
from dispatcher.records.logs import Line
from dispatcher.records.memory.runs import MemoryRuns
from dispatcher.records.runs import Transition
from dispatcher.runs import infrastructure, transitions
from dispatcher.runs.change import Change, event
from dispatcher.runs.events import EventKind
from dispatcher.runs.indexes import ALL, placement
from dispatcher.runs.outcome import ExitCall, Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.states import HELD, Cause, State
from tests.chaos.figures import Figures
from tests.conformance.conftest import Store
from tests.conformance.specs import make
from tests.conftest import Server

LONG = 10 if os.environ.get("CHAOS") == "long" else 1
STEPS = {kind: int(os.environ.get("RECORDS_STEPS", n * LONG)) for kind, n in (("memory", 100_000), ("redis", 10_000))}
SEED = int(os.environ.get("RECORDS_SEED", "1"))

#: Histories for each seed, and steps of each: long ones make the engine slow, short ones find little.
EXAMPLES = 250
LENGTH = 40

CAUSES = (None, Cause.USER_ERROR, Cause.EVICTED, Cause.OOM_KILLED, Cause.DEADLINE, Cause.WORKER_LOST)

#: Transitions that name an epoch.
FENCED: dict[str, Callable[[int, Outcome], Transition]] = {
    "intend": lambda epoch, _: partial(transitions.intend, epoch=epoch, request={"shard": "shard2"}),
    "created": lambda epoch, _: partial(transitions.created, epoch=epoch, handle={"uid": "u"}, owner="shard1"),
    "settle": lambda epoch, outcome: partial(transitions.settle, epoch=epoch, outcome=outcome),
    "finish": lambda epoch, outcome: partial(transitions.finish, epoch=epoch, outcome=outcome),
    "called": lambda epoch, outcome: partial(
        transitions.finish, epoch=epoch, outcome=outcome, exit_call=ExitCall.CALLED
    ),
    "abandon": lambda epoch, outcome: partial(transitions.abandon, epoch=epoch, outcome=outcome),
    "release": lambda epoch, _: partial(transitions.release, epoch=epoch),
}

#: Transitions without an epoch, of the record as the actor last read it.
OTHERS: dict[str, Callable[[Record, str], Transition]] = {
    "claim": lambda _, who: partial(transitions.claim, owner=who),
    "start_here": lambda _, who: partial(transitions.start_here, owner=who, holder=f"p-{who}"),
    "claim_attempt": lambda record, who: partial(transitions.claim_attempt, attempt=record.attempt, holder=f"c-{who}"),
    "begin_exit": lambda _, who: partial(transitions.begin_exit, owner=who, holder=f"x-{who}"),
    "cancel": lambda *_: transitions.request_cancel,
    "lose": lambda record, _: partial(transitions.lose, owner=record.owner or "w1"),
    "adopt": lambda _, who: partial(transitions.adopt, owner=who),
    "ring_again": lambda *_: transitions.ring_again,
    "lost_sight": lambda *_: partial(infrastructure.observe, visible=False, cause=Cause.UNSCHEDULABLE),
    "sight": lambda *_: partial(infrastructure.observe, visible=True),
    "torn_down": lambda record, _: partial(infrastructure.torn_down, attempt=max(record.attempt - 1, 1)),
    "tick": lambda *_: transitions.tick,
}

numbers = st.integers(0, 50)
causes = st.sampled_from(CAUSES)
actors = st.sampled_from(["w1", "w2", "w3"])


class Histories(RuleBasedStateMachine):
    """Runs are accepted, changed by any actor at any time, under current and old epochs, and purged.

    ``done`` counts the steps after which every invariant held.
    """

    done: ClassVar[Counter[str]] = Counter()

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._begun = False
        self.store = store
        self.records: Records = store.records
        self.ahead = 0.0
        self.known: dict[str, Record] = {}
        self.indexes: set[str] = {ALL}
        self.blob = self.records.blobs.share(b"flow")

    def teardown(self) -> None:
        try:
            self._end_all()
            self._nothing_is_left()
        finally:
            self.store.close()

    @rule(
        retries=st.integers(0, 2),
        on_exit=st.booleans(),
        within=st.sampled_from([None, 5, 500]),
        labels=st.sampled_from([(), ("a",), ("a", "b")]),
        key=st.sampled_from(["", "", "k1", "k2"]),
        digest=st.sampled_from(["d1", "d2"]),
    )
    def accept(self, **spec: Any) -> None:
        options = {"start_within": spec.pop("within"), "retries": spec.pop("retries"), "result_ttl": 1000}
        record = make(**spec, **options, tags=["t"], blobs=(self.blob,))
        earlier = next((r for r in self.known.values() if record.key and r.key == record.key), None)
        try:
            [stored] = self._create(record)
        except IdempotencyConflict:
            assert earlier is not None
            assert earlier.spec_digest != record.spec_digest
            return
        assert stored.id == (earlier.id if earlier else record.id)
        if earlier is None:
            assert self.records.runs.create([record]) == [stored]  # as after a lost reply
        self._note(stored)

    @precondition(lambda self: self.known)
    @rule(number=numbers, name=st.sampled_from(sorted(FENCED)), cause=causes, behind=st.integers(0, 1))
    def act_under_an_epoch(self, number: int, name: str, cause: Cause | None, behind: int) -> None:
        record = self._pick(number)
        outcome = Outcome(cause=cause, message="m")
        changed = self._update(record, FENCED[name](record.epoch - behind, outcome))
        assert not (changed and behind), f"{name} under a passed epoch changed the record"

    @precondition(lambda self: self.known)
    @rule(number=numbers, name=st.sampled_from(sorted(OTHERS)), who=actors)
    def act(self, number: int, name: str, who: str) -> None:
        record = self._pick(number)
        self._update(record, OTHERS[name](record, who))

    @precondition(lambda self: self.known)
    @rule(number=numbers, name=st.sampled_from(sorted(OTHERS)), who=actors)
    def act_and_lose_the_reply(self, number: int, name: str, who: str) -> None:
        record, now = self.records.runs.get(self._pick(number).id)
        change = self._change(record, OTHERS[name](record, who), now)
        if change is not None:
            first, _ = self.records.runs.commit(change)
            again, _ = self.records.runs.commit(change)
            assert first is not None
            assert first == again == change.after.but(version=record.version + 1)
            self._note(first)

    @precondition(lambda self: self.known)
    @rule(number=numbers, name=st.sampled_from(sorted(OTHERS)), first=actors, second=actors)
    def two_act_at_once(self, number: int, name: str, first: str, second: str) -> None:
        record, now = self.records.runs.get(self._pick(number).id)
        late = self._change(record, OTHERS[name](record, second), now)
        if self._update(record, OTHERS[name](record, first)) and late is not None:
            stored, _ = self.records.runs.commit(late)
            assert stored == self.known[record.id], "a change of a passed version was applied"

    @precondition(lambda self: self.known)
    @rule(number=numbers, text=st.text(max_size=5))
    def write(self, number: int, text: str) -> None:
        record = self._pick(number)
        self.records.logs.append(record.id, [Line(attempt=1, number=1, time=0.0, stream="log", text=text)])
        self.records.blobs.own(record.id, "result", text.encode())

    @rule(seconds=st.sampled_from([3.0, 60.0, 600.0]))
    def time_passes(self, seconds: float) -> None:
        self.ahead += seconds
        self.records = self.store.later(seconds if self.store.kind == "memory" else self.ahead)

    @rule()
    def forget(self) -> None:
        self.records.runs.purge()
        self._forget_purged()

    @invariant()
    def records_are_as_last_seen(self) -> None:
        stored = self.records.runs.get_many(list(self.known))
        assert stored == list(self.known.values())

    @invariant()
    def indexes_are_the_placement(self) -> None:
        expected: dict[str, dict[str, float]] = defaultdict(dict)
        for record in self.known.values():
            for index, score in placement(record).items():
                expected[index][record.id] = score
        self.indexes |= set(expected)
        for index in self.indexes:
            assert dict(self.records.runs.members(index)) == expected[index], index

    @invariant()
    def each_attempt_exits_once(self) -> None:
        for record in self.known.values():
            events, _ = self.records.events.of(record.id)
            exits = [event for event in events if event.kind is EventKind.EXITED]
            ended = [*range(1, record.attempt), *([record.attempt] if record.terminal else [])]
            assert [event.attempt for event in exits] == ended
            assert [event.final for event in exits].count(True) == record.terminal

    @invariant()
    def every_owner_is_watched(self) -> None:
        owners = {record.owner for record in self.known.values() if record.owner and "/" not in record.owner}
        assert owners <= self.records.workers.beats().keys()

    @invariant()
    def one_more_step(self) -> None:
        self.done[self.store.kind] += self._begun  # invariants are looked at once before the first step
        self._begun = True

    def _create(self, record: Record) -> list[Record]:
        """Accept a run; share its code again if no run used it for an hour, as a client does."""
        try:
            return self.records.runs.create([record])
        except LookupError:
            if self.ahead < UNUSED_BLOB or any(not record.terminal for record in self.known.values()):
                raise
            assert self.records.blobs.share(b"flow") == self.blob
            return self.records.runs.create([record])

    def _pick(self, number: int) -> Record:
        return list(self.known.values())[number % len(self.known)]

    def _change(self, record: Record, step: Transition, now: float) -> Change | None:
        try:
            change = step(record, now)
        except Refused:
            return None
        if change is None:
            return None
        marked = change.after.but(change=f"n{record.version}-{change.after.owner}-{id(change)}")
        return Change(before=change.before, after=marked, events=change.events, ring=change.ring)

    def _update(self, record: Record, step: Transition) -> bool:
        try:
            stored = self.records.runs.update(record.id, step)
        except Refused:
            stored = self.records.runs.get(record.id)[0]
            assert stored == self.known[record.id]
            return False
        return self._note(stored)

    def _note(self, stored: Record) -> bool:
        """Compare a record with the last one known; return True if it changed."""
        before = self.known.get(stored.id)
        self.known[stored.id] = stored
        if before is None or stored == before:
            return False
        assert stored.version == before.version + 1
        assert stored.epoch >= before.epoch
        if before.terminal:
            names = ("state", "outcome", "ended_at", "attempt", "epoch", "exit_call")
            assert [getattr(stored, name) for name in names] == [getattr(before, name) for name in names]
        return True

    def _forget_purged(self) -> None:
        now = self.records.runs.now()
        for record, stored in zip(list(self.known.values()), self.records.runs.get_many(list(self.known)), strict=True):
            if stored is None:
                assert record.expires_at is not None
                assert record.expires_at <= now
                assert not record.leftovers
                assert self.records.events.of(record.id)[0] == []
                del self.known[record.id]

    def _end_all(self) -> None:
        for record in list(self.known.values()):
            self._update(record, transitions.request_cancel)
            current = self.known[record.id]
            if current.state in HELD:
                self._update(current, partial(transitions.finish, epoch=current.epoch, outcome=Outcome()))
            for left in self.known[record.id].leftovers:
                self._update(record, partial(infrastructure.torn_down, attempt=left["attempt"]))
            assert self.known[record.id].terminal
        self.time_passes(5000.0)
        assert self.records.runs.purge(limit=10_000) == len(self.known)
        self._forget_purged()
        assert not self.known

    def _nothing_is_left(self) -> None:
        self.indexes_are_the_placement()
        if isinstance(self.records.runs, MemoryRuns):
            self.time_passes(UNUSED_BLOB)
            assert self.records.runs.leftovers() == {}
            return
        with redis.Redis.from_url(self.store.url, decode_responses=True) as client:
            names = {key.partition("::")[2]: key for key in client.scan_iter("*::*")}
            blob = names.pop(f"blob:{self.blob}")
            assert client.hget(blob, "refs") in {None, "0"}
            assert 0 < client.ttl(blob) <= UNUSED_BLOB
            used = {name for name in names if name.startswith("engine:used:")}  # until the signatures expire
            assert set(names) - used <= {"events", "queues", "routes", "passed", "beats"}


def histories(kind: str, server: Server | None, figures: Figures) -> None:
    """Try histories on records of ``kind``, seed after seed, until enough steps were done."""

    def machine() -> Histories:
        if server is not None:
            server.flush()
        return Histories(Store(kind, server.url if server else ""))

    Histories.done[kind] = 0
    for batch in range(10 * STEPS[kind] // (EXAMPLES * LENGTH) + 10):
        left = STEPS[kind] - Histories.done[kind]
        if left <= 0:
            break
        run_state_machine_as_test(  # it calls what it is given; a class is only its usual case
            seed(SEED + batch)(machine),  # type: ignore[arg-type]
            settings=settings(
                max_examples=min(EXAMPLES, left // LENGTH + 1),
                stateful_step_count=LENGTH,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    figures.say(f"model of the records, {kind}: {Histories.done[kind]:,} steps from seed {SEED}")
    figures.keep(f"steps on {kind}", done=Histories.done[kind], seed=SEED)
    assert Histories.done[kind] >= STEPS[kind]


@pytest.mark.timeout(900 * LONG)
def test_random_histories_in_memory(figures: Figures) -> None:
    histories("memory", None, figures)


@pytest.mark.timeout(900 * LONG)
def test_random_histories_on_a_server(server: Server, figures: Figures) -> None:
    histories("redis", server, figures)


def test_the_model_notices_a_second_exit() -> None:
    machine = Histories(Store("memory", ""))
    machine.accept(retries=0, on_exit=False, within=None, labels=(), key="", digest="d1")
    [record] = machine.known.values()
    exited = event(record, EventKind.EXITED, 0.0, final=True)
    machine.records.runs.commit(Change(before=record, after=record, events=(exited,)))
    with pytest.raises(AssertionError):
        machine.each_attempt_exits_once()


def test_the_model_notices_a_terminal_state_that_changes() -> None:
    machine = Histories(Store("memory", ""))
    machine.accept(retries=0, on_exit=False, within=None, labels=(), key="", digest="d1")
    [record] = machine.known.values()
    machine._update(record, transitions.request_cancel)
    done = machine.known[record.id]
    with pytest.raises(AssertionError):
        machine._update(done, lambda r, now: Change(before=r, after=r.but(state=State.FAILED)))
