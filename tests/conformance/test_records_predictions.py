"""Speculative claims: the result equals that of an ordinary claim, even after a wrong prediction."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from dispatcher.errors import Refused, UnknownRun
from dispatcher.records.base import Records
from dispatcher.records.events import ends_topic
from dispatcher.records.redis import open_redis
from dispatcher.records.redis.keys import Keys
from dispatcher.records.redis.speculation.claim import ClaimPredictor
from dispatcher.records.snapshot import Snapshot, WrongPrediction
from dispatcher.runs import indexes, transitions
from dispatcher.runs.outcome import ExitCall, Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.states import State
from tests.conformance.specs import accept, cancel, ended, finish, make, start

STEP = partial(transitions.start_here, owner="w1", holder="p1")


def claim(records: Records, snapshot: Snapshot, **options: Any) -> Record:
    """Claim a run as a pool process does."""
    words = {"owner": "w1", "holder": "p1", **options}
    try:
        return records.runs.claim(snapshot, transitions.start_here, **words)
    except WrongPrediction as wrong:
        actual = wrong.snapshot
    assert snapshot.kind
    assert actual == Snapshot(records.runs.get(snapshot.record.id)[0], actual.now), "nothing was done"
    return records.runs.claim(actual, transitions.start_here, **words)


def learned(records: Records, like: str = "like", **spec: Any) -> Record:
    """Claim a run in the ordinary way, from which predictions of others are learned."""
    record = accept(records, **spec)
    snapshot = records.runs.snapshot(record.id, like)
    assert snapshot.kind == ""
    return claim(records, snapshot)


def predicted(records: Records, record: Record, like: str = "like") -> Snapshot:
    """Return a snapshot of a run; a prediction if the records make one."""
    snapshot = records.runs.snapshot(record.id, like)
    assert (snapshot.record.id, snapshot.record.state) == (record.id, State.QUEUED)
    return snapshot


def same(record: Record) -> dict[str, Any]:
    """Return the fields that runs of a kind have in common: all but ids, times and nonces."""
    own = {"id", "spec_bytes", "created_at", "queued_at", "rung_at", "started_at", "change", "_spec", "_verified"}
    return {name: value for name, value in record.__dict__.items() if name not in own}


@pytest.mark.parametrize("spec", [{}, {"labels": ("ü", "b"), "tags": ["t"], "on_exit": True}], ids=["plain", "rich"])
def test_a_speculative_claim_equals_an_ordinary_one(records: Records, spec: dict[str, Any]) -> None:
    first, record = learned(records, **spec), accept(records, **spec)
    after = claim(records, predicted(records, record))
    assert same(after) == same(first)
    assert (after.spec_bytes, after.created_at) == (record.spec_bytes, record.created_at)
    assert records.runs.get(record.id)[0] == after
    assert record.created_at < (after.started_at or 0.0) <= records.runs.now()
    assert records.events.of(after.id)[0][-1].time == after.started_at
    facts = [[replace(event, run_id="", time=0.0) for event in records.events.of(run.id)[0]] for run in (first, after)]
    assert facts[0] == facts[1]
    owned = dict(records.runs.members(indexes.owned("w1")))
    assert owned == {first.id: first.queued_at, after.id: after.queued_at}
    assert records.runs.count(indexes.waiting(record.spec.route.queue)) == 0
    assert finish(records, after).state is State.SUCCEEDED


@pytest.mark.parametrize("keys", [("k1", ""), ("", "k1"), ("k1", "k2")])
def test_an_idempotency_key_is_the_run_s_own(records: Records, keys: tuple[str, str]) -> None:
    learned(records, key=keys[0])
    record = accept(records, key=keys[1])
    after = claim(records, predicted(records, record))
    assert after.key == keys[1]
    assert finish(records, after) == records.runs.get(record.id)[0]


def test_one_round_trip(server_url: str) -> None:
    """A right prediction saves reading the record."""
    records = open_redis(server_url)
    try:
        learned(records)
        record = accept(records)
        snapshot = predicted(records, record)
        assert snapshot.kind
        assert snapshot.record.spec_bytes != record.spec_bytes
        claim(records, snapshot)
        assert predicted(records, accept(records)).kind == snapshot.kind, "the prediction was right"
    finally:
        records.close()


@pytest.mark.parametrize(
    "other",
    [{"on_exit": True}, {"labels": ("x",)}, {"flow": "another"}, {"start_within": 60}, {"backend": "remote"}],
    ids=lambda other: next(iter(other)),
)
def test_a_run_of_another_kind(records: Records, other: dict[str, Any]) -> None:
    """Whatever the doorbell contains, the run is claimed as it is stored."""
    learned(records)
    record = accept(records, **other)
    after = claim(records, predicted(records, record))
    expected = STEP(record, after.started_at or 0.0)
    assert expected is not None
    assert same(after) == same(expected.after.but(version=2))
    assert after.exit_call is (ExitCall.WAITING if record.spec.on_exit else ExitCall.NONE)
    assert after.spec == record.spec
    assert indexes.placement(after) == indexes.placement(records.runs.get(record.id)[0])
    for queue in ("local", record.spec.route.queue):
        assert records.runs.count(indexes.waiting(queue)) == 0


def test_a_run_that_has_changed_since_it_was_accepted(records: Records) -> None:
    learned(records)
    over, under_way, cancelled, again = (accept(records) for _ in range(4))
    for record in (over, under_way):
        start(records, record, owner="w2", holder="p2")
    finish(records, records.runs.get(over.id)[0])
    cancel(records, cancelled)
    records.runs.update(again.id, transitions.ring_again)
    for record in (over, under_way, cancelled):
        before = records.runs.get(record.id)[0]
        with pytest.raises(Refused, match="not waiting"):
            claim(records, records.runs.snapshot(record.id, "like"))
        assert records.runs.get(record.id)[0] == before
    after = claim(records, records.runs.snapshot(again.id, "like"))
    assert (after.state, after.rings, after.version) == (State.RUNNING, 2, 3)


def test_a_missing_run(records: Records) -> None:
    learned(records)
    with pytest.raises(UnknownRun):
        claim(records, records.runs.snapshot("nobody", "like"))


def test_twice(records: Records) -> None:
    """Of two processes with the same doorbell, one claims the run."""
    learned(records)
    record = accept(records)
    snapshots = [records.runs.snapshot(record.id, "like") for _ in range(2)]
    after = claim(records, snapshots[0])
    with pytest.raises(Refused):
        claim(records, snapshots[1], holder="p2")
    assert records.runs.get(record.id)[0] == after


def test_a_wrong_prediction_is_made_once(server_url: str) -> None:
    records = open_redis(server_url)
    try:
        learned(records)
        claim(records, records.runs.snapshot(accept(records, on_exit=True).id, "like"))
        record = accept(records, on_exit=True)
        snapshot = records.runs.snapshot(record.id, "like")
        assert (snapshot.kind, snapshot.record.spec.on_exit) == ("", True), "it is read"
        claim(records, snapshot)
        snapshot = records.runs.snapshot("another", "like")
        assert snapshot.kind
        assert snapshot.record.spec.on_exit, "and learned"
    finally:
        records.close()


class TestClaimPredictor:
    @pytest.fixture
    def predictor(self) -> ClaimPredictor:
        return ClaimPredictor(Keys("i"))

    def learn(self, predictor: ClaimPredictor, record: Record, kind: str = "k") -> None:
        predictor.note_read(record.id, "like", kind)
        predictor.learn(record)

    def test_runs_that_are_never_predicted(self, predictor: ClaimPredictor) -> None:
        record = make().but(version=1)
        self.learn(predictor, record, kind="")  # accepted by an older release
        for other in (record.but(version=2), record.but(state=State.RUNNING), make(start_within=60).but(version=1)):
            self.learn(predictor, other)
        predictor.learn(record)  # not the one that was read
        assert predictor.predict("r", "like") is None


def test_a_run_that_was_read_and_not_claimed_teaches_nothing(server_url: str) -> None:
    """A forged doorbell for a run that isn't served here: the run is read and refused, and nothing is learned."""
    records = open_redis(server_url)
    try:
        records.runs.snapshot(accept(records, labels=("elsewhere",)).id, "like")
        assert records.runs.snapshot(accept(records).id, "like").kind == ""
    finally:
        records.close()


def test_the_notice_of_an_end_contains_the_record(server_url: str) -> None:
    notified: list[Record] = []
    records = open_redis(server_url)
    try:
        record = accept(records, labels=("ü",), tags=["t"], key="k")

        def keep_end(run_id: str, rest: Any) -> bool:
            notified.append(record.later(rest))
            return True

        listener = records.events.listen(keep_end)
        listener.watch([ends_topic(record.id)])
        after = finish(records, start(records, record))
        assert listener.get(0.5) is None, "it was told already"
        assert notified == [after]
        assert notified[0] == records.runs.get(record.id)[0]
        assert notified[0].spec is record.spec
        listener.close()
    finally:
        records.close()


def test_a_large_record_is_read(server_url: str) -> None:
    records = open_redis(server_url)
    try:
        record = accept(records)
        listener = records.events.listen(lambda run_id, rest: True)
        listener.watch([ends_topic(record.id)])
        running = start(records, record)
        outcome = Outcome(message="m" * 5000)
        records.runs.update(record.id, partial(transitions.finish, epoch=running.epoch, outcome=outcome))
        notice = listener.get(5)
        assert notice is not None
        assert notice[0] == ends_topic(record.id)
        listener.close()
        assert ended(records).terminal
    finally:
        records.close()
