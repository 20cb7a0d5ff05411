"""Row 21 of the fault matrix: workers whose wall clocks are wrong, and jump."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dispatcher.runs.retry import Retry
from dispatcher.runs.states import State
from tests.chaos.conftest import ChaosServer
from tests.chaos.deployment import Deployment, passes
from tests.chaos.flows import read_marks
from tests.chaos.worker_group import TIMING
from tests.integration.workers import Worker

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

#: Seconds. Far less than the clocks are off.
LEASE = 6.0


@pytest.fixture
def deployment(chaos_server: ChaosServer, tmp_path: Path) -> Iterator[Deployment]:
    with Deployment(chaos_server.url, chaos_server.port, tmp_path, workers=0) as deployment:
        yield deployment


@pytest.fixture
def start(deployment: Deployment) -> Iterator[Callable[[Path], Worker]]:
    """Starts a worker whose wall clock is off as a file says."""
    started: list[Worker] = []

    def one(clock: Path) -> Worker:
        worker = Worker(
            deployment.proxy.url(),
            deployment.folder,
            command=("-m", "tests.chaos.skewed_worker", str(clock)),
            timing={**TIMING, "lease": LEASE},
            backends=["local"],
            drain=0.5,
        )
        started.append(worker)
        return worker

    try:
        yield one
    finally:
        for worker in started:
            worker.end()
            print(worker.output)  # noqa: T201 - pytest shows it where a test failed


@pytest.mark.row(21)
def test_row_21_clocks_are_wrong_and_jump(deployment: Deployment, start: Callable[[Path], Worker]) -> None:
    """One worker is 5 min early, one 5 min late, one's clock jumps: no lease ends by it, and nothing is claimed twice.

    A worker that does die is still found by the others, and a retry comes when it is due.
    """
    clocks = [
        tmp / name
        for tmp, name in [(deployment.folder, "early"), (deployment.folder, "late"), (deployment.folder, "jumps")]
    ]
    for clock, seconds in zip(clocks, (-300, 300, 0), strict=True):
        clock.write_text(str(seconds))
    workers = [start(clock) for clock in clocks]
    for worker in workers:
        worker.says("is ready", timeout=60)
    runs = deployment.submit(6, seconds=6.0)
    deployment.started(runs)
    for seconds in (3600, -3600, 0):
        clocks[2].write_text(str(seconds))
        runs += deployment.submit(3, seconds=0.1)
        passes(1.5)
    again = deployment.submit(way="raises", retries=Retry(1, delay=1.0))[0]
    records = deployment.settle(timeout=90)
    assert {(record.state, record.attempt) for record in records if record.id != again} == {(State.SUCCEEDED, 1)}
    assert {deployment.starts(run_id) for run_id in runs} == {1}
    assert deployment.bench.record(again).attempt == 2
    assert not [worker for worker in workers if "is dead" in worker.output]
    offsets = {round((mark.at - time.time()) / 300) for mark in read_marks(deployment.folder)}
    assert offsets >= {-1, 0, 1}  # as the flows saw it: the clocks were off indeed
    taken = deployment.submit(4, seconds=1.0)
    deployment.started(taken)
    workers[0].send(signal.SIGKILL)
    deployment.settle(timeout=90)
    print(f"taken over after {deployment.took:.1f} s at a lease of {LEASE:g} s")  # noqa: T201
