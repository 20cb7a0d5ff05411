"""The library of functions on a real server: how it is loaded, and calls that it refuses before the first write."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import CliRunner, Result

from dispatcher.cli.root import root
from dispatcher.errors import ServerUnavailable, UnreadableRun
from dispatcher.records.base import Records
from dispatcher.records.redis import open_redis
from dispatcher.records.redis.connection.client import Client
from dispatcher.records.redis.installing import install
from dispatcher.records.redis.scripts import library, script
from dispatcher.records.snapshot import WrongPrediction
from dispatcher.runs import transitions
from dispatcher.runs.indexes import ALL
from dispatcher.runs.routing import LONGEST_LABEL, MOST_LABELS, MOST_QUEUES
from tests.conformance.products import SERVERS, emptied, served, state
from tests.conformance.specs import accept, cancel, ended, finish, make


@pytest.fixture(scope="module", params=SERVERS, ids=lambda path: Path(path).name)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server for this module, of each installed product."""
    with served(request.param) as address:
        yield address


@pytest.fixture
def raw(url: str) -> Iterator[Any]:
    """A plain connection to the server, which is empty and has no functions."""
    with emptied(url) as connection:
        yield connection


@pytest.fixture
def records(url: str, raw: Any) -> Iterator[Records]:
    opened = open_redis(url)
    opened.runs.check = lambda record, now: None  # every signature holds
    yield opened
    opened.close()


def _user(raw: Any, *rules: str) -> None:
    raw.execute_command("ACL", "SETUSER", "limited", "reset", "on", ">p", "~*", "&*", "+@all", *rules)


def _as_limited(url: str) -> str:
    return url.replace("unix://", "unix://limited:p@")


def test_a_missing_library_is_loaded_by_users_who_may(records: Records, raw: Any) -> None:
    assert raw.function_list() == []
    first = accept(records)
    [loaded] = raw.function_list()
    assert library().name.encode() in loaded
    raw.function_flush("SYNC")
    assert ended(records).terminal
    raw.function_flush("SYNC")
    assert len(records.runs.create([make() for _ in range(300)])) == 300
    assert records.runs.get(first.id)[0].id == first.id


def test_other_users_get_the_remedy_and_nothing_is_written(raw: Any, url: str) -> None:
    _user(raw, "-function|load")
    records = open_redis(_as_limited(url))
    before = state(raw)
    for submits in (lambda: accept(records), lambda: records.runs.create([make() for _ in range(150)])):
        with pytest.raises(ServerUnavailable, match="dispatcher admin install") as caught:
            submits()
        assert not caught.value.may_exist
    with pytest.raises(ServerUnavailable, match="dispatcher admin install"):
        records.leases.acquire("fake/1", "w", expected=None)
    assert state(raw) == before

    assert install(url).new
    assert accept(records).id
    records.close()


def test_the_library_survives_a_restart_of_the_server(server: Any, server_url: str) -> None:
    """It is persisted like data: after a restart, a client that may not load it can submit without any worker."""
    install(server_url)
    with redis.Redis.from_url(server_url) as raw:
        _user(raw, "-function|load")
    server.start()
    with redis.Redis.from_url(server_url) as raw:
        _user(raw, "-function|load")
    records = open_redis(_as_limited(server_url))
    assert accept(records).id
    records.close()


def test_two_releases_can_use_one_server(raw: Any, url: str) -> None:
    mine = library()
    other = mine.text.replace(mine.name.removeprefix("dispatcher_"), "0123456789ab")
    raw.function_load(other)
    raw.function_load("#!lua name=somebody\nredis.register_function('f', function() return 1 end)")

    assert install(url).new
    assert not install(url).new
    key = "i::lease"
    for name in ("acquire_0123456789ab", script("acquire").name):
        assert raw.fcall(name, 1, key, name, "w", "", "") == 1

    assert install(url, prune=True).removed == ("dispatcher_0123456789ab",)
    names = {dict(zip(entry[0::2], entry[1::2], strict=True))[b"library_name"] for entry in raw.function_list()}
    assert names == {mine.name.encode(), b"somebody"}


def _call(*arguments: str) -> Result:
    return CliRunner().invoke(root, list(arguments), prog_name="dispatcher")


def test_the_command_reports_what_it_installed(raw: Any, url: str) -> None:
    name = library().name
    assert _call("admin", "install", "--url", url).output == f"library {name} loaded\n"
    assert _call("admin", "install", "--url", url).output == f"library {name} was there\n"
    raw.function_load(library().text.replace(name.removeprefix("dispatcher_"), "0123456789ab"))
    assert "library dispatcher_0123456789ab removed" in _call("admin", "install", "--prune", "--url", url).output
    _user(raw, "-function|load")
    refused = _call("admin", "install", "--url", _as_limited(url))
    assert refused.exit_code != 0
    assert "does not allow it to this user" in refused.output


@pytest.mark.parametrize("quoted", ["'FCALL'", "`FCALL`"], ids=["since 7", "before"])
def test_an_old_server_is_named_as_such(raw: Any, url: str, quoted: str) -> None:
    """Servers without the command report it in these words."""
    client = Client(url, timeout=5.0)
    [reply] = client.call([("FCALL7", "x", 0)])
    with pytest.raises(ServerUnavailable, match=r"too old: Redis 7\.0 or Valkey 7\.2"):
        client.accepted([type(reply)(str(reply).replace("'FCALL7'", quoted))])
    client.close()


def test_a_full_server_refuses_writes_and_lets_runs_be_purged(raw: Any, url: str) -> None:
    records, later = open_redis(url), open_redis(url, clock_offset=9 * 86400.0)
    run = ended(records)
    assert accept(records)
    before = records.runs.count(ALL)
    raw.config_set("maxmemory", 1)
    try:
        with pytest.raises(ServerUnavailable, match="maxmemory"):
            accept(records)
        assert records.runs.count(ALL) == before
        assert later.runs.purge() == 1
    finally:
        raw.config_set("maxmemory", 0)
    assert records.runs.get_many([run.id]) == [None]
    records.close()
    later.close()


# Refused calls


def _steps(*steps: Any) -> str:
    return json.dumps(steps)


WRONG = [
    [["FLUSHALL"]],
    [["CONFIG", "i:x", "maxmemory", "1"]],
    [["hset", "i::run:r", "x", "y"]],
    [["DEL", "i::run:r"]],
    [["HSET", "other::run:r", "x", "y"]],
    [["EVENTS", "i::run:r:events", "other::events", "i::topic:r", "1", "{}"]],
    [["KEEP", "1", 1, "i::run:r", "other::run:r"]],
    [["LPUSH", "other:local", "x"]],
    [["no such step", "i::x"]],
    [[]],
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_an_unknown_step_is_refused_before_the_first_write(raw: Any, url: str, wrong: list[Any]) -> None:
    install(url)
    raw.hset("i::run:r", mapping={"version": "1", "kind": "k", "created_at": "1.5"})
    before = state(raw)
    steps = [["HSET", "i::run:r", "version", "2"], *wrong]
    template = json.dumps({"expect": [["version", "1"]], "reply": [], "steps": steps})
    digest = hashlib.sha1(template.encode()).hexdigest()
    for name, words in (("commit", ("0", "1", _steps(*steps))), ("prepared", ("0", digest, template))):
        with pytest.raises(redis.ResponseError):
            raw.fcall(script(name).name, 1, "i::run:r", *words)
    assert state(raw) == before


def test_no_record_is_written_for_a_queue_that_the_user_may_not_ring(raw: Any, url: str) -> None:
    class Here:
        """Pushes doorbells by the records' script."""

        def message(self, ring: Any) -> tuple[str, bytes]:
            return f"i:{ring.route.queue}", b"{}"

        def publish(self, rings: Any) -> None: ...

        def depth(self, queue: str) -> int:
            return 0

    raw.set("dispatcher:instance", "i")
    raw.execute_command(
        *("ACL", "SETUSER", "limited", "reset", "on", ">p", "~i::*", "%R~dispatcher:instance", "&*", "+@all"),
        "(~i:local* +lpush +rpush)",
    )
    install(url)
    records = open_redis(_as_limited(url), bell=Here())
    accept(records)
    before = state(raw)
    with pytest.raises(ServerUnavailable, match="may not ring i:kubernetes"):
        accept(records, backend="kubernetes")
    assert state(raw) == before
    records.close()


@pytest.mark.parametrize("time", ['1.5","HSET","i::x","y"],["', "", "nan", "inf", "-1", "0x10000000000000000"])
def test_a_record_s_time_cannot_add_steps(records: Records, raw: Any, time: str) -> None:
    """``created_at`` of a record is checked before it becomes part of a worker's steps."""
    begin = transitions.start_here
    for _ in range(2):
        run = accept(records)
        snapshot = records.runs.snapshot(run.id, "like")
        if snapshot.kind:
            break
        records.runs.claim(snapshot, begin, owner="w", holder="p")
    assert snapshot.kind
    raw.hset(f"{records.instance}::run:{run.id}", "created_at", time)
    before = state(raw)
    with pytest.raises((WrongPrediction, UnreadableRun)):
        records.runs.claim(snapshot, begin, owner="w", holder="p")
    counted = {key for key in state(raw) if key.endswith(b"::refusals") or b"::report:" in key}
    assert {key: value for key, value in state(raw).items() if key not in counted} == before


@pytest.mark.parametrize("run_id", ['x"],["HSET","i::x","y","z', "x\\", "x\ny", "x'", "ü"])
def test_a_doorbell_s_run_id_cannot_add_steps(records: Records, raw: Any, run_id: str) -> None:
    run = accept(records)
    records.runs.claim(records.runs.snapshot(run.id, "like"), transitions.start_here, owner="w", holder="p")
    before = state(raw)
    with pytest.raises(LookupError):
        records.runs.snapshot(run_id, "like")
    assert state(raw) == before


def test_a_holder_s_name_cannot_add_steps(records: Records, raw: Any) -> None:
    first, run = accept(records), accept(records)
    holder = 'host"],["HSET","x'
    records.runs.claim(records.runs.snapshot(first.id, "like"), transitions.start_here, owner="w", holder="p")
    snapshot = records.runs.snapshot(run.id, "like")
    assert snapshot.kind
    with pytest.raises(WrongPrediction) as caught:
        records.runs.claim(snapshot, transitions.start_here, owner="w", holder=holder)
    claimed = records.runs.claim(caught.value.snapshot, transitions.start_here, owner="w", holder=holder)
    assert claimed.holder == holder
    assert finish(records, claimed).terminal


# Bounds


def _accept(raw: Any, instance: str, *, labels: list[Any], indexes: int = 1, run_id: str = "r1") -> Any:
    common = {
        "offset": 0, "run": f"{instance}::run:", "its_events": ":events", "key": f"{instance}::key:",
        "topic": f"{instance}::topic:", "events": f"{instance}::events", "fields": ["version", "1"], "fact": ["{", "}"],
        "places": [[0, [f"{instance}::ix:{n}" for n in range(indexes)]]], "blobs": [], "list": "",
        "queue": [f"{instance}::queues", f"{instance}::routes", f"{instance}::topic:queues", "local:new",
                  json.dumps({"backend": "local", "labels": labels, "scope": ""})],
    }  # fmt: skip
    return raw.fcall(script("accept").name, 0, json.dumps(common), run_id, "spec", "s", "d", "", "")


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": ["x"] * (MOST_LABELS + 1)},
        {"labels": ["x" * (LONGEST_LABEL + 1)]},
        {"labels": [1]},
        {"labels": ["x"], "indexes": 201},
        {"labels": [], "run_id": 'r","state":"SUCCEEDED'},
        {"labels": [], "run_id": ""},
    ],
    ids=str,
)
def test_the_server_holds_every_submitter_to_the_bounds(raw: Any, url: str, changes: dict[str, Any]) -> None:
    install(url)
    before = state(raw)
    with pytest.raises(redis.ResponseError):
        _accept(raw, "i", **changes)
    assert state(raw) == before
    assert _accept(raw, "i", labels=["x" * LONGEST_LABEL] * MOST_LABELS, indexes=200)


def test_the_number_of_queues_is_bounded(records: Records, raw: Any) -> None:
    queues = f"{records.instance}::queues"
    accept(records)
    raw.zadd(queues, {f"local:{number}": 1.0 for number in range(MOST_QUEUES - 1)})
    before = state(raw)
    with pytest.raises(ServerUnavailable, match=f"{MOST_QUEUES} queues"):
        accept(records, labels=("one more",))
    assert state(raw) == before
    assert ended(records).terminal  # known queues go on
    raw.zrem(queues, "local:0")
    waits = accept(records, labels=("one more",))
    assert raw.zscore(queues, "local:one%20more")

    raw.zrem(queues, "local:one%20more")
    raw.zadd(queues, {"local:0": 1.0})
    cancel(records, waits)  # what is there already can still be changed


def test_a_run_is_rung_even_if_its_queue_left_a_full_registry(records: Records, raw: Any) -> None:
    queues = f"{records.instance}::queues"
    run = accept(records, labels=("a",))
    raw.delete(queues)
    raw.zadd(queues, {f"local:{number}": 1.0 for number in range(MOST_QUEUES)})
    again = records.runs.update(run.id, lambda record, now: transitions.ring_again(record, now + 3600))
    assert again.version > run.version
    assert raw.zcard(queues) == MOST_QUEUES
