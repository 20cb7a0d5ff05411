"""Unreadable notices and events: whoever waits goes on at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from dispatcher.client import watcher as watching
from dispatcher.client.watcher import POLL_INTERVAL, Watcher
from dispatcher.records.base import Records
from dispatcher.records.events import ends_topic
from dispatcher.records.redis import open_redis
from dispatcher.records.redis.keys import Keys
from dispatcher.records.redis.listener import MOST_WAITING
from dispatcher.runs.events import Event, EventKind
from dispatcher.runs.record import Record
from dispatcher.runs.states import State
from dispatcher.support.ids import new_id
from tests.conformance.specs import accept, ended, finish, start
from tests.waiting import wait_until
from workers.notifications import NEW_QUEUE, NotificationListener


@pytest.fixture
def records(server_url: str) -> Iterator[Records]:
    opened = open_redis(server_url)
    yield opened
    opened.close()


@pytest.fixture
def raw(server_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(server_url) as connection:
        yield connection


@pytest.fixture
def watcher(records: Records) -> Iterator[Watcher]:
    watcher = Watcher(records)
    yield watcher
    watcher.close()


def end_silently(records: Records, raw: Any, record: Record) -> None:
    """End a run as if the notice of its end had been lost."""
    keys, like = Keys(records.instance), ended(records)
    fields = raw.hgetall(keys.run(like.id))
    raw.hset(keys.run(record.id), mapping={name: fields[name] for name in (b"state", b"ended_at") if name in fields})


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("notice", [b"\xff", b"x", b"1.0\n{", b"1.0\n{}\n={", b"\n\n\n=[", b""])
def test_an_unreadable_notice_makes_the_watcher_read_soon(
    records: Records, raw: Any, watcher: Watcher, notice: bytes, own: bool
) -> None:
    record = accept(records, run_id=new_id() if own else "")
    with watcher.waiting([record.id]) as waiting:
        end_silently(records, raw, record)
        began = time.monotonic()
        raw.publish(Keys(records.instance).topic(ends_topic(record.id) if own else record.id), notice)
        assert waiting.futures[0].result(timeout=30).state is State.SUCCEEDED
        assert time.monotonic() - began < POLL_INTERVAL / 3


def test_waiting_for_runs_of_the_own_process_reads_no_records(records: Records, raw: Any, watcher: Watcher) -> None:
    with watcher.waiting([(first := accept(records, run_id=new_id())).id], [first]) as waiting:
        finish(records, start(records, first))
        waiting.futures[0].result(timeout=30)
    early, late = (accept(records, run_id=new_id()) for _ in range(2))
    lost = accept(records, run_id=new_id())
    topics = raw.pubsub_channels(Keys(records.instance).topic("*"))
    assert len(topics) == 1, "one for all"
    ended = finish(records, start(records, early))
    wait_until(lambda: early.id in watcher._ends._fields, "the notice")
    end_silently(records, raw, lost)  # as if it were still running, for who reads nothing
    raw.delete(Keys(records.instance).run(early.id))
    with watcher.waiting([early.id, late.id, lost.id], [early, late, lost]) as waiting:
        assert waiting.futures[0].result(timeout=0) == ended
        after = finish(records, start(records, late))
        assert waiting.futures[1].result(timeout=30) == after
        assert not waiting.futures[2].done()
        assert raw.pubsub_channels(Keys(records.instance).topic("*")) == topics
        assert waiting.futures[2].result(timeout=4 * POLL_INTERVAL).state is State.SUCCEEDED, "all are polled"


@pytest.mark.parametrize(
    "added", [b'{"state": "?"}', b'{"id": "%s", "state": "?"}', b'{"id": "%s", "state": "RUNNING"}']
)
def test_a_forged_end_is_not_returned_by_a_later_wait(
    records: Records, raw: Any, watcher: Watcher, added: bytes
) -> None:
    """A forged notice makes no wait raise or end early."""
    with watcher.waiting([(first := accept(records, run_id=new_id())).id], [first]) as waiting:
        finish(records, start(records, first))
        waiting.futures[0].result(timeout=30)
    run = accept(records, run_id=new_id())
    tell_end(records, raw, run.id, added.replace(b"%s", run.id.encode()))
    tell_end(records, raw, (behind := new_id()), b'{"id": "%s", "state": "x"}' % behind.encode())
    wait_until(lambda: behind in watcher._ends._fields, "the notices")
    with watcher.waiting([run.id], [run]) as waiting:
        assert not waiting.futures[0].done()
        ended = finish(records, start(records, run))
        assert waiting.futures[0].result(timeout=30) == ended


def tell_end(records: Records, raw: Any, run_id: str, added: bytes) -> None:
    raw.publish(Keys(records.instance).topic(ends_topic(run_id)), b"\n=" + added)


def test_unreadable_notices_make_a_client_read_little(
    records: Records, raw: Any, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "POLL_INTERVAL", 1.0)
    monkeypatch.setattr(watching, "EARLY_POLL", 0.01)
    with watcher.waiting([(run := accept(records, run_id=new_id())).id], [run]):
        reads = raw.info("commandstats").get("cmdstat_hgetall", {"calls": 0})["calls"]
        until = time.monotonic() + 4

        def flooded() -> bool:
            tell_end(records, raw, run.id, b"{")
            return time.monotonic() > until

        wait_until(flooded, "four reads", timeout=30)
        assert raw.info("commandstats")["cmdstat_hgetall"]["calls"] - reads < 4 * 2 + 2


def test_a_flood_fills_no_memory_and_makes_the_watcher_read(records: Records, raw: Any) -> None:
    listener, topic = records.events.listen(), Keys(records.instance).topic("queues")
    listener.watch(["queues"])
    with raw.pipeline(transaction=False) as pipeline:
        for _ in range(3 * MOST_WAITING):
            pipeline.publish(topic, "")
        pipeline.execute()
    listener.watch(["behind"])  # confirmed after the flood
    heard = list(iter(lambda: listener.get(0.0), None))
    assert heard.count(("queues", None)) == MOST_WAITING
    assert heard[-1] == ("", None)
    assert 1 <= heard.count(("", None)) <= 2, "a second one if notices are taken while the last ones are dropped"
    assert len(heard) <= MOST_WAITING + 2
    raw.publish(topic, "")
    assert listener.get(30.0) == ("queues", None)
    listener.close()


@pytest.mark.parametrize("first", ["waited", "heard", "read"])
def test_waiting_again_for_an_ended_run(records: Records, watcher: Watcher, first: str) -> None:
    """The notice of its end was handled and won't come again, so the second wait reads the record."""
    with watcher.waiting([(run := accept(records, run_id=new_id())).id], [run]) as waiting:
        finish(records, start(records, run))
        waiting.futures[0].result(timeout=30)
    run = accept(records, run_id=new_id())
    if first == "heard":
        ended = finish(records, start(records, run))
        wait_until(lambda: run.id in watcher._ends._fields, "the notice")
    with watcher.waiting([run.id], [] if first == "read" else [run]) as waiting:
        ended = ended if first == "heard" else finish(records, start(records, run))
        assert waiting.futures[0].result(timeout=30) == ended
    for ended_runs in ([], [run], [ended]):
        began = time.monotonic()
        with watcher.waiting([run.id], ended_runs) as waiting:
            assert waiting.futures[0].result(timeout=30) == ended
        assert time.monotonic() - began < POLL_INTERVAL / 3


def test_ends_of_runs_that_nobody_waits_for_are_ignored(
    records: Records, raw: Any, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "POLL_INTERVAL", 0.05)
    with watcher.waiting([(first := accept(records, run_id=new_id())).id], [first]) as waiting:
        finish(records, start(records, first))
        waiting.futures[0].result(timeout=30)
    wait_until(lambda: not watcher._ends.subscribed, "it leaves")
    topics = watcher._topics
    assert topics is not None
    topics.listener.watch(["queues"])  # what is left is said with the next command
    wait_until(lambda: len(raw.pubsub_channels(Keys(records.instance).topic("*"))) == 1, "the server knows")
    with watcher.waiting([(again := accept(records, run_id=new_id())).id], [again]) as waiting:
        finish(records, start(records, again))
        assert waiting.futures[0].result(timeout=30).terminal


def test_a_run_with_unreadable_events_delays_no_other(records: Records, raw: Any, watcher: Watcher) -> None:
    spoilt, other = accept(records), accept(records)
    heard: list[Event] = []
    watcher.hook(spoilt.id, EventKind.EXITED, heard.append)
    key = Keys(records.instance).events(spoilt.id)
    raw.delete(key)
    raw.hset(key, "x", "y")
    with watcher.waiting([other.id]) as waiting:
        end_silently(records, raw, other)
        assert waiting.futures[0].result(timeout=4 * POLL_INTERVAL).state is State.SUCCEEDED
    assert heard == []


def test_a_flood_of_notices_causes_few_reads(records: Records, raw: Any) -> None:
    reads: list[object] = []
    woken, closing = threading.Event(), threading.Event()

    class Counted:
        def learn(self, routes: object) -> None:
            reads.append(routes)

    listener = NotificationListener(lambda: records, owner="w1", queues=Counted(), every=60.0, wake=woken.set)  # type: ignore[arg-type]

    def listen() -> None:
        while not closing.is_set():
            listener.tick()

    thread = threading.Thread(target=listen)
    thread.start()
    keys = Keys(records.instance)
    wait_until(lambda: raw.pubsub_numsub(keys.topic(NEW_QUEUE))[0][1] == 1, "its first round")
    with raw.pipeline(transaction=False) as pipeline:
        for _ in range(2000):
            pipeline.publish(keys.topic(NEW_QUEUE), "")
        pipeline.publish(keys.topic("owner:w1"), "")
        pipeline.execute()
    wait_until(woken.is_set, "the notice behind the flood")
    assert 1 <= len(reads) < 500
    closing.set()
    raw.publish(keys.topic(NEW_QUEUE), "")
    thread.join(30)
    listener.close()
