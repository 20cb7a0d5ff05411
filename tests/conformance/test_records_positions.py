"""Streams with entries whose ids are far ahead of the clock: nobody is blocked by them for long."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from dispatcher.records.base import Records
from dispatcher.records.effects import EVENTS_KEPT
from dispatcher.records.logs import Line
from dispatcher.records.redis import open_redis
from dispatcher.records.redis.connection.streams import next_position
from dispatcher.records.redis.keys import Keys
from dispatcher.records.rejections import Rejected
from tests.conformance.specs import accept, ended, start

MOST = 2**64 - 1
LAST = f"{MOST}-{MOST}"

#: Ids after which no entry can be added, or three, or any number that trimming by time doesn't remove.
POISON = [LAST, f"{MOST}-{MOST - 3}", f"{MOST - 1}-{MOST}", "9999999999999-0"]


@pytest.fixture
def records(server_url: str) -> Iterator[Records]:
    opened = open_redis(server_url)
    yield opened
    opened.close()


@pytest.fixture
def raw(server_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(server_url) as connection:
        yield connection


def last_id(raw: Any, key: str) -> int:
    last: bytes = raw.xinfo_stream(key)["last-generated-id"]
    return int(last.partition(b"-")[0])


@pytest.mark.parametrize("poison", POISON)
def test_runs_are_accepted_and_end(records: Records, raw: Any, poison: str) -> None:
    """Events are stored in order, under current ids, and earlier entries are kept."""
    keys = Keys(records.instance)
    before = ended(records)
    assert records.events.take("watcher", block=0.0) == []
    after = accept(records)
    for key in (keys.all_events, keys.events(after.id), keys.logs(after.id)):
        raw.xadd(key, {"x": "y"}, id=poison)
    start(records, after)
    third = ended(records)
    records.logs.append(after.id, [Line(attempt=1, number=1, time=0.0, stream="stdout", text="a line")])
    assert [line.text for line in records.logs.read(after.id)[0]] == ["a line"]
    assert [event.kind for event in records.events.of(after.id)[0]][:1] == ["queued"]
    assert len(records.events.of(after.id)[0]) > 1
    for key in (keys.all_events, keys.events(after.id), keys.logs(after.id)):
        assert last_id(raw, key) < 10**13 - 1
    run_ids = []
    while taken := records.events.take("watcher", block=0.0):
        run_ids += [event.run_id for _, event in taken]
        records.events.acknowledge("watcher", [position for position, _ in taken])
    assert list(dict.fromkeys(run_ids)) == [before.id, after.id, third.id]
    assert records.rejections.tallies()[Rejected.ENTRY].count >= 3


@pytest.mark.parametrize("poison", POISON)
def test_a_follower_receives_later_events(records: Records, raw: Any, poison: str) -> None:
    keys, record = Keys(records.instance), accept(records)
    first, position = records.events.of(record.id)
    raw.xadd(keys.events(record.id), {"x": "y"}, id=poison)
    kinds: list[str] = []

    def follow() -> None:
        nonlocal position
        while len(kinds) < 1:
            events, position = records.events.of(record.id, after=position, block=1.0)
            kinds.extend(event.kind for event in events)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    start(records, record)
    thread.join(20)
    assert kinds
    assert first[0].kind == "queued"


@pytest.mark.parametrize("by", ["an entry", "a sweep"])
@pytest.mark.parametrize("poison", POISON)
def test_all_events_are_trimmed_by_their_age(records: Records, raw: Any, server_url: str, poison: str, by: str) -> None:
    """Even if an entry was far ahead and later ones followed it."""
    key = Keys(records.instance).all_events
    accept(records)
    raw.xadd(key, {"x": "y"}, id=poison)
    if by == "an entry":
        accept(records)
    else:
        records.events.repair()
    later = open_redis(server_url, clock_offset=EVENTS_KEPT + 60.0)
    later.runs.purge()
    later.close()
    assert raw.xrange(key) == []


@pytest.mark.parametrize("trimmed", [False, True])
@pytest.mark.parametrize("poison", POISON)
def test_an_inbox_takes_reports_again(records: Records, raw: Any, poison: str, trimmed: bool) -> None:
    """Its entries are kept until they are dropped, even if the one ahead is gone."""
    key, entry = Keys(records.instance).inbox("fake/3"), {"run": "r1", "body": "{}", "mac": ""}
    records.inbox.report("fake/3", entry)
    raw.xadd(key, {"x": "y"}, id=poison, **({"maxlen": 0, "approximate": False} if trimmed else {}))
    lay = len(records.inbox.read("fake/3"))
    assert records.inbox.repair(["fake/1", "fake/3"]) == ["fake/3"]
    assert records.inbox.repair(["fake/1", "fake/3"]) == []
    records.inbox.report("fake/3", {**entry, "run": "r2"})
    reports = records.inbox.read("fake/3")
    assert (len(reports), reports[-1][1]["run"]) == (lay + 1, "r2")
    records.inbox.drop("fake/3", until=reports[-1][0])
    assert records.inbox.read("fake/3") == []


@pytest.mark.parametrize("poison", POISON)
def test_all_is_dropped_up_to_any_id(records: Records, raw: Any, poison: str) -> None:
    raw.xadd(Keys(records.instance).inbox("fake/3"), {"x": "y"}, id=poison)
    [(position, _)] = records.inbox.read("fake/3")
    records.inbox.drop("fake/3", until=position)
    assert records.inbox.read("fake/3") == []


@pytest.mark.parametrize("group", [LAST, "9999999999999-0"])
def test_a_subscriber_whose_position_was_moved_ahead_receives_events_again(
    records: Records, raw: Any, group: str
) -> None:
    key = Keys(records.instance).all_events
    records.events.take("watcher", block=0.0)
    raw.xgroup_setid(key, "watcher", group)
    record = accept(records)
    assert records.events.take("watcher", block=0.0) == []
    records.events.repair()
    assert [event.run_id for _, event in records.events.take("watcher", block=0.0)] == [record.id]


def test_positions_follow_each_other() -> None:
    assert next_position("5-7") == "5-8"
    assert next_position(f"5-{MOST}") == "6-0"
    assert next_position(LAST) == ""
