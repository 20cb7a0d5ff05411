"""Row 34 of the fault matrix: a worker takes any message from its queue, and goes on."""

from __future__ import annotations

import base64
import json
import secrets
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dispatcher import Dispatcher
from dispatcher.broker.doorbell import envelope
from dispatcher.runs.change import Ring
from dispatcher.runs.routing import Route
from dispatcher.runs.states import State
from tests.integration.intruder import DEEP, Intruder, one, tally, waits
from tests.integration.workers import Bench, Worker
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.row(34),
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:No live worker"),
]

StartWorker = Callable[..., Worker]


def message(**headers: Any) -> dict[str, Any]:
    """Return a doorbell of no run, with other headers."""
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
    """Return the megabytes that a process has used at most."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) // 1024


def test_messages(bench: Bench, client: Dispatcher, intruder: Intruder, start_worker: StartWorker) -> None:
    """A worker takes any message from its queue, and goes on, with no more memory than before."""
    worker = start_worker(concurrency=1)
    assert client.submit(one).result(timeout=30) == 1
    before, queue = memory_of(worker.process.pid), f"{bench.records.instance}:local"
    for name, message in [*DROPPED.items(), *IGNORED.items()]:
        intruder.server.lpush(queue, message if isinstance(message, bytes) else json.dumps(message))
        assert client.submit(one).result(timeout=20) == 1, name
        assert worker.process.poll() is None, (name, worker.output)
        assert memory_of(worker.process.pid) < before + 100, name

    wait_until(lambda: tally(bench) >= len(DROPPED), "the count of those dropped")
    assert tally(bench) == len(DROPPED)
    assert "Traceback" not in worker.output
    assert "A message that isn't a doorbell was dropped" in worker.output


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
