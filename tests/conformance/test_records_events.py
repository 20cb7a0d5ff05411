"""Events, durable subscribers and listeners: one suite for every implementation of the records."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from dispatcher.errors import ServerUnavailable
from dispatcher.records.base import Records
from dispatcher.records.effects import EVENTS_KEPT
from dispatcher.records.events import Listener
from dispatcher.runs.events import Event, EventKind
from dispatcher.runs.states import Cause, State
from tests.conformance.conftest import Store
from tests.conformance.specs import accept, cancel, ended, finish, make, start

WAY = [EventKind.QUEUED, EventKind.CLAIMED, EventKind.PROVISIONING, EventKind.PENDING, EventKind.STARTED]


@pytest.fixture
def listener(records: Records) -> Iterator[Listener]:
    """A listener, closed after the test."""
    listener = records.events.listen()
    yield listener
    listener.close()


def heard(listener: Listener, count: int) -> list[tuple[str, Event | None]]:
    """Return the next ``count`` notices; fail if one takes longer than a few seconds."""
    notices: list[tuple[str, Event | None]] = []
    for _ in range(count):
        notice = listener.get(5)
        assert notice is not None, notices
        notices.append(notice)
    return notices


def test_events_of_a_run_behind_a_cursor(records: Records) -> None:
    record = accept(records, labels=("ü",), flow="zähle")
    [queued], cursor = records.events.of(record.id)
    expected = Event(
        run_id=record.id, attempt=1, kind=EventKind.QUEUED, state=State.QUEUED, time=record.created_at, flow="zähle",
        labels=("ü",),
    )  # fmt: skip
    assert queued == expected
    running = start(records, record)
    more, cursor = records.events.of(record.id, after=cursor)
    assert [event.kind for event in more] == WAY[1:]
    assert more[0].data == {"owner": "w1"}
    finish(records, running, cause=Cause.OOM_KILLED)
    [exited], cursor = records.events.of(record.id, after=cursor)
    assert exited.final
    assert exited.data["cause"] == "oom_killed"
    assert records.events.of(record.id, after=cursor) == ([], cursor)
    assert records.events.of("nobody") == ([], "")


def test_waiting_for_an_event(store: Store) -> None:
    record = accept(store.records)
    other = store.another()
    _, cursor = store.records.events.of(record.id)
    timer = threading.Timer(0.2, lambda: start(other, record))
    timer.start()
    begun = time.monotonic()
    events, _ = store.records.events.of(record.id, after=cursor, block=8)
    assert events[0].kind is EventKind.CLAIMED
    assert time.monotonic() - begun < 5
    timer.join()
    assert store.records.events.of(record.id, after="999999999999999", block=0.05)[0] == []


def test_a_new_subscriber_starts_with_the_next_event(records: Records) -> None:
    accept(records)
    assert records.events.take("billing", block=0) == []
    record = accept(records)
    [(position, event)] = records.events.take("billing", block=0)
    assert event.id == f"{record.id}:1:queued"
    records.events.acknowledge("billing", [position])
    assert records.events.take("billing", block=0) == []


def test_unacknowledged_events_come_again_first(store: Store) -> None:
    records = store.records
    records.events.take("billing", block=0)
    run, other = accept(records), accept(records)
    first = records.events.take("billing", block=0, limit=1)
    assert first[0][1].run_id == run.id
    again = store.another()
    assert again.events.take("billing", block=0) == first
    again.events.acknowledge("billing", [first[0][0]])
    assert [event.run_id for _, event in again.events.take("billing", block=0)] == [other.id]


def test_subscribers_are_independent(records: Records) -> None:
    for name in ("a", "b"):
        records.events.take(name, block=0)
    accept(records)
    taken = records.events.take("a", block=0)
    assert len(taken) == 1
    assert records.events.take("b", block=0) == taken
    records.events.forget("a")
    records.events.forget("never there")
    assert records.events.take("a", block=0) == []
    assert records.events.take("b", block=0) == taken


def test_a_subscriber_keeps_its_place_while_it_is_away(store: Store) -> None:
    store.records.events.take("billing", block=0)
    record = ended(store.records)
    later = store.another().events.take("billing", block=0)
    assert [event.kind for _, event in later] == [*WAY, EventKind.EXITED]
    assert {event.run_id for _, event in later} == {record.id}


def test_a_subscriber_waits(store: Store) -> None:
    store.records.events.take("billing", block=0)
    other = store.another()
    timer = threading.Timer(0.2, lambda: accept(other))
    timer.start()
    begun = time.monotonic()
    assert len(store.records.events.take("billing", block=8)) == 1
    assert time.monotonic() - begun < 5
    timer.join()


def test_acknowledging_nothing(records: Records) -> None:
    records.events.acknowledge("nobody", [])
    records.events.acknowledge("nobody", ["1-0" if records.events.__class__.__name__ == "RedisEvents" else "1"])


def test_old_events_are_removed_even_if_taken(store: Store) -> None:
    store.records.events.take("billing", block=0)
    accept(store.records)
    assert len(store.records.events.take("billing", block=0)) == 1
    later = store.later(EVENTS_KEPT + 60)
    later.runs.purge()
    assert later.events.take("billing", block=0) == []
    accept(store.records)
    assert len(later.events.take("billing", block=0)) == 1


def test_events_outlive_the_retention_of_their_run(store: Store) -> None:
    store.records.events.take("billing", block=0)
    ended(store.records, result_ttl=1)
    later = store.later(10)
    assert later.runs.purge() == 1
    assert len(later.events.take("billing", block=0)) == 6


def test_a_listener_receives_notices_of_its_topics(records: Records, listener: Listener) -> None:
    run, other = make(), make()
    listener.watch([run.id])
    records.runs.create([run, other])
    running = start(records, run)
    start(records, other)
    notices = heard(listener, 5)
    assert [(topic, event and event.kind) for topic, event in notices] == [(run.id, kind) for kind in WAY]
    listener.unwatch([run.id])
    listener.watch([other.id])
    finish(records, running)
    finish(records, start(records, other))
    [(topic, event)] = heard(listener, 1)
    assert (topic, event and event.kind) == (other.id, EventKind.EXITED)
    assert listener.get(0.05) is None


def test_an_owner_receives_cancels(records: Records, listener: Listener) -> None:
    listener.watch(["owner:w1"])
    accept(records)
    running = start(records, accept(records))
    cancel(records, running)
    cancel(records, start(records, accept(records), owner="w2"))
    [(topic, event)] = heard(listener, 1)
    assert topic == "owner:w1"
    assert event is not None
    assert (event.run_id, event.kind) == (running.id, EventKind.CANCELLING)
    assert listener.get(0.05) is None


def test_new_queues_are_announced_once(records: Records, listener: Listener) -> None:
    listener.watch(["queues"])
    accept(records, labels=("a",))
    accept(records, labels=("a",))
    accept(records, labels=("b",))
    assert heard(listener, 2) == [("queues", None), ("queues", None)]
    assert listener.get(0.05) is None


def test_watching_again_after_leaving(records: Records, listener: Listener) -> None:
    record = accept(records)
    for _ in range(20):
        listener.watch([record.id, "queues"])
        listener.unwatch([record.id])
    listener.watch([record.id])
    listener.watch([])
    listener.unwatch(["never watched"])
    start(records, record)
    assert [topic for topic, _ in heard(listener, 4)] == [record.id] * 4


def test_many_threads_watch_through_one_listener(records: Records, listener: Listener) -> None:
    made = [make() for _ in range(24)]

    def watch(part: int) -> None:
        for record in made[part::4]:
            listener.watch([record.id])

    threads = [threading.Thread(target=watch, args=[part]) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records.runs.create(made)
    assert {topic for topic, _ in heard(listener, 24)} == {record.id for record in made}


def test_a_closed_listener(records: Records) -> None:
    listener = records.events.listen()
    ends: list[object] = []
    thread = threading.Thread(target=lambda: ends.append(listener.get(30)))
    thread.start()
    listener.close()
    listener.close()
    thread.join(10)
    assert not thread.is_alive()
    with pytest.raises(ServerUnavailable, match="closed"):
        listener.get(1)


def test_closing_the_records_closes_listeners(store: Store) -> None:
    listener = store.records.events.listen()
    store.records.close()
    with pytest.raises(ServerUnavailable, match="closed"):
        listener.get(1)
