"""A run that is claimed without being read: what stands then is what would stand else, however wrong the guess."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from dispatcher.errors import Refused, UnknownRun
from dispatcher.records.base import Records
from dispatcher.records.events import ends_topic
from dispatcher.records.query import Look, WrongGuess
from dispatcher.records.redis import open_redis
from dispatcher.records.redis.keys import Keys
from dispatcher.records.redis.run_scripts.speculation import Likes
from dispatcher.runs import indexes, transitions
from dispatcher.runs.outcome import ExitCall, Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.states import State
from tests.conformance.specs import accept, cancel, ended, finish, make, start

STEP = partial(transitions.start_here, owner="w1", holder="p1")


def claim(records: Records, look: Look, **given: Any) -> Record:
    """What a pool process does with a look."""
    words = {"owner": "w1", "holder": "p1", **given}
    try:
        return records.runs.take(look, transitions.start_here, **words)
    except WrongGuess as wrong:
        found = wrong.look
    assert look.kind
    assert found == Look(records.runs.get(look.record.id)[0], found.now), "nothing was done"
    return records.runs.take(found, transitions.start_here, **words)


def learned(records: Records, like: str = "like", **spec: Any) -> Record:
    """A run claimed in the ordinary way; from now on others are guessed to be like it."""
    record = accept(records, **spec)
    look = records.runs.look(record.id, like)
    assert look.kind == ""
    return claim(records, look)


def guessed(records: Records, record: Record, like: str = "like") -> Look:
    """A look at a run; a guess, where the records make any."""
    look = records.runs.look(record.id, like)
    assert (look.record.id, look.record.state) == (record.id, State.QUEUED)
    return look


def same(record: Record) -> dict[str, Any]:
    """What two runs of a kind have in common: all but ids, times and nonces."""
    own = {"id", "spec_bytes", "created_at", "queued_at", "rung_at", "started_at", "change", "_spec", "_verified"}
    return {name: value for name, value in record.__dict__.items() if name not in own}


@pytest.mark.parametrize("spec", [{}, {"labels": ("ü", "b"), "tags": ["t"], "on_exit": True}], ids=["plain", "rich"])
def test_a_guess_comes_to_the_same(records: Records, spec: dict[str, Any]) -> None:
    first, record = learned(records, **spec), accept(records, **spec)
    after = claim(records, guessed(records, record))
    assert same(after) == same(first)
    assert (after.spec_bytes, after.created_at) == (record.spec_bytes, record.created_at)
    assert records.runs.get(record.id)[0] == after
    assert record.created_at < (after.started_at or 0.0) <= records.runs.now()
    assert records.events.of(after.id)[0][-1].time == after.started_at
    facts = [[replace(event, run_id="", time=0.0) for event in records.events.of(one.id)[0]] for one in (first, after)]
    assert facts[0] == facts[1]
    owned = dict(records.runs.members(indexes.owned("w1")))
    assert owned == {first.id: first.queued_at, after.id: after.queued_at}
    assert records.runs.count(indexes.waiting(record.spec.route.queue)) == 0
    assert finish(records, after).state is State.SUCCEEDED


@pytest.mark.parametrize("keys", [("k1", ""), ("", "k1"), ("k1", "k2")])
def test_an_idempotency_key_is_each_runs_own(records: Records, keys: tuple[str, str]) -> None:
    learned(records, key=keys[0])
    record = accept(records, key=keys[1])
    after = claim(records, guessed(records, record))
    assert after.key == keys[1]
    assert finish(records, after) == records.runs.get(record.id)[0]


def test_one_round_trip(server_url: str) -> None:
    """What it is for: the records guess, and are right."""
    records = open_redis(server_url)
    try:
        learned(records)
        record = accept(records)
        look = guessed(records, record)
        assert look.kind
        assert look.record.spec_bytes != record.spec_bytes
        claim(records, look)
        assert guessed(records, accept(records)).kind == look.kind, "the guess was right"
    finally:
        records.close()


@pytest.mark.parametrize(
    "other",
    [{"on_exit": True}, {"labels": ("x",)}, {"flow": "another"}, {"start_within": 60}, {"backend": "remote"}],
    ids=lambda other: next(iter(other)),
)
def test_one_of_another_kind(records: Records, other: dict[str, Any]) -> None:
    """A doorbell may tell anything: what is claimed is the run as it stands."""
    learned(records)
    record = accept(records, **other)
    after = claim(records, guessed(records, record))
    expected = STEP(record, after.started_at or 0.0)
    assert expected is not None
    assert same(after) == same(expected.after.but(version=2))
    assert after.exit_call is (ExitCall.WAITING if record.spec.on_exit else ExitCall.NONE)
    assert after.spec == record.spec
    assert indexes.placement(after) == indexes.placement(records.runs.get(record.id)[0])
    for queue in ("local", record.spec.route.queue):
        assert records.runs.count(indexes.waiting(queue)) == 0


def test_one_that_is_no_longer_as_it_was_accepted(records: Records) -> None:
    learned(records)
    over, under_way, cancelled, again = (accept(records) for _ in range(4))
    for one in (over, under_way):
        start(records, one, owner="w2", holder="p2")
    finish(records, records.runs.get(over.id)[0])
    cancel(records, cancelled)
    records.runs.update(again.id, transitions.ring_again)
    for one in (over, under_way, cancelled):
        before = records.runs.get(one.id)[0]
        with pytest.raises(Refused, match="not waiting"):
            claim(records, records.runs.look(one.id, "like"))
        assert records.runs.get(one.id)[0] == before
    after = claim(records, records.runs.look(again.id, "like"))
    assert (after.state, after.rings, after.version) == (State.RUNNING, 2, 3)


def test_one_that_is_not_there(records: Records) -> None:
    learned(records)
    with pytest.raises(UnknownRun):
        claim(records, records.runs.look("nobody", "like"))


def test_twice(records: Records) -> None:
    """Two processes with one doorbell: one claims it."""
    learned(records)
    record = accept(records)
    looks = [records.runs.look(record.id, "like") for _ in range(2)]
    after = claim(records, looks[0])
    with pytest.raises(Refused):
        claim(records, looks[1], holder="p2")
    assert records.runs.get(record.id)[0] == after


def test_a_wrong_guess_is_made_once(server_url: str) -> None:
    records = open_redis(server_url)
    try:
        learned(records)
        claim(records, records.runs.look(accept(records, on_exit=True).id, "like"))
        record = accept(records, on_exit=True)
        look = records.runs.look(record.id, "like")
        assert (look.kind, look.record.spec.on_exit) == ("", True), "it is read"
        claim(records, look)
        look = records.runs.look("another", "like")
        assert look.kind
        assert look.record.spec.on_exit, "and learned"
    finally:
        records.close()


class TestLikes:
    @pytest.fixture
    def likes(self) -> Likes:
        return Likes(Keys("i"))

    def learn(self, likes: Likes, record: Record, kind: str = "k") -> None:
        likes.read(record.id, "like", kind)
        likes.learn(record)

    def test_what_is_never_guessed(self, likes: Likes) -> None:
        one = make().but(version=1)
        self.learn(likes, one, kind="")  # accepted by an older release
        for other in (one.but(version=2), one.but(state=State.RUNNING), make(start_within=60).but(version=1)):
            self.learn(likes, other)
        likes.learn(one)  # not the one that was read
        assert likes.guess("r", "like") is None


def test_what_was_read_and_not_taken_teaches_nothing(server_url: str) -> None:
    """A doorbell that lies about a run that isn't served here: it is read, refused, and forgotten."""
    records = open_redis(server_url)
    try:
        records.runs.look(accept(records, labels=("elsewhere",)).id, "like")
        assert records.runs.look(accept(records).id, "like").kind == ""
    finally:
        records.close()


def test_a_notice_of_an_end_tells_the_record(server_url: str) -> None:
    told: list[Record] = []
    records = open_redis(server_url)
    try:
        record = accept(records, labels=("ü",), tags=["t"], key="k")

        def ended_(run_id: str, rest: Any) -> bool:
            told.append(record.later(rest))
            return True

        listener = records.events.listen(ended_)
        listener.watch([ends_topic(record.id)])
        after = finish(records, start(records, record))
        assert listener.get(0.5) is None, "it was told already"
        assert told == [after]
        assert told[0] == records.runs.get(record.id)[0]
        assert told[0].spec is record.spec
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
