"""Keys of another type, and invalid numbers: each affects only the value that it stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from dispatcher.errors import Malformed
from dispatcher.records.base import Records
from dispatcher.records.logs import Line
from dispatcher.records.redis import open_redis
from dispatcher.records.redis.connection.client import Client
from dispatcher.records.redis.keys import Keys
from dispatcher.records.redis.scripts import library, script
from dispatcher.records.rejections import Rejected
from tests.conformance.specs import accept, make, start

Spoil = Callable[[Any, str], object]


@pytest.fixture
def records(server_url: str) -> Iterator[Records]:
    opened = open_redis(server_url)
    yield opened
    opened.close()


@pytest.fixture
def raw(server_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(server_url) as connection:
        yield connection


SPOILT: dict[str, Spoil] = {
    "a stream": lambda raw, key: raw.xadd(key, {"x": "y"}),
    "a string": lambda raw, key: raw.set(key, "x"),
    "a hash of words": lambda raw, key: raw.hset(key, mapping={"1": "x", "result/parts": "x"}),
    "a hash of huge numbers": lambda raw, key: raw.hset(key, mapping={"1": "9" * 400, "result/parts": "9" * 400}),
    "a list": lambda raw, key: raw.lpush(key, "x"),
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_run_s_own_keys_of_another_type(records: Records, raw: Any, how: str) -> None:
    """Its events, lines and result are stored, and it ends."""
    keys = Keys(records.instance)
    record = accept(records)
    for key in keys.of_run(record.id)[1:]:
        raw.delete(key)
        SPOILT[how](raw, key)
    record = start(records, record)
    records.logs.append(record.id, [Line(attempt=1, number=1, time=0.0, stream="stdout", text="a line")])
    name = records.blobs.own(record.id, "result", b"x" * 9_000_000)
    record = records.runs.finish(record, records.runs.now(), outcome=None, exit_call=None)
    assert record.terminal
    assert [line.text for line in records.logs.read(record.id)[0]] == ["a line"]
    assert len(records.blobs.get(name)) == 9_000_000
    assert records.events.of(record.id)[0][-1].final
    assert records.rejections.tallies()[Rejected.ENTRY].count >= 1


@pytest.mark.parametrize("count", ["x", "9" * 18, "9" * 400, "1.5", ""])
def test_an_invalid_count_of_a_blob_s_references(records: Records, raw: Any, count: str) -> None:
    """An invalid count prevents no submit of the flow, and no end."""
    keys = Keys(records.instance)
    digest = records.blobs.share(b"x" * 100_000)
    for _ in range(2):
        raw.hset(keys.blob(digest), "refs", count)
        assert records.blobs.share(b"x" * 100_000) == digest
        first, second = records.runs.create([make(blobs=(digest,)), make(blobs=(digest,))])
        raw.hset(keys.blob(digest), "refs", count)
        for record in (first, second):
            started = start(records, record)
            assert records.runs.finish(started, records.runs.now(), outcome=None, exit_call=None).terminal
    assert records.blobs.has(digest)


def test_an_invalid_count_of_rejections(records: Records, raw: Any) -> None:
    raw.hset(Keys(records.instance).refusals, mapping={"run": "x", "run:last": "y"})
    for expected in (1, 2):
        records.rejections.note(Rejected.RUN)
        assert records.rejections.tallies()[Rejected.RUN].count == expected


def test_a_key_of_another_type_is_no_outage(server_url: str, raw: Any) -> None:
    """Otherwise callers that wait for an absent server would wait for ever."""
    client = Client(server_url, timeout=5.0)
    raw.function_load(library().text, replace=True)
    raw.set("i::word", "x")
    raw.hset("i::run:r1", "version", 1)
    raw.hset("i::hash", "word", "x")
    raw.xadd("i::stream", {"x": "y"}, id=f"{2**64 - 1}-{2**64 - 1}")
    try:
        for command in (
            ("HGETALL", "i::word"),
            ("INCR", "i::word"),
            ("INCRBYFLOAT", "i::word", "1"),
            ("HINCRBY", "i::hash", "word", "1"),
            ("HINCRBYFLOAT", "i::hash", "word", "1"),
            ("XADD", "i::stream", "*", "x", "y"),
            ("XADD", "i::stream", "1-1", "x", "y"),
            script("commit").command(["i::word"], 0, 1, "[]"),
            script("commit").command(["i::run:r1"], 0, 1, "no steps"),
        ):
            with pytest.raises(Malformed):
                client.one(*command)
    finally:
        client.close()
