"""Records of runs: one suite for every implementation."""

from __future__ import annotations

import threading
import time
from functools import partial

import pytest

from dispatcher.errors import IdempotencyConflict, Refused, UnknownRun
from dispatcher.records.base import Records
from dispatcher.records.query import Query
from dispatcher.runs import infrastructure, transitions
from dispatcher.runs.change import CALL_ON_EXIT, EXECUTE, Change
from dispatcher.runs.events import EventKind
from dispatcher.runs.indexes import ALL, DUE, EXPIRING, OPEN, by_label, by_state, owned, waiting
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.states import Cause, State
from tests.conformance.conftest import Store
from tests.conformance.specs import accept, cancel, ended, finish, make, start


def test_an_accepted_run_is_the_transition_s_result(records: Records) -> None:
    before = time.time()
    record = make(labels=("gpu",), tags=["t"], start_within=60)
    [accepted] = records.runs.create([record])
    expected = transitions.create(record, accepted.created_at).after.but(version=1)
    assert accepted == expected
    stored, now = records.runs.get(record.id)
    assert stored == accepted
    assert before - 1 < accepted.created_at <= now < time.time() + 1


def test_many_runs_are_accepted_in_order_with_doorbells_and_queues(store: Store) -> None:
    records = store.records
    made = [make(labels=("a",) if n % 2 else ()) for n in range(600)]
    accepted = records.runs.create(made)
    assert [record.id for record in accepted] == [record.id for record in made]
    assert [ring.run_id for ring in store.rings] == [record.id for record in made]
    assert set(records.queues.known()) == {"local", "local:a"}
    assert records.runs.count(ALL) == records.runs.count(OPEN) == 600
    assert records.runs.count(waiting("local:a")) == 300


def test_accepting_no_runs(records: Records) -> None:
    assert records.runs.create([]) == []


def test_accepting_twice_changes_nothing(store: Store) -> None:
    records, record = store.records, make()
    [first] = records.runs.create([record])
    running = start(records, first)
    assert records.runs.create([record]) == [running]
    events, _ = records.events.of(record.id)
    assert [event.kind for event in events].count(EventKind.QUEUED) == 1


def test_a_used_key_returns_the_earlier_run(records: Records) -> None:
    first = accept(records, key="k")
    started = start(records, first)
    assert records.runs.create([make(key="k")]) == [started]
    assert records.runs.count(ALL) == 1


def test_a_key_with_another_spec_is_a_conflict_and_the_others_are_accepted(records: Records) -> None:
    first = accept(records, key="k", digest="one")
    others = [make(), make(key="k", digest="two"), make()]
    with pytest.raises(IdempotencyConflict, match=rf"'k' belongs to run {first.id}"):
        records.runs.create(others)
    assert [record is not None for record in records.runs.get_many([r.id for r in others])] == [True, False, True]


def test_a_key_twice_in_one_call(records: Records) -> None:
    first, second = records.runs.create([make(key="k"), make(key="k")])
    assert first == second
    assert records.runs.count(ALL) == 1


def test_a_key_is_free_again_after_retention(store: Store) -> None:
    first = ended(store.records, key="k", digest="one", result_ttl=10)
    later = store.later(11)
    assert later.runs.purge() == 1
    again = accept(later, key="k", digest="two")
    assert again.id != first.id


@pytest.mark.parametrize("more", [0, 1])
def test_with_a_missing_blob_nothing_is_written(records: Records, more: int) -> None:
    stored = records.blobs.share(b"known")
    record = make(blobs=(stored, "absent"))
    with pytest.raises(LookupError) as caught:
        records.runs.create([record, *(make() for _ in range(more))])
    assert caught.value.args == ("absent",)
    assert records.runs.count(ALL) == 0
    assert records.queues.known() == {}


def test_an_unknown_run(records: Records) -> None:
    with pytest.raises(UnknownRun, match="no run nobody"):
        records.runs.get("nobody")
    with pytest.raises(UnknownRun):
        records.runs.update("nobody", transitions.request_cancel)
    assert records.runs.get_many(["nobody"]) == [None]
    assert records.runs.version("nobody") is None


def test_many_records_are_read_in_order(records: Records) -> None:
    first, second = accept(records), accept(records)
    assert records.runs.get_many([second.id, "nobody", first.id]) == [second, None, first]
    assert records.runs.get_many([]) == []


def test_a_change_is_applied_once_and_a_stale_one_is_not(records: Records) -> None:
    record = accept(records)
    _, now = records.runs.get(record.id)
    change = transitions.start_here(record, now, owner="w", holder="p")
    assert change is not None
    marked = Change(before=record, after=change.after.but(change="n1"), events=change.events)
    first, _ = records.runs.commit(marked)
    assert first is not None
    assert (first.version, first.change, first.state) == (2, "n1", State.RUNNING)
    again, _ = records.runs.commit(marked)  # as after a lost reply
    assert again == first
    stale = Change(before=record, after=record.but(state=State.CANCELLED, change="n2"))
    stored, later = records.runs.commit(stale)
    assert stored == first == records.runs.get(record.id)[0]
    assert later >= now
    assert records.runs.version(record.id) == 2
    assert len(records.events.of(record.id)[0]) == 5


def test_a_change_of_a_purged_run(store: Store) -> None:
    record = ended(store.records, result_ttl=10)
    later = store.later(20)
    later.runs.purge()
    assert later.runs.commit(Change(before=record, after=record.but(owner="x")))[0] is None
    with pytest.raises(UnknownRun):
        later.runs.update(record.id, lambda r, now: Change(before=r, after=r.but(owner="x")), record=record)


def test_fields_reset_to_their_default_are_removed(records: Records) -> None:
    record = start(records, accept(records, retries=1))
    assert record.holder == "p1"
    waits = finish(records, record, cause=Cause.USER_ERROR)
    assert (waits.state, waits.holder, waits.started_at) == (State.QUEUED, "", None)
    assert records.runs.get(record.id)[0] == waits


def test_a_stale_epoch_is_refused(records: Records) -> None:
    record = start(records, accept(records))
    taken = records.runs.update(record.id, partial(transitions.adopt, owner="w2"))
    with pytest.raises(Refused, match="epoch 1"):
        finish(records, record)
    assert finish(records, taken).state is State.SUCCEEDED


def test_an_update_with_a_stale_record_reads_again(records: Records) -> None:
    record = accept(records)
    start(records, record)
    with pytest.raises(Refused, match="RUNNING, not waiting"):
        records.runs.update(
            record.id,
            partial(transitions.start_here, owner="w2", holder="p2"),
            record=record,
            now=record.created_at,
        )


def test_one_of_many_concurrent_claims_succeeds(store: Store) -> None:
    record = accept(store.records)
    won: list[str] = []
    opened = [store.another() for _ in range(4)]

    def claim(number: int) -> None:
        try:
            start(opened[number], record, owner=f"w{number}", holder=f"p{number}")
        except Refused:
            return
        won.append(f"p{number}")

    threads = [threading.Thread(target=claim, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.records.runs.get(record.id)[0].holder == won[0]


def test_a_run_moves_through_its_indexes(records: Records) -> None:
    record = accept(records, labels=("gpu",), start_within=30)
    queue = record.spec.route.queue
    assert records.runs.members(waiting(queue)) == [(record.id, record.rung_at)]
    assert records.runs.members(DUE) == [(record.id, record.queued_at + 30)]
    running = start(records, record)
    assert records.runs.count(waiting(queue)) == records.runs.count(DUE) == 0
    assert records.runs.members(owned("w1")) == [(record.id, record.queued_at)]
    done = finish(records, running)
    assert records.runs.count(owned("w1")) == records.runs.count(OPEN) == 0
    assert records.runs.members(by_state(State.SUCCEEDED)) == [(record.id, record.created_at)]
    assert records.runs.members(EXPIRING) == [(record.id, done.expires_at)]
    assert records.runs.count(by_label("gpu")) == 1


def test_members_lowest_first_with_bounds(records: Records) -> None:
    made = records.runs.create([make(start_within=ttl) for ttl in (30, 10, 20)])
    by_due = sorted(made, key=lambda record: record.created_at + (record.spec.options.start_within or 0))
    assert [run_id for run_id, _ in records.runs.members(DUE)] == [record.id for record in by_due]
    assert [run_id for run_id, _ in records.runs.members(DUE, limit=2)] == [record.id for record in by_due[:2]]
    soon = records.runs.now() + 15
    assert [run_id for run_id, _ in records.runs.members(DUE, until=soon)] == [by_due[0].id]


def test_a_claim_notes_its_doorbell_s_time_as_passed(records: Records) -> None:
    first, second = accept(records), accept(records)
    start(records, second)
    assert records.queues.passed() == {"local": second.rung_at}
    start(records, first)
    assert records.queues.passed() == {"local": second.rung_at}  # never back


def test_search_yields_the_newest_runs_first(records: Records) -> None:
    made = records.runs.create([make() for _ in range(250)])
    newest_first = [record.id for record in reversed(made)]
    assert [record.id for record in records.runs.find(Query(), limit=None)] == newest_first
    assert [record.id for record in records.runs.find(Query())] == newest_first[:100]
    assert [record.id for record in records.runs.find(Query(), limit=7)] == newest_first[:7]
    scored = records.runs.members(ALL, limit=120, skip=5, highest_first=True)
    assert [run_id for run_id, _ in scored] == newest_first[5:125]
    assert scored[0][1] > scored[-1][1]
    since = made[240].created_at
    assert [record.id for record in records.runs.find(Query(since=since))] == newest_first[:10]


def test_search_while_runs_are_added_repeats_and_loses_none(records: Records) -> None:
    made = records.runs.create([make() for _ in range(150)])
    run_ids = []
    for record in records.runs.find(Query(), limit=None):
        run_ids.append(record.id)
        if len(run_ids) % 50 == 1:
            records.runs.create([make() for _ in range(20)])
    assert run_ids == [record.id for record in reversed(made)]


def test_search_by_each_property(records: Records) -> None:
    plain = accept(records, flow="a")
    labelled = accept(records, flow="b", labels=("gpu",))
    tagged = accept(records, flow="b", tags=["nightly"])
    running = start(records, plain)
    cancelled = cancel(records, tagged)
    for query, expected in (
        (Query(state=State.RUNNING), [running]),
        (Query(state=State.QUEUED), [labelled]),
        (Query(state=State.CANCELLED), [cancelled]),
        (Query(state=State.FAILED), []),
        (Query(label="gpu"), [labelled]),
        (Query(tag="nightly"), [cancelled]),
        (Query(flow="b"), [cancelled, labelled]),
        (Query(flow="b", label="gpu", state=State.QUEUED), [labelled]),
        (Query(flow="a", label="gpu"), []),
    ):
        assert list(records.runs.find(query)) == expected, query


def test_each_applied_change_publishes_its_doorbell(store: Store) -> None:
    records = store.records
    record = accept(records, on_exit=True)
    running = start(records, record)
    dead = Outcome(cause=Cause.WORKER_LOST)
    records.runs.update(record.id, partial(transitions.abandon, epoch=running.epoch, outcome=dead))
    assert [(ring.task, ring.first) for ring in store.rings] == [
        (EXECUTE, False),
        (CALL_ON_EXIT, True),
    ]


def test_purge_removes_only_runs_whose_retention_is_over(store: Store) -> None:
    records = store.records
    short = [ended(records, result_ttl=5, tags=["t"], labels=("x",)) for _ in range(3)]
    long = ended(records, result_ttl=500)
    still_open = accept(records, result_ttl=1)
    assert records.runs.purge() == 0
    later = store.later(60)
    assert later.runs.purge(limit=2) == 2
    assert later.runs.purge() == 1
    assert later.runs.purge() == 0
    assert later.runs.get_many([record.id for record in short]) == [None, None, None]
    assert [record.id for record in later.runs.find(Query())] == [still_open.id, long.id]
    assert later.events.of(short[0].id) == ([], "")


def test_runs_with_unconfirmed_infrastructure_are_not_purged(store: Store) -> None:
    records = store.records
    record = accept(records, backend="fake", result_ttl=1)
    claimed = records.runs.update(record.id, partial(transitions.claim, owner="w"))
    intended = partial(transitions.intend, epoch=claimed.epoch, request={"name": "x"})
    records.runs.update(record.id, intended)
    done = finish(records, claimed, cause=Cause.START_FAILED)
    assert done.leftovers
    later = store.later(10)
    assert later.runs.purge() == 0
    later.runs.update(record.id, partial(infrastructure.torn_down, attempt=1))
    assert later.runs.purge() == 1


def test_times_come_from_the_records_clock(store: Store) -> None:
    record = accept(store.records)
    later = store.later(1000)
    assert 990 < later.runs.now() - record.created_at < 1100
    assert later.runs.get(record.id)[1] > record.created_at + 990
    assert accept(later).created_at > record.created_at + 990


def test_a_record_is_a_value(records: Records) -> None:
    record: Record = accept(records)
    start(records, record)
    assert record.state is State.QUEUED
