"""A worker that is told to stop does so soon, whatever its pool processes have just received."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest
import redis

from dispatcher import flow
from dispatcher.runs.states import Cause, State
from tests.integration.workers import Bench, Worker
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

StartWorker = Callable[..., Worker]


@flow
def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@pytest.fixture
def taken(bench: Bench, start_worker: StartWorker, server_url: str) -> Iterator[tuple[Worker, str]]:
    """A worker that has passed a doorbell to its one pool process, which hasn't acknowledged it yet."""
    worker = start_worker(concurrency=1)
    (pid,) = worker.children
    os.kill(pid, signal.SIGSTOP)
    run_id = bench.submit(nap, {"seconds": 60.0})
    with redis.Redis.from_url(server_url) as client:
        wait_until(lambda: not client.llen(f"{bench.records.instance}:local"), "the doorbell to be read")
    try:
        yield worker, run_id
    finally:
        if pid in worker.children:
            os.kill(pid, signal.SIGCONT)


def goes(worker: Worker, bench: Bench, run_id: str) -> None:
    """The pool process goes on; the run ends as the drain demands, and the worker with it."""
    (pid,) = worker.children
    os.kill(pid, signal.SIGCONT)
    record = bench.ended(run_id)
    assert record.outcome is not None
    assert (record.state, record.outcome.cause) == (State.CRASHED, Cause.PREEMPTED)
    assert worker.wait(15) == 0, "billiard lets a pool process wait for 30 s"


def test_a_run_taken_just_before_sigterm_is_drained(taken: tuple[Worker, str], bench: Bench) -> None:
    worker, run_id = taken
    worker.send(signal.SIGTERM)
    worker.says("Shutting down: 0 flows")
    goes(worker, bench, run_id)


def test_a_run_taken_just_before_a_shutdown_by_celery_holds_it_up_no_longer(
    taken: tuple[Worker, str], bench: Bench, server_url: str
) -> None:
    from dispatcher.broker.celery_app import make_app

    worker, run_id = taken
    make_app(bench.settings, bench.records.instance).control.broadcast("shutdown")
    worker.says("Shutting down: 0 flows")
    goes(worker, bench, run_id)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGINT, 0), (signal.SIGQUIT, 1)]
)
def test_the_exit_status_tells_whether_it_drained(start_worker: StartWorker, number: int, status: int) -> None:
    worker = start_worker(concurrency=1)
    worker.says("is ready")
    worker.send(number)
    assert worker.wait() == status
