"""``on_exit`` of a flow whose process died in a container: a fresh process of the container calls it, once.

Real processes on the real server; the test plays backend and supervisor.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatcher import context
from dispatcher.runner.container.report import ReportKind
from dispatcher.runs.outcome import ExitCall
from dispatcher.runs.states import Cause
from tests.integration.runners import AssignedRun, RunnerProcess, launcher
from tests.integration.test_runner import double, ignores_interrupts, leave, running, slow_exit, wait
from tests.integration.workers import Bench
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

Start = Callable[..., RunnerProcess]
Make = Callable[..., AssignedRun]


@pytest.fixture
def make(bench: Bench, tmp_path: Path) -> Make:
    def make_run(body: Any, **options: Any) -> AssignedRun:
        return AssignedRun(bench, tmp_path, body, **options)

    return make_run


@pytest.fixture
def start() -> Iterator[Start]:
    with launcher() as launch:
        yield launch


def tells_file(path: str) -> Callable[[], None]:
    def on_exit() -> None:
        print(f"on_exit: {context.state}")  # noqa: T201
        with Path(path).open("a") as file:
            file.write(f"{context.state} {type(context.exception).__name__} {context.parameters.get('seconds')}\n")

    return on_exit


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_fresh_process_calls_on_exit_after_the_flows_was_killed(
    make: Make, start: Start, tmp_path: Path, bench: Bench, number: int
) -> None:
    written = tmp_path / "written"
    parameters = {"path": str(tmp_path / "on"), "seconds": 61}
    assigned = make(wait, parameters=parameters, on_exit=tells_file(str(written)))
    runner = start(assigned)
    os.kill(running(assigned, tmp_path / "on"), number)
    assert runner.wait() == 128 + number
    assert written.read_text() == "CRASHED NoneType 61\n"
    assert assigned.report_kinds() == [ReportKind.SETTLED, ReportKind.DIED]
    for kind in (ReportKind.SETTLED, ReportKind.DIED):
        assert assigned.report_of(kind).outcome.cause is Cause.KILLED
    assert assigned.report_of(ReportKind.DIED).exit_call is ExitCall.CALLED
    assert bench.lines(assigned.run_id)[-1] == "on_exit: CRASHED"
    assert "on_exit: CRASHED" in runner.output
    assert runner.message is not None
    assert (runner.message.cause, runner.message.reported) == ("killed", True)


def test_a_flow_that_ignores_its_timeout_gets_its_on_exit_too(make: Make, start: Start, tmp_path: Path) -> None:
    written = tmp_path / "written"
    parameters = {"path": str(tmp_path / "on")}
    runner = start(make(ignores_interrupts, parameters=parameters, timeout=5, on_exit=tells_file(str(written))))
    assert runner.wait() == 137
    assert written.read_text() == "TIMED_OUT NoneType None\n"
    assert runner.assigned.report_of(ReportKind.DIED).exit_call is ExitCall.CALLED


def test_an_on_exit_in_place_of_the_flows_is_killed_after_its_time(make: Make, start: Start, tmp_path: Path) -> None:
    assigned = make(leave, parameters={"code": 3}, on_exit=slow_exit)
    runner = start(assigned)
    assert runner.wait() == 3
    report = assigned.report_of(ReportKind.DIED)
    assert (report.outcome.cause, report.exit_call) == (Cause.RESULT_MISSING, ExitCall.INTERRUPTED)
    assert "on_exit begins" in runner.output


def test_the_on_exit_of_a_flow_that_ignores_sigterm_ends_within_the_grace(
    make: Make, start: Start, tmp_path: Path
) -> None:
    """The flow has two thirds of it, and its on_exit all but some seconds of the rest."""
    assigned = make(ignores_interrupts, parameters={"path": str(tmp_path / "on")}, on_exit=slow_exit)
    runner = start(assigned, grace=24.0)
    running(assigned, tmp_path / "on")
    runner.stop()
    began = time.monotonic()
    assert runner.wait() == 137
    assert time.monotonic() - began < 24.0
    assert assigned.report_of(ReportKind.DIED).exit_call is ExitCall.INTERRUPTED


def test_an_on_exit_is_not_begun_without_the_time_for_it(make: Make, start: Start, tmp_path: Path) -> None:
    assigned = make(ignores_interrupts, parameters={"path": str(tmp_path / "on")}, on_exit=slow_exit)
    runner = start(assigned, grace=6.0)
    running(assigned, tmp_path / "on")
    runner.stop()
    assert runner.wait() == 137
    assert assigned.report_kinds() == [ReportKind.DIED]
    assert assigned.report_of(ReportKind.DIED).exit_call is None
    assert "on_exit begins" not in runner.output


def test_an_on_exit_that_killed_its_process_is_not_called_again(make: Make, start: Start, tmp_path: Path) -> None:
    written = tmp_path / "written"

    def on_exit() -> None:
        with written.open("a") as file:
            file.write("called\n")
        os.kill(os.getpid(), signal.SIGKILL)

    assigned = make(double, parameters={"number": 1}, on_exit=on_exit)
    assert start(assigned).wait() == 137
    assert written.read_text() == "called\n"
    assert assigned.report_of(ReportKind.DIED).exit_call is None


def test_a_stop_signal_leaves_an_on_exit_in_place_of_the_flows_its_time(
    make: Make, start: Start, tmp_path: Path
) -> None:
    written = tmp_path / "written"

    def on_exit() -> None:
        written.write_text("begun")
        wait_until(lambda: written.read_text() == "end", "the test's word", timeout=30)

    assigned = make(leave, parameters={"code": 3}, on_exit=on_exit)
    runner = start(assigned, grace=60.0)
    wait_until(lambda: written.exists() and written.read_text() == "begun", "on_exit", timeout=60)
    runner.stop()
    written.write_text("end")
    assert runner.wait() == 3
    assert assigned.report_of(ReportKind.DIED).exit_call is ExitCall.CALLED
