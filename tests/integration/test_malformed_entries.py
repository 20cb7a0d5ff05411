"""Row 34 of the fault matrix: a malformed entry affects nothing but itself.

Routes, workers, beats, leases, events, notices, lines, blobs, reports and handles, on a real server with real workers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backends.fake import FakeEnvironment
from dispatcher import Dispatcher, LocalEnvironment
from dispatcher.records.events import ends_topic
from dispatcher.runner.container.report import Report, ReportKind, _mac
from dispatcher.runs import indexes
from dispatcher.runs.attempt import shard_of
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.routing import Route
from dispatcher.runs.states import State
from tests.integration.intruder import DEEP, Intruder, one, tally, waits
from tests.integration.workers import Bench, Worker
from tests.unit.command import call
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.row(34),
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:No live worker"),
]

StartWorker = Callable[..., Worker]


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
    it.server.hset(it.keys.routes, queue, raw)
    it.server.publish(it.keys.topic("queues"), "")


def presented(it: Intruder, raw: bytes) -> None:
    it.server.hset(it.keys.workers, "stranger", raw)
    it.server.zadd(it.keys.beaten, {"stranger": it.bench.records.runs.now() + 1000})


def test_all_other_entries(
    bench: Bench, start_worker: StartWorker, client: Dispatcher, intruder: Intruder, server_url: str, service: Path
) -> None:
    """Worker listing, new queues, leases, supervision and subscribers: all at once, and each by itself."""
    worker = start_worker(backends=["local", "fake"], concurrency=1, timing={"poll": 0.2}, labels=["x"])
    client.submit(one, environment=LocalEnvironment(labels=["x"])).result(timeout=30)
    events = client.subscribe("watcher", timeout=20)
    for name, write in OTHERS.items():
        before = worker.output.count("Traceback")
        write(intruder)
        run = client.submit(one, environment=LocalEnvironment(labels=["x"]))
        assert run.result(timeout=30) == 1, name
        status = call("status", "--url", server_url)
        assert status.exit_code == 0, (name, status)
        assert worker.output.count("Traceback") == before, (name, worker.output)
    shards = bench.submit(one, environment=FakeEnvironment(service, labels=["x"]))
    assert bench.ended(shards).state is State.SUCCEEDED
    new = client.submit(one, environment=LocalEnvironment(labels=["x"]))
    end = next(event for event in events if event.run_id == new.id and event.final)
    assert end.state is State.SUCCEEDED
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
    assert "The server is unavailable" not in worker.output


NOTICES: list[bytes] = [
    b"\xff\xfe", b"x", b"1.0\n{", b"1.0\n" + DEEP, b"1.0\n{}", b"nan\n{}", b"1.0\n{}\n={", b"1.0\n{}\n=[]",
    b'1.0\n{}\n={"state": 3}', b'1.0\n{}\n={"state": "SUCCEEDED", "version": "x"}', b"\n\n\n=" + DEEP,
]  # fmt: skip


def test_notices(
    bench: Bench, client: Dispatcher, intruder: Intruder, start_worker: StartWorker, tmp_path: Path
) -> None:
    """Waiting clients get the end of their run nevertheless, and keep their connection."""
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
        for topic in (run.id, ends_topic(run.id)):
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
    """A valid report of the next release is read; no other entry of the inbox blocks it."""
    path = tmp_path / "go"
    worker = start_worker(backends=["fake"], concurrency=1, timing={"poll": 0.2})
    mine = bench.submit(waits, {"path": str(path)}, environment=FakeEnvironment(service))
    record = bench.until(mine, lambda record: record.state is State.RUNNING, "its start", timeout=60)
    assert record.request is not None
    token = bench.keys.token(mine, 1, record.request["epoch"])
    shard = shard_of("fake", mine)

    def report(body: Any) -> dict[str, str]:
        text = body if isinstance(body, str) else json.dumps(body)
        return {"run": mine, "body": text, "mac": _mac(token, text)}

    plain = json.loads(Report(run_id=mine, attempt=1, kind=ReportKind.ALIVE, outcome=Outcome()).to_entry(token)["body"])
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
    intruder.server.xadd(intruder.keys.inbox(shard), report(newer))
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
    """A run of the shard with an unreadable handle blocks neither the observation of others nor their ends."""
    path = tmp_path / "go"
    start_worker(backends=["fake"], concurrency=1, timing={"poll": 0.2})
    mine = bench.submit(waits, {"path": str(path)}, environment=FakeEnvironment(service))
    bench.until(mine, lambda record: record.state is State.RUNNING, "its start", timeout=60)
    fields: dict[bytes, bytes] = intruder.server.hgetall(intruder.keys.run(mine))
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
