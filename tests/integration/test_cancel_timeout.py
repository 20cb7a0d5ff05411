"""A running flow can always be ended: first interrupted, then killed with all its processes and nothing else."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from dispatcher import LocalEnvironment, context, flow
from dispatcher.runs import transitions
from dispatcher.runs.outcome import ExitCall
from dispatcher.runs.record import Record
from dispatcher.runs.states import Cause, State
from tests.integration.workers import Bench, Worker, is_alive
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

StartWorker = Callable[..., Worker]


@flow
def patient(path: str, seconds: float = 60.0) -> str:
    Path(path).write_text("begun")
    time.sleep(seconds)
    return "slept"


@flow
def stubborn(path: str) -> None:
    child = subprocess.Popen(["sleep", "300"])
    Path(path).write_text(str(child.pid))
    while True:
        with suppress(BaseException):
            time.sleep(300)


@flow
def busy(path: str) -> None:
    Path(path).write_text("begun")
    pow(3, 10**9)  # minutes in one C call, which no signal handler interrupts


@flow
def misses_first_signal(path: str) -> None:
    """Misses the first signal, as Python does on its way into a blocking call while another thread takes its lock."""
    import signal

    handler = signal.signal(signal.SIGUSR1, lambda *_: Path(path).with_suffix(".missed").touch())
    Path(path).write_text("begun")
    wait_until(Path(path).with_suffix(".missed").exists, "the first signal", timeout=30)
    signal.signal(signal.SIGUSR1, handler)
    time.sleep(60)


def cause_of(record: Record) -> Cause | None:
    assert record.outcome is not None
    return record.outcome.cause


def environment_with_callbacks(path: Path, *, exit_seconds: float = 0.0) -> LocalEnvironment:
    """Return an environment with callbacks that write their context to ``path``."""

    def say(words: str) -> None:
        import os

        with path.open("a") as file:
            file.write(f"{words} {os.getpid()}\n")

    def on_start() -> None:
        say("start")

    def on_exit() -> None:
        say(f"exit {context.state} {type(context.exception).__name__}")
        time.sleep(exit_seconds)

    return LocalEnvironment(on_start=on_start, on_exit=on_exit)


def begun(path: Path) -> str:
    """Wait until a flow has written its mark, and return that."""
    wait_until(lambda: path.exists() and path.read_text(), "the flow's mark", timeout=30)
    return path.read_text()


def cancel(bench: Bench, run_id: str) -> None:
    bench.records.runs.update(run_id, transitions.request_cancel)


def test_a_flow_that_missed_its_signal_is_told_again(bench: Bench, start_worker: StartWorker, tmp_path: Path) -> None:
    start_worker(timing={"stop_grace": 30})
    run_id = bench.submit(misses_first_signal, {"path": str(tmp_path / "mark")})
    begun(tmp_path / "mark")
    cancel(bench, run_id)
    began = time.monotonic()
    record = bench.until(run_id, lambda record: record.terminal, "its end")
    assert record.state is State.CANCELLED
    assert time.monotonic() - began < 15, "it wasn't left to the kill"


def test_timeout_and_cancel_are_raised_in_the_flow(bench: Bench, start_worker: StartWorker, tmp_path: Path) -> None:
    worker = start_worker()
    pool = worker.children
    paths = [tmp_path / "said0", tmp_path / "said1"]
    late = bench.submit(
        patient, {"path": str(tmp_path / "late")}, timeout=1.0, environment=environment_with_callbacks(paths[0])
    )
    unwanted = bench.submit(
        patient, {"path": str(tmp_path / "unwanted")}, environment=environment_with_callbacks(paths[1])
    )
    begun(tmp_path / "unwanted")
    asked = time.monotonic()
    cancel(bench, unwanted)
    record = bench.ended(unwanted)
    assert time.monotonic() - asked < 2.0
    assert (record.state, cause_of(record), record.exit_call) == (State.CANCELLED, Cause.CANCELLED, ExitCall.CALLED)
    record = bench.ended(late)
    assert (record.state, cause_of(record), record.exit_call) == (State.TIMED_OUT, Cause.DEADLINE, ExitCall.CALLED)
    assert record.ended_at is not None
    assert record.started_at is not None
    # The process estimates the server's clock, which was read a moment before: by so much may the timeout come early.
    assert 0.95 < record.ended_at - record.started_at < 2.0
    assert [line.rpartition(" ")[0] for line in paths[0].read_text().splitlines()] == [
        "start",
        "exit TIMED_OUT TimeoutInterrupt",
    ]
    assert [line.rpartition(" ")[0] for line in paths[1].read_text().splitlines()] == [
        "start",
        "exit CANCELLED CancelInterrupt",
    ]
    for path in paths:  # both callbacks in the flow's process, which lives on
        assert {int(line.split()[-1]) for line in path.read_text().splitlines()} <= set(pool)
    assert worker.children == pool


def test_what_does_not_listen_is_killed_with_its_children(
    bench: Bench, start_worker: StartWorker, tmp_path: Path
) -> None:
    worker = start_worker()
    pool = set(worker.children)
    sibling = bench.submit(patient, {"path": str(tmp_path / "sibling"), "seconds": 6.0})
    path = tmp_path / "said"
    run_id = bench.submit(
        stubborn, {"path": str(tmp_path / "child")}, timeout=1.0, environment=environment_with_callbacks(path)
    )
    child = int(begun(tmp_path / "child"))
    record = bench.ended(run_id)
    assert (record.state, cause_of(record), record.exit_call) == (State.TIMED_OUT, Cause.DEADLINE, ExitCall.CALLED)
    wait_until(lambda: not is_alive(child), "the end of the flow's own child")
    first, last = path.read_text().splitlines()
    assert first.startswith("start")
    assert last.startswith("exit TIMED_OUT")
    assert first.split()[-1] != last.split()[-1]  # a fresh process called on_exit
    wait_until(lambda: len(worker.children) == 2 and set(worker.children) != pool, "a new pool process")
    assert len(pool & set(worker.children)) == 1
    assert bench.ended(sibling).state is State.SUCCEEDED
    assert bench.record(sibling).attempt == 1
    kinds = [str(event.kind) for event in bench.events(run_id)]
    assert kinds.count("exited") == 1
    assert kinds.count("started") == 1


def test_a_cancel_reaches_a_busy_c_call(bench: Bench, start_worker: StartWorker, tmp_path: Path) -> None:
    start_worker(concurrency=1)
    run_id = bench.submit(busy, {"path": str(tmp_path / "begun")}, retries=3)
    begun(tmp_path / "begun")
    cancel(bench, run_id)
    record = bench.ended(run_id)
    assert (record.state, cause_of(record), record.attempt) == (State.CANCELLED, Cause.CANCELLED, 1)
    after = bench.submit(patient, {"path": str(tmp_path / "after"), "seconds": 0.0})
    assert bench.ended(after).state is State.SUCCEEDED


def test_an_on_exit_that_hangs_keeps_the_outcome(bench: Bench, start_worker: StartWorker, tmp_path: Path) -> None:
    start_worker(concurrency=1, timing={"on_exit_timeout": 1.0})
    path = tmp_path / "said"
    run_id = bench.submit(
        patient,
        {"path": str(tmp_path / "begun"), "seconds": 0.0},
        environment=environment_with_callbacks(path, exit_seconds=60.0),
    )
    record = bench.ended(run_id)
    assert (record.state, record.exit_call) == (State.SUCCEEDED, ExitCall.INTERRUPTED)
    assert path.read_text().count("exit") == 1


def test_on_exit_gets_its_own_time_after_a_timeout(bench: Bench, start_worker: StartWorker, tmp_path: Path) -> None:
    start_worker(concurrency=1)
    path = tmp_path / "said"
    run_id = bench.submit(
        patient,
        {"path": str(tmp_path / "begun")},
        timeout=0.5,
        environment=environment_with_callbacks(path, exit_seconds=2.0),  # longer than stop_grace
    )
    record = bench.ended(run_id)
    assert (record.state, record.exit_call) == (State.TIMED_OUT, ExitCall.CALLED)
    assert path.read_text().count("exit") == 1
