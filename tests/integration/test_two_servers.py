"""Records on one server, doorbells on another: ``DISPATCHER__BROKER_URL``."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import redis

from dispatcher import Dispatcher, LocalEnvironment, State, context, flow
from dispatcher.settings import Settings
from tests.conftest import PYTHON, Server
from tests.integration.workers import KEYS, QUICK, ROOT, Worker
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore:No live worker")]

StartWorker = Callable[..., Worker]


@pytest.fixture
def broker() -> Iterator[Server]:
    """A second server."""
    with Server.temporary() as server:
        yield server


@pytest.fixture
def client(server_url: str, broker: Server) -> Iterator[Dispatcher]:
    settings = Settings.load(url=server_url, broker_url=broker.url, signing_keys=json.dumps(KEYS), timing=QUICK)
    with Dispatcher(settings=settings) as dispatcher:
        yield dispatcher


@pytest.fixture
def start(start_worker: StartWorker, broker: Server) -> StartWorker:
    """Starts workers that know both servers."""
    return partial(start_worker, environ={"DISPATCHER__BROKER_URL": broker.url})


def keys(url: str) -> set[str]:
    with redis.Redis.from_url(url) as raw:
        return {key.decode() for key in raw.scan_iter()}


@flow
def add(a: int, b: int = 1) -> int:
    return a + b


@flow
def second_time_lucky() -> int:
    if context.attempt == 1:
        raise RuntimeError("not yet")
    return context.attempt or 0


@flow
def slow(seconds: float) -> None:
    time.sleep(seconds)


def test_runs_retries_labels_and_cancels(
    client: Dispatcher, start: StartWorker, server_url: str, broker: Server, tmp_path: Path
) -> None:
    worker = start(labels=["gpu"], every_label=True)
    runs = [client.submit(add, {"a": 1}), *client.map(add, [{"a": 2}, {"a": 3}])]
    assert [run.result(timeout=30) for run in runs] == [2, 3, 4]
    assert client.submit(second_time_lucky, retries=1).result(timeout=30) == 2
    new = client.submit(add, {"a": 4}, environment=LocalEnvironment(labels=["learnt later"]))
    assert new.result(timeout=30) == 5
    unwanted = client.submit(slow, {"seconds": 60.0})
    wait_until(lambda: unwanted.state is State.RUNNING, "the start")
    unwanted.cancel()
    client.wait([unwanted], timeout=30)
    assert unwanted.state is State.CANCELLED

    instance = client.records.instance
    assert not any(f"{instance}:local" in key or "_kombu" in key for key in keys(server_url)), "no doorbell there"
    assert not any(run.id in key for run in runs for key in keys(broker.url)), "no record there"
    variables = {"DISPATCHER__URL": server_url, "DISPATCHER__BROKER_URL": broker.url}
    done = subprocess.run(
        [PYTHON, "-m", "celery", "-A", "workers.app", "inspect", "ping"], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, **variables, "PYTHONPATH": str(ROOT)}, timeout=60, check=False,
    )  # fmt: skip
    assert "pong" in done.stdout, done.stdout + done.stderr
    assert worker.process.poll() is None


def test_a_broker_that_loses_all_costs_latency_alone(client: Dispatcher, start: StartWorker, broker: Server) -> None:
    worker = start(concurrency=1)
    assert client.submit(add, {"a": 1}).result(timeout=30) == 2
    running = client.submit(slow, {"seconds": 4.0})
    wait_until(lambda: running.state is State.RUNNING, "the start")
    waiting = client.submit(add, {"a": 2})
    broker.flush()
    broker.kill()
    unheard = client.submit(add, {"a": 3})
    broker.start()
    assert [run.result(timeout=60) for run in (running, waiting, unheard)] == [None, 3, 4]
    assert running.timeline()
    assert {client.records.runs.get(run.id)[0].attempt for run in (running, waiting, unheard)} == {1}
    assert worker.process.poll() is None
