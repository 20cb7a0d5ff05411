"""Row 33 of the fault matrix: a durable subscriber that stores event ids has each effect exactly once."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dispatcher import Dispatcher, LocalEnvironment, Run, context, flow
from dispatcher.records.redis import open_redis
from dispatcher.records.snapshot import Snapshot
from dispatcher.runner.in_process import run_attempt
from dispatcher.settings import Settings
from tests.chaos.conftest import ChaosServer
from tests.chaos.subscriber import finals, opened, received_by, take
from tests.conftest import PYTHON
from tests.integration.stand_ins import ThreadWorker
from tests.integration.workers import KEYS, ROOT, Bench
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.row(33),
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:No live worker"),
]

HOUR = 3600.0


@flow
def answer() -> int:
    return context.attempt or 0


@pytest.fixture
def settings(chaos_server: ChaosServer) -> Settings:
    return Settings.load(url=chaos_server.url, signing_keys=json.dumps(KEYS))


@pytest.fixture
def client(settings: Settings) -> Iterator[Dispatcher]:
    with Dispatcher(settings=settings) as client, ThreadWorker(settings):
        yield client


def submit(client: Dispatcher, count: int) -> list[Run[Any]]:
    """Runs that have ended."""
    runs = [client.submit(answer, environment=LocalEnvironment(on_exit=int)) for _ in range(count)]
    assert [run.result(timeout=60) for run in runs] == [1] * count
    return runs


def check(file: Path, runs: list[Run[Any]]) -> None:
    """Each event of each run was delivered, and had its effect once."""
    received = received_by(file)
    expected = {event.id for run in runs for event in run.events()}
    assert {event for event, count in received.deliveries.items() if count} >= expected
    assert {n for (run_id, _, _), n in received.effects.items() if run_id in {run.id for run in runs}} == {1}
    exited = {(run_id, attempt) for run_id, attempt, kind in received.effects if kind == "exited"}
    assert exited >= {(run.id, 1) for run in runs}


def test_row_33_it_crashes_before_and_after_the_effect(client: Dispatcher, tmp_path: Path) -> None:
    """An unacknowledged event is delivered again; its stored id prevents a second effect."""
    file = tmp_path / "ledger"
    client.subscribe("before and after").close()
    runs = submit(client, 2)
    with closing(opened(file)) as db:
        with client.subscribe("before and after", timeout=10) as subscription:
            first = next(subscription)  # and it crashes before the effect
        with client.subscribe("before and after", timeout=10) as subscription:
            again = next(subscription)
            take(db, again)  # and it crashes before it could acknowledge
        with client.subscribe("before and after", timeout=1) as subscription:
            for event in subscription:
                take(db, event)
    assert again.id == first.id
    assert received_by(file).deliveries[first.id] == 2
    check(file, runs)


def test_row_33_it_is_absent_for_an_hour(
    client: Dispatcher, settings: Settings, chaos_server: ChaosServer, tmp_path: Path
) -> None:
    """By the clock: runs go on, what is past its retention is removed, and the subscriber still hears of all."""
    file = tmp_path / "ledger"
    client.subscribe("absent").close()
    runs = submit(client, 3)
    later = open_redis(chaos_server.url, clock_offset=HOUR)
    bench = Bench(chaos_server.url)
    try:
        record = later.runs.create([bench.prepare(answer, environment=LocalEnvironment(labels=["an hour later"]))])[0]
        run_attempt(later, bench.keys, settings, Snapshot(record, later.runs.now()), owner="later", holder="later")
        later.runs.purge()
    finally:
        later.close()
        bench.close()
    runs.append(client.get(record.id))
    begun = time.monotonic()
    with closing(opened(file)) as db, client.subscribe("absent", timeout=1) as subscription:
        for event in subscription:
            take(db, event)
    print(f"caught up after {time.monotonic() - begun - 1:.2f} s")  # noqa: T201
    check(file, runs)


def _begun(file: Path, times: int) -> None:
    """Wait until consumers have taken their place so many times."""
    with closing(opened(file)) as db:
        count = "select count(*) from subscribed"
        wait_until(lambda: db.execute(count).fetchone()[0] >= times, "both consumers", timeout=60)


def test_row_33_two_consumers_that_are_killed(client: Dispatcher, chaos_server: ChaosServer, tmp_path: Path) -> None:
    """Two processes of one name share its events; each is killed and started again while runs go by."""
    file = tmp_path / "ledger"
    environ = {
        "DISPATCHER__URL": chaos_server.url,
        "DISPATCHER__SIGNING_KEYS": json.dumps(KEYS),
        "PYTHONPATH": str(ROOT),
    }
    start = partial(
        subprocess.Popen, [PYTHON, "-m", "tests.chaos.subscriber", str(file), "two"], env={**os.environ, **environ}
    )
    consumers = [start(), start()]
    try:
        runs: list[Run[Any]] = []
        for number in range(4):
            _begun(file, number + 2)
            runs += submit(client, 5)
            consumers[number % 2].kill()
            consumers[number % 2].wait()
            consumers[number % 2] = start()
        begun = time.monotonic()
        wait_until(lambda: finals(file) >= len(runs), "all ends to be heard", timeout=60, every=0.1)
        print(f"all were heard {time.monotonic() - begun:.1f} s after the last kill")  # noqa: T201
    finally:
        for consumer in consumers:
            consumer.kill()
            consumer.wait()
    check(file, runs)
