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
from tests.chaos.flows import read_marks
from tests.chaos.testbed import Testbed, passes
from tests.chaos.worker_group import TIMING
from tests.integration.workers import Worker

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

#: Seconds. Far less than the clocks are off.
LEASE = 6.0


@pytest.fixture
def testbed(chaos_server: ChaosServer, tmp_path: Path) -> Iterator[Testbed]:
    with Testbed(chaos_server.url, chaos_server.port, tmp_path, workers=0) as one:
        yield one


@pytest.fixture
def start(testbed: Testbed) -> Iterator[Callable[[Path], Worker]]:
    """Starts a worker whose wall clock is off as a file says."""
    started: list[Worker] = []

    def one(clock: Path) -> Worker:
        worker = Worker(
            testbed.proxy.url(),
            testbed.folder,
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
def test_row_21_clocks_are_wrong_and_jump(testbed: Testbed, start: Callable[[Path], Worker]) -> None:
    """One worker is 5 min early, one 5 min late, one's clock jumps: no lease ends by it, and nothing is claimed twice.

    A worker that does die is still found by the others, and a retry comes when it is due.
    """
    clocks = [
        tmp / name for tmp, name in [(testbed.folder, "early"), (testbed.folder, "late"), (testbed.folder, "jumps")]
    ]
    for clock, seconds in zip(clocks, (-300, 300, 0), strict=True):
        clock.write_text(str(seconds))
    workers = [start(clock) for clock in clocks]
    for worker in workers:
        worker.says("is ready", timeout=60)
    runs = testbed.submit(6, seconds=6.0)
    testbed.started(runs)
    for seconds in (3600, -3600, 0):
        clocks[2].write_text(str(seconds))
        runs += testbed.submit(3, seconds=0.1)
        passes(1.5)
    again = testbed.submit(way="raises", retries=Retry(1, delay=1.0))[0]
    records = testbed.settle(timeout=90)
    assert {(record.state, record.attempt) for record in records if record.id != again} == {(State.SUCCEEDED, 1)}
    assert {testbed.starts(run_id) for run_id in runs} == {1}
    assert testbed.bench.record(again).attempt == 2
    assert not [worker for worker in workers if "is dead" in worker.output]
    seen = {round((mark.at - time.time()) / 300) for mark in read_marks(testbed.folder)}
    assert seen >= {-1, 0, 1}  # as the flows saw it: the clocks were off indeed
    taken = testbed.submit(4, seconds=1.0)
    testbed.started(taken)
    workers[0].send(signal.SIGKILL)
    testbed.settle(timeout=90)
    print(f"taken over after {testbed.took:.1f} s at a lease of {LEASE:g} s")  # noqa: T201
