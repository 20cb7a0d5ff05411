"""Notices and events that nobody can read: whoever waits goes on at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from dispatcher.client import watcher as listening
from dispatcher.client.watcher import LOOK, Watcher
from dispatcher.records.base import Records
from dispatcher.records.events import ends_topic
from dispatcher.records.redis import open_redis
from dispatcher.records.redis.keys import Keys
from dispatcher.records.redis.listener import MOST_HEARD
from dispatcher.runs.events import Event, Kind
from dispatcher.runs.record import Record
from dispatcher.runs.states import State
from dispatcher.support.ids import new_id
from tests.conformance.specs import accept, ended, finish, start
from tests.waiting import wait_until
from workers.notifications import NEW_QUEUE, NotificationListener


@pytest.fixture
def records(server_url: str) -> Iterator[Records]:
    one = open_redis(server_url)
    yield one
    one.close()


@pytest.fixture
def raw(server_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(server_url) as one:
        yield one


@pytest.fixture
def watcher(records: Records) -> Iterator[Watcher]:
    one = Watcher(records)
    yield one
    one.close()


def end_silently(records: Records, raw: Any, record: Record) -> None:
    """As if the notice of its end had been lost."""
    keys, like = Keys(records.instance), ended(records)
    fields = raw.hgetall(keys.run(like.id))
    raw.hset(keys.run(record.id), mapping={name: fields[name] for name in (b"state", b"ended_at") if name in fields})


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("notice", [b"\xff", b"x", b"1.0\n{", b"1.0\n{}\n={", b"\n\n\n=[", b""])
def test_who_is_told_something_unreadable_looks_soon(
    records: Records, raw: Any, watcher: Watcher, notice: bytes, own: bool
) -> None:
    record = accept(records, run_id=new_id() if own else "")
    with watcher.waiting([record.id]) as waiting:
        end_silently(records, raw, record)
        began = time.monotonic()
        raw.publish(Keys(records.instance).topic(ends_topic(record.id) if own else record.id), notice)
        assert waiting.futures[0].result(timeout=30).state is State.SUCCEEDED
        assert time.monotonic() - began < LOOK / 3


def test_who_waits_for_runs_of_its_own_process_reads_none(records: Records, raw: Any, watcher: Watcher) -> None:
    with watcher.waiting([(first := accept(records, run_id=new_id())).id], [first]) as waiting:
        finish(records, start(records, first))
        waiting.futures[0].result(timeout=30)
    early, late = (accept(records, run_id=new_id()) for _ in range(2))
    lost = accept(records, run_id=new_id())
    topics = raw.pubsub_channels(Keys(records.instance).topic("*"))
    assert len(topics) == 1, "one for all"
    ended = finish(records, start(records, early))
    wait_until(lambda: early.id in watcher._ends._kept, "the notice")
    end_silently(records, raw, lost)  # as if it were still running, for who reads nothing
    raw.delete(Keys(records.instance).run(early.id))
    with watcher.waiting([early.id, late.id, lost.id], [early, late, lost]) as waiting:
        assert waiting.futures[0].result(timeout=0) == ended
        after = finish(records, start(records, late))
        assert waiting.futures[1].result(timeout=30) == after
        assert not waiting.futures[2].done()
        assert raw.pubsub_channels(Keys(records.instance).topic("*")) == topics
        assert waiting.futures[2].result(timeout=4 * LOOK).state is State.SUCCEEDED, "each is read once in a while"


@pytest.mark.parametrize(
    "added", [b'{"state": "?"}', b'{"id": "%s", "state": "?"}', b'{"id": "%s", "state": "RUNNING"}']
)
def test_a_forged_end_is_not_what_a_later_wait_gives(
    records: Records, raw: Any, watcher: Watcher, added: bytes
) -> None:
    """Nobody who may publish makes a wait raise, or end early, by what can't be the end of a run."""
    with watcher.waiting([(first := accept(records, run_id=new_id())).id], [first]) as waiting:
        finish(records, start(records, first))
        waiting.futures[0].result(timeout=30)
    run = accept(records, run_id=new_id())
    tell_end(records, raw, run.id, added.replace(b"%s", run.id.encode()))
    tell_end(records, raw, (behind := new_id()), b'{"id": "%s", "state": "x"}' % behind.encode())
    wait_until(lambda: behind in watcher._ends._kept, "the notices")
    with watcher.waiting([run.id], [run]) as waiting:
        assert not waiting.futures[0].done()
        ended = finish(records, start(records, run))
        assert waiting.futures[0].result(timeout=30) == ended


def tell_end(records: Records, raw: Any, run_id: str, added: bytes) -> None:
    raw.publish(Keys(records.instance).topic(ends_topic(run_id)), b"\n=" + added)


def test_unreadable_notices_make_a_client_read_little(
    records: Records, raw: Any, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "LOOK", 1.0)
    monkeypatch.setattr(listening, "SOON", 0.01)
    with watcher.waiting([(run := accept(records, run_id=new_id())).id], [run]):
        reads = raw.info("commandstats").get("cmdstat_hgetall", {"calls": 0})["calls"]
        until = time.monotonic() + 4

        def flooded() -> bool:
            tell_end(records, raw, run.id, b"{")
            return time.monotonic() > until

        wait_until(flooded, "four looks", timeout=30)
        assert raw.info("commandstats")["cmdstat_hgetall"]["calls"] - reads < 4 * 2 + 2


def test_a_flood_fills_no_memory_and_is_followed_by_a_look(records: Records, raw: Any) -> None:
    listener, topic = records.events.listen(), Keys(records.instance).topic("queues")
    listener.watch(["queues"])
    with raw.pipeline(transaction=False) as pipeline:
        for _ in range(3 * MOST_HEARD):
            pipeline.publish(topic, "")
        pipeline.execute()
    listener.watch(["behind"])  # by then all has come
    heard = list(iter(lambda: listener.get(0.0), None))
    assert heard.count(("queues", None)) == MOST_HEARD
    assert heard[-1] == ("", None)
    assert len(heard) == MOST_HEARD + 1
    raw.publish(topic, "")
    assert listener.get(30.0) == ("queues", None)
    listener.close()


@pytest.mark.parametrize("first", ["waited", "heard", "read"])
def test_a_run_that_has_ended_is_waited_for_again(records: Records, watcher: Watcher, first: str) -> None:
    """Its end was told, and won't be told again: a second wait reads."""
    with watcher.waiting([(run := accept(records, run_id=new_id())).id], [run]) as waiting:
        finish(records, start(records, run))
        waiting.futures[0].result(timeout=30)
    run = accept(records, run_id=new_id())
    if first == "heard":
        ended = finish(records, start(records, run))
        wait_until(lambda: run.id in watcher._ends._kept, "the notice")
    with watcher.waiting([run.id], [] if first == "read" else [run]) as waiting:
        ended = ended if first == "heard" else finish(records, start(records, run))
        assert waiting.futures[0].result(timeout=30) == ended
    for known in ([], [run], [ended]):
        began = time.monotonic()
        with watcher.waiting([run.id], known) as waiting:
            assert waiting.futures[0].result(timeout=30) == ended
        assert time.monotonic() - began < LOOK / 3


def test_the_ends_of_runs_that_nobody_waits_for_are_left(
    records: Records, raw: Any, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "LOOK", 0.05)
    with watcher.waiting([(first := accept(records, run_id=new_id())).id], [first]) as waiting:
        finish(records, start(records, first))
        waiting.futures[0].result(timeout=30)
    wait_until(lambda: not watcher._ends.are_heard, "it leaves")
    listener = watcher._listener
    assert listener is not None
    listener.watch(["queues"])  # what is left is said with the next command
    wait_until(lambda: len(raw.pubsub_channels(Keys(records.instance).topic("*"))) == 1, "the server knows")
    with watcher.waiting([(again := accept(records, run_id=new_id())).id], [again]) as waiting:
        finish(records, start(records, again))
        assert waiting.futures[0].result(timeout=30).terminal


def test_a_run_whose_events_are_none_delays_no_other(records: Records, raw: Any, watcher: Watcher) -> None:
    spoilt, other = accept(records), accept(records)
    heard: list[Event] = []
    watcher.hook(spoilt.id, Kind.EXITED, heard.append)
    key = Keys(records.instance).events(spoilt.id)
    raw.delete(key)
    raw.hset(key, "x", "y")
    with watcher.waiting([other.id]) as waiting:
        end_silently(records, raw, other)
        assert waiting.futures[0].result(timeout=4 * LOOK).state is State.SUCCEEDED
    assert heard == []


def test_a_flood_of_notices_is_a_few_looks(records: Records, raw: Any) -> None:
    looks: list[object] = []
    woken, closing = threading.Event(), threading.Event()

    class Counted:
        def learn(self, known: object) -> None:
            looks.append(known)

    ears = NotificationListener(lambda: records, owner="w1", queues=Counted(), every=60.0, wake=woken.set)  # type: ignore[arg-type]

    def listen() -> None:
        while not closing.is_set():
            ears.tick()

    thread = threading.Thread(target=listen)
    thread.start()
    keys = Keys(records.instance)
    wait_until(lambda: raw.pubsub_numsub(keys.topic(NEW_QUEUE))[0][1] == 1, "its first look")
    with raw.pipeline(transaction=False) as pipeline:
        for _ in range(2000):
            pipeline.publish(keys.topic(NEW_QUEUE), "")
        pipeline.publish(keys.topic("owner:w1"), "")
        pipeline.execute()
    wait_until(woken.is_set, "the notice behind the flood")
    assert 1 <= len(looks) < 500
    closing.set()
    raw.publish(keys.topic(NEW_QUEUE), "")
    thread.join(30)
    ears.close()
