"""Texts of others in records: any text is stored, invalid names are refused, and no other run is affected."""

from __future__ import annotations

import json

import pytest
import redis

from dispatcher.errors import InvalidInput, InvalidSettings, UnknownRun
from dispatcher.records.base import Records
from dispatcher.records.logs import Line
from dispatcher.records.query import Query
from dispatcher.records.redis import open_redis
from dispatcher.records.redis.keys import INSTANCE, Keys
from dispatcher.records.workers import WorkerInfo
from dispatcher.runs import indexes, transitions
from dispatcher.runs.change import Change
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.routing import Offer
from dispatcher.runs.states import Cause
from tests.conformance.specs import accept, ended, make, start
from tests.steering import STEERING

HOSTILE = "".join(STEERING.values())
OFFER = Offer(backends=frozenset({"local"}))

#: Texts that can't be run ids. As keys, some would name other keys than a run's.
NO_IDS = [
    "",
    "r1:events",
    "r1\n",
    "r 1",
    "-r1",
    "../r1",
    "r1/x",
    "r\x001",
    "é",
    "\ud800",
    "r1*",
    "{r1}",
    "%s",
    "a" * 65,
]
NO_IDS += ['"],["DEL","x', 'x"]]']


def test_an_outcome_with_lone_surrogates_is_stored(records: Records) -> None:
    record = start(records, accept(records))
    outcome = Outcome(cause=Cause.USER_ERROR, reason=HOSTILE, message=HOSTILE, traceback=HOSTILE, log_tail=(HOSTILE,))
    records.runs.finish(record, records.runs.now(), outcome=outcome, exit_call=None)
    [record] = records.runs.find(Query())
    assert record.outcome is not None
    assert record.outcome.message.startswith(HOSTILE.removesuffix("\ud800"))
    assert [event.data["message"] for event in records.events.of(record.id)[0] if "message" in event.data]


def test_an_infrastructure_message_with_lone_surrogates_is_stored(records: Records) -> None:
    record = start(records, accept(records))
    records.runs.update(record.id, lambda before, now: Change(before=before, after=before.but(last_message=HOSTILE)))
    record, _ = records.runs.get(record.id)
    assert record.last_message.startswith(HOSTILE.removesuffix("\ud800"))
    record.last_message.encode(errors="backslashreplace")


def test_lines_and_queries_of_any_text(records: Records) -> None:
    record = accept(records)
    records.logs.append(record.id, [Line(attempt=1, number=1, time=0.0, stream="stdout", text=HOSTILE)])
    [line] = records.logs.read(record.id)[0]
    assert "\x1b[31m" in line.text
    for query in (Query(flow="\ud800"), Query(label="\ud800"), Query(tag="\ud800")):
        assert list(records.runs.find(query)) == []


@pytest.mark.parametrize("run_id", NO_IDS)
def test_an_invalid_id_is_an_unknown_run(records: Records, run_id: str) -> None:
    record = accept(records)
    with pytest.raises(UnknownRun):
        records.runs.get(run_id)
    with pytest.raises(UnknownRun):
        records.runs.snapshot(run_id, "like")
    with pytest.raises(UnknownRun):
        records.runs.update(run_id, transitions.request_cancel)
    assert records.runs.get_many([run_id, record.id, run_id]) == [None, records.runs.get(record.id)[0], None]
    assert not records.blobs.has(f"{run_id}/result")
    assert not records.blobs.has(f"{record.id}/{run_id}") or run_id == ""


@pytest.mark.parametrize("run_id", NO_IDS)
def test_no_key_is_built_from_an_invalid_id(run_id: str) -> None:
    keys = Keys("i")
    for key in (keys.run, keys.events, keys.logs, keys.lines, keys.blobs, keys.of_run):
        with pytest.raises(UnknownRun):
            key(run_id)
    with pytest.raises(InvalidInput, match="shard"):
        keys.inbox(run_id)


@pytest.mark.parametrize("name", ["a:parts", "../x", "a" * 129, "x\n", "\ud800"])
def test_an_invalid_blob_name_is_an_unknown_blob(records: Records, name: str) -> None:
    record = accept(records)
    assert not records.blobs.has(name)
    assert not records.blobs.has(f"{record.id}/{name}")
    with pytest.raises(KeyError):
        records.blobs.get(name)


@pytest.mark.parametrize("run_id", NO_IDS)
def test_no_run_is_accepted_under_an_invalid_id(records: Records, run_id: str) -> None:
    with pytest.raises(UnknownRun):
        records.runs.create([make().but(id=run_id)])


def test_invalid_members_of_an_index_hide_no_others(server_url: str) -> None:
    records = open_redis(server_url)
    try:
        record = accept(records)
        keys = Keys(records.instance)
        with redis.Redis.from_url(server_url) as server:
            odd: list[bytes] = [b"\xff\xfe", b"x y", *(f"../{number}".encode() for number in range(30))]
            server.zadd(keys.index(indexes.OPEN), dict.fromkeys(odd, 1.0))
            server.zadd(keys.index(indexes.ALL), dict.fromkeys(odd, 9e9))
            reads = [records.runs.members(indexes.OPEN, limit=5) for _ in range(10)]
            assert [run_id for run_id, _ in reads[-1]] == [record.id]
            assert server.zcard(keys.index(indexes.OPEN)) == 1, "invalid members are removed"
        assert [stored.id for stored in records.runs.find(Query())] == [record.id]
    finally:
        records.close()


def test_a_record_with_another_run_s_id_is_malformed(server_url: str) -> None:
    """Otherwise whoever writes a record could have another run removed, or hidden from lists."""
    records = open_redis(server_url)
    try:
        victim, forged = ended(records, result_ttl=1000), ended(records, result_ttl=1)
        with redis.Redis.from_url(server_url) as server:
            for name in (victim.id, "../x", "a:events"):
                server.hset(Keys(records.instance).run(forged.id), "id", name)
                run_ids = [record.id for record in records.runs.find(Query())]
                assert run_ids.count(victim.id) == 1
                assert set(run_ids) <= {victim.id, forged.id}
            server.hdel(Keys(records.instance).run(forged.id), "id")
            assert victim in list(records.runs.find(Query()))
            server.hset(Keys(records.instance).run(forged.id), "id", victim.id)
        later = open_redis(server_url, clock_offset=100)
        try:
            later.runs.purge()
        finally:
            later.close()
        assert records.runs.get_many([victim.id, forged.id]) == [victim, None]
    finally:
        records.close()


def test_beats_under_a_shard_s_name_are_ignored(server_url: str) -> None:
    """Otherwise all runs of a shard would count as lost once its entry stays unchanged."""
    records = open_redis(server_url)
    try:
        records.workers.announce(WorkerInfo(id="w1", host="h", pid=1, offer=OFFER, concurrency=1, started_at=0.0))
        with redis.Redis.from_url(server_url) as server:
            for odd in ("kubernetes/3", "a b", b"\xff", "w\x1b"):
                server.hset(Keys(records.instance).beats, odd, 0)
        assert records.workers.beats() == {"w1": 0}
    finally:
        records.close()


@pytest.mark.parametrize(
    ("name", "route"),
    [
        ("local:x", {"backend": "local", "labels": [], "scope": ""}),
        (":run:r1", {"backend": ":run:r1", "labels": [], "scope": ""}),
        ("local:a%1B", {"backend": "local", "labels": ["a\x1b"], "scope": ""}),
        ("local:x", {"backend": "local"}),
        (b"\xff", {"backend": "local", "labels": [], "scope": ""}),
        ("local:x", []),
    ],
)
def test_a_queue_whose_name_is_not_its_route_s_is_malformed(server_url: str, name: str | bytes, route: object) -> None:
    records = open_redis(server_url)
    try:
        accept(records, labels=("gpu",))
        keys = Keys(records.instance)
        with redis.Redis.from_url(server_url) as server:
            server.hset(keys.routes, name, json.dumps(route))
            server.zadd(keys.queues, {name: 1.0})
            server.zadd(keys.passed, {name: 1.0})
        assert list(records.queues.known()) == ["local:gpu"]
        records.queues.passed()
    finally:
        records.close()


@pytest.mark.parametrize("instance", ["a b", "x::run:1", "*", "", "é", "\x1b[2J"])
def test_an_invalid_installation_id_is_refused(server_url: str, instance: str) -> None:
    with redis.Redis.from_url(server_url) as server:
        server.set(INSTANCE, instance)
    with pytest.raises(InvalidSettings, match=f"{INSTANCE} holds"):
        open_redis(server_url)


def test_a_field_of_any_text_is_stored_as_utf8() -> None:
    fields = Record(id="r1", spec_bytes=b"", signature="", spec_digest="", last_message="\ud800é").to_fields()
    raw = fields["last_message"]
    assert isinstance(raw, bytes)
    assert raw.decode() == "\\ud800é"
