"""The heartbeat of a runner in a container, at which it reads whether its attempt is still wanted."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatcher import flow
from dispatcher.runner.container.report import ReportKind
from dispatcher.runs.outcome import ExitCall
from dispatcher.runs.states import Cause
from tests.integration.runners import AssignedRun, RunnerProcess
from tests.integration.workers import Bench, is_alive
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

#: Starts a runner and waits for its flow; returns both, and the pid of the flow's process.
Start = Callable[..., tuple[AssignedRun, RunnerProcess, int]]


@flow
def wait(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(120)


@flow
def ignores_interrupts(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    while True:
        try:
            time.sleep(120)
        except BaseException:
            continue


@pytest.fixture
def start(bench: Bench, tmp_path: Path) -> Iterator[Start]:
    runners: list[RunnerProcess] = []

    def launch(body: Any, *, grace: float = 30.0) -> tuple[AssignedRun, RunnerProcess, int]:
        path = tmp_path / "on"
        assigned = AssignedRun(bench, tmp_path, body, parameters={"path": str(path)})
        runners.append(RunnerProcess(assigned, grace=grace))
        text = wait_until(lambda: path.exists() and path.read_text(), "the flow's start", timeout=60)
        return assigned, runners[-1], int(str(text))

    yield launch
    for runner in runners:
        print(runner.output)  # noqa: T201 - pytest shows it where a test failed
        runner.end()


def test_a_cancel_without_a_signal(start: Start) -> None:
    """Nobody may be able to send the signal: no worker lives, or none may delete the pod."""
    assigned, runner, pid = start(wait)
    assigned.request_cancel()
    assert runner.wait() == 0
    report = assigned.report_of(ReportKind.EXITED)
    assert (report.outcome.cause, report.exit_call) == (Cause.CANCELLED, ExitCall.NONE)
    assert not is_alive(pid)


def test_a_cancel_is_enforced(start: Start) -> None:
    """A flow that ignores it is killed after two thirds of the grace, as after SIGTERM."""
    assigned, runner, _ = start(ignores_interrupts, grace=3)
    assigned.request_cancel()
    runner.wait()
    assert assigned.report_of(ReportKind.DIED)


def test_a_closed_attempt_stops(start: Start) -> None:
    assigned, runner, pid = start(wait)
    assigned.close()
    assert runner.wait() == 143
    assert not is_alive(pid)
