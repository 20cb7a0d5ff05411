"""A server that is busy with one call: calls of functions are short whatever is stored; clients wait for long ones."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from dispatcher.errors import ServerUnavailable
from dispatcher.records.base import Records
from dispatcher.records.redis import open_redis
from dispatcher.records.redis.connection.client import Client
from dispatcher.records.redis.installing import install
from dispatcher.records.redis.keys import Keys
from dispatcher.records.redis.scripts import script
from dispatcher.runs import transitions
from tests.conformance.products import SERVERS, emptied, served
from tests.conformance.specs import accept, ended, make

pytestmark = pytest.mark.row(34)

#: Loops for some milliseconds.
LOOP = """
local function now() local time = redis.call('TIME') return time[1] * 1000 + time[2] / 1000 end
local till = now() + tonumber(ARGV[1])
while now() < till do end
"""


@pytest.fixture(scope="module", params=SERVERS, ids=lambda path: Path(path).name)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    with served(request.param) as address:
        yield address


@pytest.fixture
def raw(url: str) -> Iterator[Any]:
    with emptied(url) as connection:
        install(url)
        connection.config_set("busy-reply-threshold", 50)
        yield connection


@pytest.fixture
def records(url: str, raw: Any) -> Iterator[Records]:
    opened = open_redis(url)
    yield opened
    opened.close()


@pytest.fixture
def occupy(url: str) -> Iterator[Callable[[float], None]]:
    """Occupies the server with a script, for some seconds from the moment at which it refuses commands."""
    threads: list[threading.Thread] = []

    def run(seconds: float) -> None:
        with redis.Redis.from_url(url, socket_timeout=60) as connection:
            connection.eval(LOOP, 0, seconds * 1000)

    def start(seconds: float) -> None:
        threads.append(threading.Thread(target=run, args=(seconds,)))
        threads[-1].start()
        with redis.Redis.from_url(url, socket_timeout=60) as connection:
            while True:
                try:
                    connection.ping()
                except redis.ResponseError:
                    return

    yield start
    for thread in threads:
        thread.join()


def test_a_busy_server_is_waited_for(records: Records, occupy: Callable[[float], None]) -> None:
    occupy(2.0)
    first = accept(records)
    occupy(2.0)
    assert records.runs.get(first.id)[0].id == first.id
    occupy(2.0)
    assert len(records.runs.create([make() for _ in range(250)])) == 250


def test_the_wait_for_a_busy_server_is_bounded(url: str, raw: Any, occupy: Callable[[float], None]) -> None:
    client = Client(url, timeout=1.0)
    occupy(5.0)
    begun = time.monotonic()
    with pytest.raises(ServerUnavailable, match="was busy with a script") as caught:
        client.one("GET", "x")
    assert time.monotonic() - begun < 4
    assert not caught.value.may_exist
    with pytest.raises(ServerUnavailable, match="was busy") as caught:
        client.run_many([("SET", "x", "y")], within=1.5, submits=True)
    assert not caught.value.may_exist
    client.close()


def prepare(raw: Any, key: str, *, entries: int, words: int) -> None:
    """Store a stream of long entries, with one far ahead of the clock."""
    fields = {f"w{number}": "x" for number in range(words // 2)}
    with raw.pipeline(transaction=False) as pipe:
        for _ in range(entries):
            pipe.xadd(key, fields)
        pipe.xadd(key, {"x": "y"}, id=f"{2**64 - 1}-{2**64 - 1}")
        pipe.execute()


def test_one_call_copies_little_of_prepared_streams(records: Records, raw: Any) -> None:
    """Forty streams took one call ten seconds."""
    keys, count = Keys(records.instance), 20
    record = accept(records)
    streams = [keys.events(f"s{number}") for number in range(count)]
    for stream in streams:
        prepare(raw, stream, entries=1500, words=100)
    steps = [["EVENTS", stream, keys.all_events, keys.topic("x"), "1.0", "{}"] for stream in streams]
    begun = time.monotonic()
    raw.execute_command(*script("commit").command([keys.run(record.id)], 0, record.version, json.dumps(steps)))
    assert time.monotonic() - begun < 0.5
    lengths = [raw.xlen(stream) for stream in streams]
    assert 100 < lengths[0] < 1000
    assert lengths[1:] == [1] * (count - 1)  # only the new entry


def test_what_is_kept_of_a_stream_is_bounded_by_its_words(records: Records, raw: Any) -> None:
    """Entries as a release writes them are all kept."""
    keys = Keys(records.instance)
    record = accept(records)
    raw.xtrim(keys.events(record.id), maxlen=0)
    prepare(raw, keys.events(record.id), entries=9_000, words=4)
    ended(records)
    records.runs.update(record.id, transitions.request_cancel)
    assert raw.xlen(keys.events(record.id)) >= 9_000


def test_streams_are_repaired_one_by_one(records: Records, raw: Any) -> None:
    """Each sweep copies the entries of one."""
    for number in range(3):
        records.inbox.report(f"fake/{number}", {"run": "r1", "body": "{}", "mac": ""})
        raw.xadd(Keys(records.instance).inbox(f"fake/{number}"), {"x": "y"}, id="9999999999999-0")
    shards = [f"fake/{number}" for number in range(3)]
    repaired = [records.inbox.repair(shards) for _ in range(4)]
    assert sorted(shard for some in repaired for shard in some) == shards
    assert [len(records.inbox.read(shard)) for shard in shards] == [2, 2, 2]


@pytest.mark.parametrize("spoilt", ["stream", "type"])
def test_key_names_cannot_forge_lines_of_the_server_s_log(records: Records, raw: Any, spoilt: str) -> None:
    log = Path(raw.config_get("dir")["dir"]) / raw.config_get("logfile")["logfile"]
    keys, record = Keys(records.instance), accept(records)
    forged = keys.run("z") + "\n1:M 30 Nov 2026 20:10:00.000 * FORGED \x1b[31m\xff" + "x" * 500
    before = log.read_text(errors="replace").count("\n")
    if spoilt == "stream":
        raw.xadd(forged, {"x": "y"}, id=f"{2**64 - 1}-{2**64 - 1}")
        steps: list[list[str]] = [["EVENTS", forged, keys.all_events, keys.topic("x"), "1.0", "{}"]]
    else:
        raw.set(forged, "x")
        steps = [["HSET", forged, "a", "b"]] * 3
    raw.execute_command(*script("commit").command([keys.run(record.id)], 0, record.version, json.dumps(steps)))
    [line] = [line for line in log.read_text(errors="replace").splitlines()[before:] if "FORGED" in line]
    assert "run:z?1:M" in line
    assert "\x1b" not in line
    assert len(line) < 300
