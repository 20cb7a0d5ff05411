"""Cancels that a runner reads in its run's record, because no SIGTERM tells it: real processes on the real server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dispatcher import flow
from dispatcher.runner.container.report import ReportKind
from dispatcher.runs import transitions
from dispatcher.runs.states import Cause, State
from tests.integration.runners import AssignedRun, RunnerProcess, launcher
from tests.integration.workers import Bench
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

Start = Callable[..., RunnerProcess]

LINGER = {"DISPATCHER__RUN__LINGER": "30"}


@flow
def wait(path: str, seconds: float = 60.0) -> str:
    Path(path).write_text("on")
    time.sleep(seconds)
    return "waited"


@pytest.fixture
def start() -> Iterator[Start]:
    with launcher() as launch:
        yield launch


def assign(bench: Bench, folder: Path, **parameters: Any) -> AssignedRun:
    return AssignedRun(bench, folder, wait, parameters={"path": str(folder / "on"), **parameters})


def cancel(assigned: AssignedRun) -> None:
    assigned.bench.records.runs.update(assigned.run_id, partial(transitions.request_cancel))


def test_a_runner_whose_run_was_cancelled_before_its_claim_ends_at_once(
    bench: Bench, start: Start, tmp_path: Path
) -> None:
    """A SIGTERM that came before PID 1 handled it isn't sent again."""
    assigned = assign(bench, tmp_path)
    cancel(assigned)
    assert start(assigned).wait(timeout=30) == 0
    assert bench.record(assigned.run_id).state is State.CANCELLING, "its supervisor ends it"
    assert not (tmp_path / "on").exists()


def test_a_runner_with_side_cars_reads_its_cancel(bench: Bench, start: Start, tmp_path: Path) -> None:
    assigned = assign(bench, tmp_path)
    runner = start(assigned, grace=90, variables={"DISPATCHER__RUN__CANCEL_POLL": "1"})
    wait_until((tmp_path / "on").exists, "the flow's start", timeout=60)
    assert assigned.record.state is State.RUNNING
    cancel(assigned)
    assert runner.wait(timeout=30) == 0
    assert assigned.report_of(ReportKind.EXITED).outcome.cause is Cause.CANCELLED


def test_a_runner_waits_for_the_deletion_of_its_pod_once_its_end_is_reported(
    bench: Bench, start: Start, tmp_path: Path
) -> None:
    assigned = assign(bench, tmp_path, seconds=0)
    runner = start(assigned, variables=LINGER)
    wait_until(lambda: ReportKind.EXITED in assigned.report_kinds(), "the report", timeout=60)
    wait_until(lambda: runner.message is not None and runner.message.reported, "its message", timeout=30)
    children = Path(f"/proc/{runner.process.pid}/task/{runner.process.pid}/children")
    wait_until(lambda: not children.read_text(encoding="utf-8"), "the end of the process that ran the flow")
    assert runner.process.poll() is None
    runner.stop()
    assert runner.wait(timeout=20) == 0
