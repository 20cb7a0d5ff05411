"""Row 34 of the fault matrix: one malformed entry costs that entry, on a real server with real workers.

Each entry is written as somebody would who may write to the server; everything else goes on.
"""

from __future__ import annotations

import base64
import json
import secrets
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from backends.fake import FakeEnvironment
from dispatcher import Dispatcher, LocalEnvironment, UnknownRun, flow
from dispatcher.doorbell import envelope
from dispatcher.errors import UnreadableRun
from dispatcher.records.effects import UNREADABLE
from dispatcher.records.redis.keys import Keys
from dispatcher.records.refusals import What
from dispatcher.runner.report import About, Report, _mac, attempt_token
from dispatcher.runs import indexes
from dispatcher.runs.attempt import shard_of
from dispatcher.runs.record import Outcome, Record, Ring
from dispatcher.runs.routing import Route
from dispatcher.runs.states import State
from dispatcher.settings import Settings
from tests.integration.workers import KEYS, Bench, Worker
from tests.unit.command import call
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.row(34),
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:No live worker"),
]

StartWorker = Callable[..., Worker]

DEEP = b"[" * 100_000 + b"]" * 100_000


@flow
def one() -> int:
    return 1


@flow
def waits(path: str) -> int:
    import time

    while not Path(path).exists():
        time.sleep(0.02)
    return 1


class Intruder:
    """Somebody who may write whatever they like."""

    def __init__(self, url: str, bench: Bench) -> None:
        self.server = redis.Redis.from_url(url)
        self.keys = Keys(bench.records.instance)
        self.bench = bench

    def template(self) -> dict[bytes, bytes]:
        """The fields of a run that ended well."""
        run_id = self.bench.submit(one)
        self.bench.ended(run_id)
        found: dict[bytes, bytes] = self.server.hgetall(self.keys.run(run_id))  # type: ignore[assignment]
        return found

    def record(self, run_id: str, fields: dict[bytes, bytes], *, index: dict[str, float]) -> None:
        """Store a record, and stand it in indexes."""
        if fields:
            self.server.hset(self.keys.run(run_id), mapping={**fields, b"id": run_id.encode()})  # type: ignore[arg-type]
        for name, score in index.items():
            self.server.zadd(self.keys.index(name), {run_id: score})

    def members(self, index: str) -> set[str]:
        """Who stands in an index."""
        return {name.decode() for name in self.server.zrange(self.keys.index(index), 0, -1)}  # type: ignore[union-attr]


@pytest.fixture
def intruder(server_url: str, bench: Bench) -> Iterator[Intruder]:
    found = Intruder(server_url, bench)
    yield found
    found.server.close()


@pytest.fixture
def client(server_url: str) -> Iterator[Dispatcher]:
    with Dispatcher(settings=Settings.load(url=server_url, signing_keys=json.dumps(KEYS))) as found:
        yield found


def spec_but(template: dict[bytes, bytes], **changes: Any) -> dict[bytes, bytes]:
    """A record with another spec."""
    return {**template, b"spec_bytes": json.dumps({**json.loads(template[b"spec_bytes"]), **changes}).encode()}


def records_of(template: dict[bytes, bytes]) -> dict[str, dict[bytes, bytes]]:
    """Records that nobody can read, or whose spec nobody can."""
    fields: dict[str, bytes] = {
        "version": b"x",
        "attempt": b"9" * 5000,
        "epoch": b"-1",
        "rings": b"1e9",
        "outcome": b"[]",
        "outcome ": DEEP,
        "created_at": b"nan",
        "queued_at": b"inf",
        "rung_at": b"",
        "due_at": b"1e400",
        "ended_at": b"soon",
        "leftovers": b"{}",
        "leftovers ": b"[1]",
        "leftovers  ": b'[{"attempt": "x"}]',
        "times": b"[1]",
        "times ": b'{"1": {"created": NaN}}',
        "handle": b"3",
        "request": b'{"shard": []}',
        "state": b"\xff\xfe",
        "owner": b"\xff" * 9000,
        "last_message": b"\xff",
    }
    broken = {name: {**template, name.strip().encode(): raw} for name, raw in fields.items()}
    without = {
        f"no {name}": {key: one for key, one in template.items() if key != name.encode()}
        for name in ("state", "signature")
    }
    specs: dict[str, dict[bytes, bytes]] = {
        "deep spec": {**template, b"spec_bytes": DEEP},
        "spec not utf-8": {**template, b"spec_bytes": b"\xff\xfe"},
        "spec a list": {**template, b"spec_bytes": b"[1]"},
        "spec empty": {**template, b"spec_bytes": b""},
        "endless retries": spec_but(template, options={"retries": {"count": 10**12}}),
        "retries a word": spec_but(template, options={"retries": "x"}),
        "timeout a list": spec_but(template, options={"timeout": []}),
        "labels lists": spec_but(template, route={"backend": "local", "labels": [["a"]], "scope": ""}),
        "backend a list": spec_but(template, route={"backend": [], "labels": [], "scope": ""}),
        "no parameters": spec_but(template, parameters=None),
        "flow a surrogate": spec_but(template, flow="\ud800"),
    }  # fmt: skip
    return {**broken, **without, **specs}


def tally(bench: Bench) -> int:
    """How many malformed entries were counted."""
    found = bench.records.refusals.tallies().get(What.ENTRY)
    return found.count if found else 0


@pytest.mark.parametrize("kind", ["malformed", "of another release", "missing", "of another type"])
def test_records(
    bench: Bench, start_worker: StartWorker, client: Dispatcher, intruder: Intruder, server_url: str, kind: str
) -> None:
    """Neither ``list``, retention, due times nor doorbells stop for others, whatever stands in their indexes."""
    worker = start_worker(concurrency=1)
    template = intruder.template()
    poison = records_of(template)
    if kind == "of another release":
        poison = {f"run {n}": {**template, b"state": b"PAUSED", b"hue": b"blue"} for n in range(30)}
        poison = {
            name: {key: value for key, value in fields.items() if key != b"ended_at"} for name, fields in poison.items()
        }
    elif kind != "malformed":
        poison = {name: {} for name in poison}
    now = bench.records.runs.now()
    ids = {name: f"poison{number}" for number, name in enumerate(poison)}
    everywhere = {
        indexes.ALL: now + 60, indexes.OPEN: now + 60, indexes.DUE: 1.0, indexes.EXPIRING: 1.0,
        indexes.waiting("local"): 1.0, indexes.owned("dead"): 1.0,
    }  # fmt: skip
    intruder.server.hset(intruder.keys.beats, "dead", 3)
    for name, fields in poison.items():
        intruder.record(ids[name], fields, index=everywhere)
        if kind == "of another type":
            intruder.server.set(intruder.keys.run(ids[name]), "x")
    intruder.record("old", {**template, b"ended_at": b"1.0", b"created_at": b"1.0"}, index={indexes.EXPIRING: 2.0})

    again = bench.prepare(one)
    bench.records.runs.create([again])
    late = client.submit(one, environment=LocalEnvironment(labels=["nobody"]), start_within=0.5)
    assert client.submit(one).result(timeout=30) == 1
    wait_until(lambda: not intruder.server.exists(intruder.keys.run("old")), "the retention of another run")
    bench.until(late.id, lambda record: record.state is State.TIMED_OUT, "the due time of another run")
    bench.ended(again.id)
    said = call("list", "--url", server_url, "--json", "--limit", "100")
    assert said.exit_code == 0, said
    listed = {run["id"] for run in json.loads(said.output)}
    assert {again.id, late.id} <= listed

    if kind == "of another release":
        assert set(ids.values()) <= listed
        assert intruder.members(indexes.DUE) >= set(ids.values())
        for run_id in ids.values():
            assert bench.record(run_id).state is State.UNKNOWN
            assert intruder.server.hget(intruder.keys.run(run_id), "hue") == b"blue"
        assert tally(bench) == 0
    else:
        for index in everywhere.keys() - {indexes.ALL, indexes.OPEN}:
            wait_until(
                lambda index=index: not {ids[name] for name in unread(kind, poison)} & intruder.members(index),  # type: ignore[misc]
                f"none of them left in the index {index}",
                timeout=60,
            )
    if kind in {"malformed", "of another type"}:
        assert tally(bench) >= len(unread(kind, poison))
        assert worker.output.count("an entry is left out, since it can't be read") >= 1
        status = call("status", "--url", server_url)
        assert "malformed entries" in status.output
    assert worker.process.poll() is None


def unread(kind: str, poison: dict[str, Any]) -> list[str]:
    """Those whose record can't be read; where only the spec can't, the run is ended."""
    if kind != "malformed":
        return list(poison)
    return [
        name
        for name in poison
        if name in {"version", "outcome", "created_at", "no state", "leftovers", "times", "state"}
    ]


def test_a_record_that_cannot_be_read_goes_a_week_after_that_was_noticed(
    bench: Bench, start_worker: StartWorker, intruder: Intruder
) -> None:
    start_worker(concurrency=1)
    template = intruder.template()
    key = intruder.keys.run("poison")
    intruder.server.persist(key)
    intruder.record("poison", {**template, b"version": b"x"}, index={indexes.DUE: 1.0})
    wait_until(lambda: not intruder.members(indexes.DUE), "the entry to be taken out")
    assert UNREADABLE - 60 < intruder.server.ttl(key) <= UNREADABLE  # type: ignore[operator]
    with pytest.raises(UnreadableRun, match="can't be read"):
        bench.record("poison")
    assert issubclass(UnreadableRun, UnknownRun)


def test_a_run_whose_spec_cannot_be_read_is_ended(bench: Bench, start_worker: StartWorker, intruder: Intruder) -> None:
    start_worker(concurrency=1)
    waiting = bench.prepare(one)
    broken = Record(id=waiting.id, spec_bytes=DEEP, signature=waiting.signature, spec_digest="d")
    bench.records.runs.create([broken])
    ended = bench.ended(waiting.id)
    assert ended.state is State.CRASHED
    intruder.server.zadd(intruder.keys.index(indexes.EXPIRING), {waiting.id: 1.0})
    intruder.server.hset(intruder.keys.run(waiting.id), "ended_at", "1.0")
    wait_until(lambda: not intruder.server.exists(intruder.keys.run(waiting.id)), "its retention")
    assert waiting.id not in intruder.members(indexes.ALL)


def test_a_run_that_stands_in_the_index_of_ends_too_early_is_not_removed(
    bench: Bench, start_worker: StartWorker, intruder: Intruder, tmp_path: Path
) -> None:
    start_worker(concurrency=2)
    path = tmp_path / "go"
    running = bench.submit(waits, {"path": str(path)})
    bench.until(running, lambda record: record.state is State.RUNNING, "its start")
    done = intruder.template()[b"id"].decode()
    for run_id in (running, done):
        intruder.server.zadd(intruder.keys.index(indexes.EXPIRING), {run_id: 1.0})
    key = intruder.keys.index(indexes.EXPIRING)
    wait_until(lambda: intruder.server.zscore(key, running) is None, "the open run to leave the index")
    wait_until(lambda: (intruder.server.zscore(key, done) or 0) > 1e9, "the ended run's own time")  # type: ignore[operator]
    path.touch()
    assert bench.ended(running).state is State.SUCCEEDED


FACT = '{"run": "r", "attempt": 1, "kind": "queued", "state": "QUEUED", "flow": "f"}'

OTHERS: dict[str, Callable[[Intruder], Any]] = {
    "route no JSON": lambda it: route(it, "local:x", b"{"),
    "route deep": lambda it: route(it, "local:x", DEEP),
    "route a list": lambda it: route(it, "local:x", b"[]"),
    "route of another queue": lambda it: route(it, "local:x", json.dumps(Route("local", ("y",)).to_json()).encode()),
    "route not utf-8": lambda it: route(it, b"\xff\xfe", b"{}"),
    "queue used at the end of time": lambda it: it.server.zadd(it.keys.queues, {"local": "inf"}),
    "claim at the end of time": lambda it: it.server.zadd(it.keys.passed, {"local": "inf"}),
    "worker no JSON": lambda it: presented(it, b"{"),
    "worker a list": lambda it: presented(it, b"[]"),
    "worker without offer": lambda it: presented(it, b'{"id": "stranger"}'),
    "worker not utf-8": lambda it: presented(it, b"\xff"),
    "beat a word": lambda it: it.server.hset(it.keys.beats, "stranger", "x"),
    "beat a huge number": lambda it: it.server.hset(it.keys.beats, "stranger", "9" * 400),
    "lease a word": lambda it: it.server.hset(it.keys.leases, "fake/1", "x"),
    "lease of a huge epoch": lambda it: it.server.hset(it.keys.leases, "fake/2", "9" * 400 + " w"),
    "lease not utf-8": lambda it: it.server.hset(it.keys.leases, b"fake/\xff", b"\xff"),
    "refusal a word": lambda it: it.server.hset(it.keys.refusals, mapping={"run": "x", "run:last": "y"}),
    "event no JSON": lambda it: it.server.xadd(it.keys.all_events, {"fact": "{", "time": "1.0"}),
    "event without fields": lambda it: it.server.xadd(it.keys.all_events, {"x": "y"}),
    "event deep": lambda it: it.server.xadd(it.keys.all_events, {"fact": DEEP, "time": "1.0"}),
    "event at no time": lambda it: it.server.xadd(it.keys.all_events, {"fact": FACT, "time": "nan"}),
    "member not utf-8": lambda it: it.server.zadd(it.keys.index(indexes.DUE), {b"\xff": 1.0}),
    "member another key": lambda it: it.server.zadd(it.keys.index(indexes.DUE), {"a:events": 1.0}),
}  # fmt: skip


def route(it: Intruder, queue: str | bytes, raw: bytes) -> None:
    it.server.zadd(it.keys.queues, {queue: it.bench.records.runs.now()})
    it.server.hset(it.keys.routes, queue, raw)  # type: ignore[arg-type]
    it.server.publish(it.keys.topic("queues"), "")


def presented(it: Intruder, raw: bytes) -> None:
    it.server.hset(it.keys.workers, "stranger", raw)  # type: ignore[arg-type]
    it.server.zadd(it.keys.beaten, {"stranger": it.bench.records.runs.now() + 1000})


def test_all_other_entries(
    bench: Bench, start_worker: StartWorker, client: Dispatcher, intruder: Intruder, server_url: str, service: Path
) -> None:
    """Worker listing, new queues, leases, supervision, subscribers: all at once, and each by itself."""
    worker = start_worker(backends=["local", "fake"], concurrency=1, timing={"poll": 0.2}, labels=["x"])
    client.submit(one, environment=LocalEnvironment(labels=["x"])).result(timeout=30)
    events = client.subscribe("watcher", timeout=20)
    for name, write in OTHERS.items():
        before = worker.output.count("Traceback")
        write(intruder)
        run = client.submit(one, environment=LocalEnvironment(labels=["x"]))
        assert run.result(timeout=30) == 1, name
        said = call("status", "--url", server_url)
        assert said.exit_code == 0, (name, said)
        assert worker.output.count("Traceback") == before, (name, worker.output)
    shards = bench.submit(one, environment=FakeEnvironment(service, labels=["x"]))
    assert bench.ended(shards).state is State.SUCCEEDED
    new = client.submit(one, environment=LocalEnvironment(labels=["x"]))
    seen = next(event for event in events if event.run_id == new.id and event.final)
    assert seen.state is State.SUCCEEDED
    assert tally(bench) >= 10
    assert [info.pid for info in bench.records.workers.live()] == [worker.process.pid]


@pytest.mark.parametrize("beats", ["x", "9" * 400, ""])
def test_a_beat_that_cannot_be_counted_begins_anew(
    bench: Bench, start_worker: StartWorker, intruder: Intruder, beats: str
) -> None:
    worker = start_worker(concurrency=1)
    [info] = bench.records.workers.live()
    intruder.server.hset(intruder.keys.beats, info.id, beats)
    wait_until(lambda: bench.records.workers.beats().get(info.id, 0) > 1, "two more beats")
    assert "the server is away" not in worker.output


NOTICES: list[bytes] = [
    b"\xff\xfe", b"x", b"1.0\n{", b"1.0\n" + DEEP, b"1.0\n{}", b"nan\n{}", b"1.0\n{}\n={", b"1.0\n{}\n=[]",
    b'1.0\n{}\n={"state": 3}', b'1.0\n{}\n={"state": "SUCCEEDED", "version": "x"}', b"\n\n\n=" + DEEP,
]  # fmt: skip


def test_notices(
    bench: Bench, client: Dispatcher, intruder: Intruder, start_worker: StartWorker, tmp_path: Path
) -> None:
    """Who waits hears of the end all the same, and the connection isn't lost over it."""
    start_worker(concurrency=2)
    path = tmp_path / "go"
    run = client.submit(waits, {"path": str(path)})
    ended: list[State] = []
    run.on_exit(lambda event: ended.append(event.state))
    future = client.submit(one)
    assert future.result(timeout=30) == 1
    bench.until(run.id, lambda record: record.state is State.RUNNING, "its start")
    subscribed = intruder.server.info("clients")["pubsub_clients"]
    for raw in NOTICES:
        for topic in (run.id, f"ended:{run.id}"):
            intruder.server.publish(intruder.keys.topic(topic), raw)
    path.touch()
    assert run.result(timeout=30) == 1
    wait_until(lambda: ended == [State.SUCCEEDED], "the callback")
    assert intruder.server.info("clients")["pubsub_clients"] == subscribed
    assert tally(bench) >= 1


def test_lines_and_blobs(bench: Bench, client: Dispatcher, intruder: Intruder, start_worker: StartWorker) -> None:
    start_worker(concurrency=1)
    run = client.submit(one)
    run.result(timeout=30)
    good = {"attempt": "1", "number": "1", "time": "3.0", "stream": "stdout", "level": "", "text": "good"}
    for bad in ({}, {"number": "x"}, {"time": "nan"}, {"attempt": "9" * 300}):
        intruder.server.xadd(intruder.keys.logs(run.id), {"text": "bad"} if not bad else {**good, **bad})
    intruder.server.xadd(intruder.keys.logs(run.id), good)
    assert [line.text for line in run.logs()] == ["good"]
    name = f"{run.id}/result"
    for parts in ("x", "1000000000000", "-3"):
        intruder.server.hset(intruder.keys.blobs(run.id), mapping={"result/parts": parts, "result/0": "x"})
        with pytest.raises(KeyError):
            bench.records.blobs.get(name)


def test_reports(bench: Bench, start_worker: StartWorker, intruder: Intruder, service: Path, tmp_path: Path) -> None:
    """A report of the next release, rightly made, is heard; whatever else lies in the inbox stops no other."""
    path = tmp_path / "go"
    worker = start_worker(backends=["fake"], concurrency=1, timing={"poll": 0.2})
    mine = bench.submit(waits, {"path": str(path)}, environment=FakeEnvironment(service))
    record = bench.until(mine, lambda record: record.state is State.RUNNING, "its start", timeout=60)
    assert record.request is not None
    token = attempt_token(bench.keys.run_key(mine), attempt=1, epoch=record.request["epoch"])
    shard = shard_of("fake", mine)

    def report(body: Any) -> dict[str, str]:
        text = body if isinstance(body, str) else json.dumps(body)
        return {"run": mine, "body": text, "mac": _mac(token, text)}

    plain = json.loads(Report(run_id=mine, attempt=1, about=About.ALIVE, outcome=Outcome()).to_entry(token)["body"])
    bodies: list[Any] = [
        "{",
        "[]",
        DEEP.decode(),
        {},
        {**plain, "attempt": "x"},
        {**plain, "attempt": 10**30},
        {**plain, "about": 3},
        {**plain, "outcome": []},
        {**plain, "outcome": {"cause": []}},
        {**plain, "outcome": {"result": {}}},
    ]
    poison: list[dict[str, Any]] = [
        *map(report, bodies),
        {"x": "y"},
        {"run": mine},
        {"run": mine, "body": "{}", "mac": ""},
        {"run": "\x1b[2J", "body": "", "mac": ""},
    ]
    for entry in poison:
        intruder.server.xadd(intruder.keys.inbox(shard), entry)
    newer = {**plain, "about": "settled", "hue": "blue"}
    newer["outcome"] = {"cause": "struck_by_lightning", "message": "a bolt", "hue": "blue"}
    intruder.server.xadd(intruder.keys.inbox(shard), report(newer))  # type: ignore[arg-type]
    settled = bench.until(mine, lambda record: record.outcome, "what the next release's runner said")
    assert settled.outcome is not None
    assert settled.outcome.to_json() | {"hue": "blue"} == settled.outcome.to_json()
    assert settled.outcome.to_json()["cause"] == "struck_by_lightning"
    path.touch()
    others = [bench.submit(one, environment=FakeEnvironment(service)) for _ in range(5)]
    for run_id in others:
        assert bench.ended(run_id).state is State.SUCCEEDED
    bench.ended(mine)
    assert tally(bench) >= 5
    assert "Traceback" not in worker.output


def test_handles_that_no_backend_knows(
    bench: Bench, start_worker: StartWorker, intruder: Intruder, service: Path, tmp_path: Path
) -> None:
    """A run of the shard whose handle says nothing stops neither what is seen of others nor their ends."""
    path = tmp_path / "go"
    start_worker(backends=["fake"], concurrency=1, timing={"poll": 0.2})
    mine = bench.submit(waits, {"path": str(path)}, environment=FakeEnvironment(service))
    bench.until(mine, lambda record: record.state is State.RUNNING, "its start", timeout=60)
    fields: dict[bytes, bytes] = intruder.server.hgetall(intruder.keys.run(mine))  # type: ignore[assignment]
    for number, handle in enumerate((b"{}", b'{"uid": []}', b'{"directory": 3, "name": {}, "uid": "u"}')):
        run_id = f"poison{number}"
        owner = fields[b"owner"].decode()
        mapping = {**fields, b"handle": handle}
        intruder.record(run_id, mapping, index={indexes.owned(owner): 99.0, indexes.OPEN: 1.0})
    others = [bench.submit(one, environment=FakeEnvironment(service)) for _ in range(3)]
    for run_id in others:
        assert bench.ended(run_id).state is State.SUCCEEDED
    path.touch()
    assert bench.ended(mine).state is State.SUCCEEDED


def message(**headers: Any) -> dict[str, Any]:
    """A doorbell of no run, with other headers."""
    ring = Ring(run_id=f"r{secrets.token_hex(8)}", task="dispatcher.execute", flow="one", route=Route("local"))
    made: dict[str, Any] = json.loads(envelope(ring))
    made["headers"] |= headers
    return made


def rung(body: Any, **headers: Any) -> dict[str, Any]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return {**message(**headers), "body": base64.b64encode(raw).decode()}


def following(name: str) -> dict[str, Any]:
    after = {"task": "dispatcher.execute", "args": [], "kwargs": {"run_id": "y"}, "options": {"queue": "local"}}
    return rung(
        [[], {"run_id": "x"}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None, name: [after]}]
    )


EXECUTE = {"task": "dispatcher.execute", "args": [], "kwargs": {}, "options": {}}

#: Messages that are no doorbells: dropped, and counted.
DROPPED: dict[str, bytes | dict[str, Any]] = {
    "deep": DEEP,
    "not json": b"\x80\x04",
    "empty": b"",
    "a number": b"1",
    "surrogate": b'{"body": "\\ud800"}',
    "large": b'"' + b"x" * (2 * 2**20) + b'"',
    "headers null": {**message(), "headers": None},
    "headers a list": {**message(), "headers": [1]},
    "properties null": {**message(), "properties": None},
    "body deep": rung(DEEP),
    "body not base64": {**message(), "body": "%"},
    "body of a run as a list": rung([[], {"run_id": [1]}, {}]),
    "body without a run": rung([[], {}, {}]),
    "body with a step as run": rung([[], {"run_id": 'a"],["FLUSHALL'}, {}]),
    "body as arguments by place": rung([[1, 2], {"run_id": "x"}, {}]),
    "body of a huge number": rung(b'[[], {"run_id": ' + b"9" * 5000 + b"}, {}]"),
    "bomb": rung(zlib.compress(b"\0" * (300 * 2**20), 9), compression="zlib"),
    "compression without": message(compression="zlib"),
    "compression unknown": message(compression="evil"),
    "pickle": {**message(), "content-type": "application/x-python-serialize"},
    "encoding": {**message(), "content-type": "application/x-yaml"},
    "map": rung([[], {"task": EXECUTE, "it": ["x"]}, {}], task="celery.map"),
    "starmap": rung([[], {"task": EXECUTE, "it": [["x"]]}, {}], task="celery.starmap"),
    "chunks": rung([[], {"task": EXECUTE, "it": [["x"]], "n": 1}, {}], task="celery.chunks"),
    "group": rung([[], {"tasks": [], "result": [], "group_id": "g", "partial_args": []}, {}], task="celery.group"),
    "chord": rung([[], {"group_id": "g", "callback": EXECUTE}, {}], task="celery.chord_unlock"),
    "cleanup": message(task="celery.backend_cleanup"),
    "task of another": message(task="os.system"),
    "task a list": message(task=["x"]),
    "id an object": message(id={}),
    "protocol 1": {**message(), "headers": {}},
}

#: Doorbells that say more than one may: the rest is ignored.
IGNORED: dict[str, dict[str, Any]] = {
    "eta": message(eta="2999-01-01T00:00:00"),
    "eta garbage": message(eta="x"),
    "expires": message(expires="2001-01-01T00:00:00"),
    "time limit": message(timelimit=[0.001, 0.001]),
    "time limit of words": message(timelimit=["a", "b"]),
    "retries": message(retries=10**30),
    "stamps": message(stamps={"x": 1}, stamped_headers=["x"]),
    "group": message(group={}, root_id=[]),
    "shadow": message(shadow="\x1b[2J"),
    "callbacks": following("callbacks"),
    "errbacks": following("errbacks"),
    "chain": following("chain"),
    "chord": following("chord"),
    "delivery": {**message(), "properties": {**message()["properties"], "delivery_info": None, "priority": "x"}},
}


def memory_of(pid: int) -> int:
    """Megabytes that a process holds."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) // 1024


def test_messages(bench: Bench, client: Dispatcher, intruder: Intruder, start_worker: StartWorker) -> None:
    """Row 34: a worker takes whatever lies in its queue, and goes on, with no more memory than before."""
    worker = start_worker(concurrency=1)
    assert client.submit(one).result(timeout=30) == 1
    before, queue = memory_of(worker.process.pid), f"{bench.records.instance}:local"
    for name, said in [*DROPPED.items(), *IGNORED.items()]:
        intruder.server.lpush(queue, said if isinstance(said, bytes) else json.dumps(said))
        assert client.submit(one).result(timeout=20) == 1, name
        assert worker.process.poll() is None, (name, worker.output)
        assert memory_of(worker.process.pid) < before + 100, name

    wait_until(lambda: tally(bench) >= len(DROPPED), "the count of those dropped")
    assert tally(bench) == len(DROPPED)
    assert "Traceback" not in worker.output
    assert "a message that is no doorbell was dropped" in worker.output


def test_a_time_limit_in_a_doorbell_ends_no_flow(
    bench: Bench, start_worker: StartWorker, intruder: Intruder, tmp_path: Path
) -> None:
    worker = start_worker(concurrency=1)
    path, waiting = tmp_path / "go", None
    waiting = bench.prepare(waits, {"path": str(path)})
    bell = json.loads(envelope(Ring(run_id=waiting.id, task="dispatcher.execute", flow="waits", route=Route("local"))))
    bell["headers"]["timelimit"] = [0.2, 0.1]
    bench.records.runs.create([waiting])
    intruder.server.lpush(f"{bench.records.instance}:local", json.dumps(bell))
    bench.until(waiting.id, lambda record: record.state is State.RUNNING, "its start")
    after = bench.records.runs.now() + 1.0
    wait_until(lambda: bench.records.runs.now() > after, "more than the time limit")
    path.touch()
    assert bench.ended(waiting.id).state is State.SUCCEEDED
    assert "time limit" not in worker.output


def test_what_a_run_requires_leaves_it_to_others(bench: Bench, start_worker: StartWorker, client: Dispatcher) -> None:
    """Neither failed nor begun, by whatever way it comes; and it says what it waits for."""
    from dataclasses import replace

    start_worker(concurrency=1)
    assert client.submit(one).result(timeout=30) == 1
    waiting = bench.prepare(one)
    raw = replace(waiting.spec, requires=("mask",)).to_bytes()
    newer = Record(
        id=waiting.id, spec_bytes=raw, signature=bench.keys.sign(waiting.id, raw), spec_digest=waiting.spec_digest
    )
    bench.records.runs.create([newer])
    for _ in range(3):
        assert client.submit(one).result(timeout=30) == 1
    rung_again = bench.until(newer.id, lambda record: record.rings > 1, "another ring")
    assert (rung_again.state, rung_again.epoch) == (State.QUEUED, 0)
    assert "It requires mask" in client.explain(newer.id)[0]
    assert What.DOORBELL not in bench.records.refusals.tallies()


def test_a_run_that_was_taken_by_a_wrong_guess_is_given_back(
    bench: Bench, start_worker: StartWorker, intruder: Intruder
) -> None:
    """Its record was made to say that it is of a kind which requires nothing: it isn't failed either."""
    from dataclasses import replace

    start_worker(concurrency=1, timing={"bell_lost": 60.0})
    kind = b""
    for _ in range(3):  # the worker learns what runs of the kind look like
        done = bench.submit(one)
        kind = intruder.server.hget(intruder.keys.run(done), "kind") or b""  # type: ignore[assignment]
        bench.ended(done)
    assert kind
    waiting = bench.prepare(one)
    raw = replace(waiting.spec, requires=("mask",)).to_bytes()
    record = Record(
        id=waiting.id, spec_bytes=raw, signature=bench.keys.sign(waiting.id, raw), spec_digest=waiting.spec_digest
    )
    queue = f"{bench.records.instance}:local"
    with intruder.server.pipeline() as pipe:
        like = intruder.server.hgetall(intruder.keys.run(done))
        fresh = {
            **{name: like[name] for name in (b"created_at", b"queued_at", b"rung_at")},  # type: ignore[index]
            b"id": record.id, b"spec_bytes": raw, b"signature": record.signature, b"spec_digest": record.spec_digest,
            b"state": "QUEUED", b"version": "1", b"rings": "1", b"kind": kind,
        }  # fmt: skip
        pipe.hset(intruder.keys.run(record.id), mapping=fresh)
        ring = Ring(run_id=record.id, task="dispatcher.execute", flow=waiting.spec.flow, route=Route("local"))
        pipe.lpush(queue, envelope(ring))
        pipe.execute()
    given_back = bench.until(record.id, lambda record: record.version > 2, "the claim, and the way back")
    assert (given_back.state, given_back.owner, given_back.attempt, given_back.started_at) == (
        State.QUEUED,
        "",
        1,
        None,
    )
    assert given_back.epoch == 2
