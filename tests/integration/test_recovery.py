"""Whatever dies, each run ends exactly once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from dispatcher import LocalEnvironment, context, flow
from dispatcher.runs.outcome import ExitCall
from dispatcher.runs.record import Record
from dispatcher.runs.states import Cause, State
from tests.conftest import Server
from tests.integration.workers import Bench, Worker, is_alive
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

StartWorker = Callable[..., Worker]


@flow
def mark(path: str, seconds: float = 60.0) -> int:
    """Write a line per attempt; the first attempts are slow, the third is quick."""
    with Path(path).open("a") as file:
        file.write(f"{context.attempt} {os.getpid()}\n")
    sys.stdout.write("still here\n")
    time.sleep(seconds if context.attempt and context.attempt < 3 else 0)
    return context.attempt or 0


@flow
def with_child(path: str) -> None:
    child = subprocess.Popen(["sleep", "300"])
    Path(path).write_text(f"{child.pid} {os.getpid()}\n")
    time.sleep(300)


@flow
def suicide() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def cause_of(record: Record) -> Cause | None:
    assert record.outcome is not None
    return record.outcome.cause


def marks(path: Path, count: int = 1) -> list[tuple[int, int]]:
    """Wait for a number of attempts; return the number and pid of each."""

    def read() -> list[str]:
        return path.read_text().splitlines() if path.exists() else []

    wait_until(lambda: len(read()) >= count, f"{count} attempts", timeout=40)
    return [(int(line.split()[0]), int(line.split()[1])) for line in read()]


def exits(bench: Bench, run_id: str) -> list[tuple[int, str | None, bool]]:
    """Return attempt, cause and finality of each exited event."""
    return [
        (event.attempt, event.data.get("cause"), event.final)
        for event in bench.events(run_id)
        if event.kind == "exited"
    ]


def test_a_killed_pool_process(bench: Bench, start_worker: StartWorker, tmp_path: Path) -> None:
    worker = start_worker()
    path = tmp_path / "said"

    def on_exit() -> None:
        path.write_text(f"{context.state} {context.attempt}")

    run_id = bench.submit(mark, {"path": str(tmp_path / "marks")}, environment=LocalEnvironment(on_exit=on_exit))
    [(_, pid)] = marks(tmp_path / "marks")
    wait_until(lambda: "still here" in bench.lines(run_id), "the flow's line")
    os.kill(pid, signal.SIGKILL)
    record = bench.ended(run_id)
    assert (record.state, cause_of(record), record.exit_call) == (State.CRASHED, Cause.KILLED, ExitCall.CALLED)
    assert record.outcome is not None
    assert record.outcome.exit_code == 137
    assert "SIGKILL" in record.outcome.message
    assert record.outcome.log_tail == ("still here",)
    assert path.read_text() == "CRASHED 1"
    assert exits(bench, run_id) == [(1, "killed", True)]
    crashed = bench.submit(suicide)
    record = bench.ended(crashed)
    assert (record.state, cause_of(record)) == (State.CRASHED, Cause.KILLED)
    assert "SIGSEGV" in (record.outcome.message if record.outcome else "")
    wait_until(lambda: len(worker.children) == 2, "a full pool")


def test_the_children_of_a_killed_pool_process_go_with_it(
    bench: Bench, start_worker: StartWorker, tmp_path: Path
) -> None:
    start_worker(concurrency=1)
    run_id = bench.submit(with_child, {"path": str(tmp_path / "pids")}, retries=0)
    wait_until(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text(), "the child", timeout=30)
    child, flow_pid = map(int, (tmp_path / "pids").read_text().split())
    os.kill(flow_pid, signal.SIGKILL)
    assert bench.ended(run_id).state is State.CRASHED
    wait_until(lambda: not is_alive(child), "the child's end")


def test_a_dead_worker_is_replaced(bench: Bench, start_worker: StartWorker, tmp_path: Path) -> None:
    first = start_worker()
    retried = bench.submit(mark, {"path": str(tmp_path / "kept")}, retries=3)
    once = bench.submit(mark, {"path": str(tmp_path / "once")})
    marks(tmp_path / "kept")
    [(_, pid)] = marks(tmp_path / "once")
    first.send(signal.SIGKILL)
    first.wait()
    died = time.monotonic()
    wait_until(lambda: not is_alive(pid), "the end of the flow's process")
    start_worker()
    record = bench.ended(once)
    assert (record.state, cause_of(record)) == (State.CRASHED, Cause.WORKER_LOST)
    assert time.monotonic() - died < 15  # a second of this test's timings is 15 s of production's
    second = marks(tmp_path / "kept", 2)[1][1]
    os.kill(second, signal.SIGKILL)
    record = bench.ended(retried)
    assert (record.state, record.attempt, record.retries_used) == (State.SUCCEEDED, 3, 2)
    assert exits(bench, retried) == [(1, "worker_lost", False), (2, "killed", False), (3, None, True)]
    assert bench.records.workers.beats().keys() == {info.id for info in bench.records.workers.live()}


@pytest.mark.row(8)
def test_a_frozen_worker_kills_what_was_taken_from_it(bench: Bench, start_worker: StartWorker, tmp_path: Path) -> None:
    frozen = start_worker(concurrency=1)
    run_id = bench.submit(mark, {"path": str(tmp_path / "marks")}, retries=3)
    [(_, pid)] = marks(tmp_path / "marks")
    frozen.send(signal.SIGSTOP)
    start_worker(concurrency=1)
    second = marks(tmp_path / "marks", 2)[1][1]
    assert is_alive(pid)  # the old flow runs on: only its records are guarded
    frozen.send(signal.SIGCONT)
    wait_until(lambda: not is_alive(pid), "the end of the old flow")
    assert is_alive(second)
    os.kill(second, signal.SIGKILL)
    record = bench.ended(run_id)
    assert (record.state, record.attempt) == (State.SUCCEEDED, 3)
    wait_until(lambda: len(bench.records.workers.live()) == 2, "both workers")
    assert [number for number, _ in marks(tmp_path / "marks", 3)] == [1, 2, 3]


def test_sigterm_drains(bench: Bench, start_worker: StartWorker, tmp_path: Path) -> None:
    worker = start_worker(drain=20.0)
    run_id = bench.submit(mark, {"path": str(tmp_path / "marks"), "seconds": 4.0})
    marks(tmp_path / "marks")
    worker.send(signal.SIGTERM)
    time.sleep(1.0)
    waiting = bench.submit(mark, {"path": str(tmp_path / "waiting"), "seconds": 0.0})
    assert worker.wait() == 0
    assert bench.record(run_id).state is State.SUCCEEDED
    assert bench.record(waiting).state is State.QUEUED
    assert bench.records.workers.beats() == {}
    start_worker()
    assert bench.ended(waiting).state is State.SUCCEEDED


def test_what_outlives_the_drain_is_preempted(bench: Bench, start_worker: StartWorker, tmp_path: Path) -> None:
    worker = start_worker(drain=3.0)
    polite = bench.submit(mark, {"path": str(tmp_path / "polite")}, retries=1)
    child = bench.submit(with_child, {"path": str(tmp_path / "child")})
    marks(tmp_path / "polite")
    wait_until((tmp_path / "child").exists, "the other flow")
    asked = time.monotonic()
    worker.send(signal.SIGTERM)
    lived = time.monotonic() + 2.5  # longer than a lease of these timings: its beat goes on
    wait_until(lambda: time.monotonic() > lived, "a lease's length")
    assert bench.records.workers.beats()
    assert worker.wait() == 0
    assert 3.0 <= time.monotonic() - asked < 15.0
    record = bench.record(polite)
    assert (record.attempt, record.retries_used, record.free_retries) == (2, 0, 1)
    record = bench.record(child)
    assert (record.state, cause_of(record)) == (State.CRASHED, Cause.PREEMPTED)
    start_worker()
    os.kill(marks(tmp_path / "polite", 2)[1][1], signal.SIGKILL)
    assert bench.ended(polite).state is State.SUCCEEDED


def test_sigquit_ends_flows_at_once(bench: Bench, start_worker: StartWorker, tmp_path: Path) -> None:
    worker = start_worker(drain=60.0)
    run_id = bench.submit(mark, {"path": str(tmp_path / "marks")})
    marks(tmp_path / "marks")
    worker.send(signal.SIGQUIT)
    worker.wait()
    record = bench.record(run_id)
    assert (record.state, cause_of(record)) == (State.CRASHED, Cause.PREEMPTED)


def test_a_signal_to_all_processes_still_drains(bench: Bench, start_worker: StartWorker, tmp_path: Path) -> None:
    worker = start_worker(drain=20.0)
    run_id = bench.submit(mark, {"path": str(tmp_path / "marks"), "seconds": 3.0})
    [(_, pid)] = marks(tmp_path / "marks")
    os.kill(pid, signal.SIGTERM)
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert bench.record(run_id).state is State.SUCCEEDED


def test_a_worker_can_leave_without_its_server(
    bench: Bench, start_worker: StartWorker, server: Server, tmp_path: Path
) -> None:
    worker = start_worker(drain=0.5)
    run_id = bench.submit(mark, {"path": str(tmp_path / "marks")})
    [(_, pid)] = marks(tmp_path / "marks")
    server.kill()
    try:
        worker.send(signal.SIGTERM)
        worker.wait(60)
        assert not is_alive(pid)
    finally:
        server.start()
    start_worker()
    record = bench.ended(run_id)
    assert (record.state, cause_of(record)) == (State.CRASHED, Cause.WORKER_LOST)


def test_a_second_sigint_ends_flows_at_once(bench: Bench, start_worker: StartWorker, tmp_path: Path) -> None:
    worker = start_worker(drain=60.0)
    run_id = bench.submit(mark, {"path": str(tmp_path / "marks")})
    marks(tmp_path / "marks")
    worker.send(signal.SIGINT)
    time.sleep(1.0)
    assert worker.process.poll() is None
    worker.send(signal.SIGINT)
    worker.wait()
    record = bench.record(run_id)
    assert (record.state, cause_of(record)) == (State.CRASHED, Cause.PREEMPTED)


@pytest.mark.row(1)
def test_lost_doorbells_are_rung_again(
    bench: Bench, start_worker: StartWorker, server_url: str, tmp_path: Path
) -> None:
    start_worker()
    with redis.Redis.from_url(server_url) as client:
        key = f"{bench.records.instance}:local"
        blocker = [bench.submit(mark, {"path": str(tmp_path / f"b{n}"), "seconds": 2.0}) for n in range(2)]
        for run_id in blocker:
            bench.until(run_id, lambda record: record.state is State.RUNNING, "the start")
        lost = [bench.submit(mark, {"path": str(tmp_path / f"l{n}"), "seconds": 0.0}) for n in range(3)]
        wait_until(lambda: client.llen(key) == 3, "the doorbells")
        client.delete(key)
        for run_id in lost:
            record = bench.ended(run_id)
            assert record.state is State.SUCCEEDED
            assert record.rings >= 2
            assert len(marks(tmp_path / f"l{lost.index(run_id)}")) == 1
