"""Flows that fork: only the process that started an attempt reports for it."""

# ruff: noqa: T201 - flows print
from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from dispatcher import LocalEnvironment, context, flow
from dispatcher.runner.container.report import ReportKind
from dispatcher.runs.states import Cause, State
from tests.integration.runners import AssignedRun, RunnerProcess
from tests.integration.test_worker import cause_of, pid, result_of
from tests.integration.workers import Bench, Worker, is_alive
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

StartWorker = Callable[..., Worker]


def ended_with(child: int) -> int:
    """Return the exit status of a forked child."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@flow
def comes_back(how: str) -> Any:
    print("before the fork")
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.read(reader, 1)  # it has begun
        if how == "sleep":
            os.kill(child, signal.SIGTERM)
        status = ended_with(child)
        print("the child ended with", status)
        return "the parent", status
    os.write(writer, b"x")
    match how:
        case "os._exit":
            os._exit(5)
        case "raise":
            raise ValueError("in the child")
        case "exit":
            raise SystemExit(7)
        case "sleep":
            time.sleep(60)
    return "the child"


@flow
def leaves_a_child(path: str, *, dies: bool) -> str:
    if (child := os.fork()) == 0:
        time.sleep(60)
        return "the child"
    Path(path).write_text(str(child))
    if dies:
        os.kill(os.getpid(), signal.SIGKILL)
    return "the parent"


class Forks:
    """Forks while it is pickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        child = os.fork()
        return (str, (f"the child ended with {ended_with(child)}" if child else "the child",))


@flow
def gives_what_forks() -> Any:
    return Forks()


def exit_that_forks() -> None:
    if child := os.fork():
        context.logger.info("the child of on_exit ended with %s", ended_with(child))


@pytest.mark.parametrize(("how", "status"), [("os._exit", 5), ("return", 0), ("raise", 1), ("exit", 7), ("sleep", -15)])
def test_only_the_parent_ends_its_run(bench: Bench, start_worker: StartWorker, how: str, status: int) -> None:
    start_worker(concurrency=1)
    run_id = bench.submit(comes_back, {"how": how})
    assert result_of(bench, run_id) == ("the parent", status)
    assert bench.lines(run_id) == ["before the fork", f"the child ended with {status}"]
    assert [str(event.kind) for event in bench.events(run_id)].count("exited") == 1
    assert result_of(bench, bench.submit(pid)) == int(bench.record(run_id).holder.split(":")[1])


def test_what_forks_while_it_is_pickled_or_in_on_exit(bench: Bench, start_worker: StartWorker) -> None:
    start_worker(concurrency=1)
    pickled = bench.submit(gives_what_forks)
    assert result_of(bench, pickled) == "the child ended with 0"
    left = bench.submit(pid, environment=LocalEnvironment(on_exit=exit_that_forks))
    assert result_of(bench, left) == result_of(bench, bench.submit(pid))
    assert bench.lines(left) == ["the child of on_exit ended with 0"]


def test_a_child_that_lives_on_hides_no_death(bench: Bench, start_worker: StartWorker, tmp_path: Path) -> None:
    start_worker(concurrency=1)
    path = tmp_path / "child"
    run_id = bench.submit(leaves_a_child, {"path": str(path), "dies": True})
    record = bench.ended(run_id, timeout=20)
    assert (record.state, cause_of(record)) == (State.CRASHED, Cause.KILLED)
    child = int(path.read_text())
    wait_until(lambda: not is_alive(child), "the end of the child")


def test_a_child_that_lives_on_holds_up_nothing(bench: Bench, start_worker: StartWorker, tmp_path: Path) -> None:
    """The child ends with its process, and a fresh process takes the next run."""
    worker = start_worker(concurrency=1)
    path = tmp_path / "child"
    [process] = worker.children
    assert result_of(bench, bench.submit(leaves_a_child, {"path": str(path), "dies": False})) == "the parent"
    child = int(path.read_text())
    assert result_of(bench, bench.submit(pid)) not in {process, child}
    wait_until(lambda: not is_alive(child), "the end of the child")


@flow
def leaves_a_daemon(path: str, *, session: bool) -> None:
    """Leave a child that holds all open files of this process."""
    if (child := os.fork()) == 0:
        if session:
            os.setsid()
        time.sleep(60)
        os._exit(0)
    Path(path).write_text(str(child))


def seconds_to_start(bench: Bench, run_id: str) -> float:
    """Return how long an ended run had waited for a process."""
    times = {str(event.kind): event.time for event in bench.events(run_id)}
    return times["started"] - times["queued"]


@pytest.mark.parametrize("session", [False, True])
def test_no_run_waits_for_a_dead_process_whose_files_a_child_holds(
    bench: Bench, start_worker: StartWorker, tmp_path: Path, session: bool
) -> None:
    """The child keeps the pipe open by which Celery notices a death; it looks at the process itself after 5 s."""
    start_worker(concurrency=2)
    path = tmp_path / "child"
    waited = []
    try:
        for _ in range(3):
            bench.ended(bench.submit(leaves_a_daemon, {"path": str(path), "session": session}))
            runs = [bench.submit(pid) for _ in range(4)]
            for run_id in runs:
                bench.ended(run_id)
            waited += [seconds_to_start(bench, run_id) for run_id in runs]
            if session:
                os.kill(int(path.read_text()), signal.SIGKILL)
    finally:
        with suppress(ProcessLookupError):
            os.kill(int(path.read_text()), signal.SIGKILL)
    assert max(waited) < 2, waited


@contextmanager
def contained(bench: Bench, directory: Path, how: str) -> Iterator[RunnerProcess]:
    runner = RunnerProcess(AssignedRun(bench, directory, comes_back, parameters={"how": how}))
    try:
        yield runner
    finally:
        runner.end()
        print(runner.output)


@pytest.mark.parametrize(("how", "status"), [("return", 0), ("raise", 1), ("sleep", -15)])
def test_in_a_container_only_the_parent_reports(bench: Bench, tmp_path: Path, how: str, status: int) -> None:
    with contained(bench, tmp_path, how) as runner:
        assert runner.wait() == 0
        assert runner.assigned.report_kinds() == [ReportKind.EXITED]
        outcome = runner.assigned.report_of(ReportKind.EXITED).outcome
        assert outcome.state is State.SUCCEEDED
        assert bench.lines(runner.assigned.run_id) == ["before the fork", f"the child ended with {status}"]
