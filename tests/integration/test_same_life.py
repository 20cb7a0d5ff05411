"""A run has the same states and events wherever it runs: in a worker's pool, with an executor, in a container."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from backends.fake import FakeEnvironment
from dispatcher import LocalEnvironment, RemoteEnvironment, context, flow
from dispatcher.environments.base import Environment
from dispatcher.runs import transitions
from dispatcher.runs.outcome import ExitCall
from dispatcher.runs.record import Record
from dispatcher.runs.retry import Retry
from dispatcher.runs.states import Cause, State
from dispatcher.serialization import from_value
from tests.integration.workers import Bench, Worker
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

#: From a submit to the end. A runner in a container may start before its handle is stored.
LIFE = ["claimed", "exited", "pending", "provisioning", "queued", "started"]


@flow
def greet(name: str) -> str:
    print("printed")  # noqa: T201 - what it prints is what is tested
    context.logger.info("logged in attempt %d of %s", context.attempt, context.run_id)
    return f"hello {name}"


@flow
def second_time_lucky() -> int:
    if context.attempt == 1:
        raise ZeroDivisionError("not yet")
    return context.attempt or 0


@flow
def slow(path: str) -> None:
    Path(path).write_text("begun")
    time.sleep(60)


@pytest.fixture(params=["local", "remote", "fake"])
def place(
    request: pytest.FixtureRequest, start_worker: Callable[..., Worker], tmp_path: Path
) -> Callable[..., Environment]:
    start_worker(backends=["local", "remote", "fake"], concurrency=1, timing={"poll": 0.1})
    match request.param:
        case "local":
            return LocalEnvironment
        case "remote":
            return RemoteEnvironment
    service = tmp_path / "service"
    service.mkdir()
    return lambda **options: FakeEnvironment(service, **options)


def ended(bench: Bench, run_id: str, state: State, cause: Cause | None) -> Record:
    record = bench.ended(run_id, timeout=60)
    assert record.outcome is not None
    assert (record.state, record.outcome.cause) == (state, cause), (record.outcome, bench.lines(run_id))
    return record


def test_a_run_from_its_submit_to_its_end(bench: Bench, place: Callable[..., Environment], tmp_path: Path) -> None:
    path = tmp_path / "said"

    def on_start() -> None:
        path.write_text("start\n")

    def on_exit() -> None:
        with path.open("a") as file:
            file.write(f"exit {context.state} {type(context.exception).__name__}\n")

    run_id = bench.submit(greet, {"name": "you"}, environment=place(on_start=on_start, on_exit=on_exit))
    record = ended(bench, run_id, State.SUCCEEDED, None)
    assert record.outcome is not None
    assert record.outcome.result is not None
    result = from_value(record.outcome.result, get=bench.records.blobs.get, seal=bench.keys.seal(record))
    assert result == "hello you"
    events = bench.events(run_id)
    assert sorted(event.kind for event in events) == LIFE
    assert events[0].kind == "queued"
    assert events[-1].final
    assert [event.id for event in events if event.kind == "exited"] == [f"{run_id}:1:exited"]
    assert bench.lines(run_id) == ["printed", f"logged in attempt 1 of {run_id}"]
    assert path.read_text().splitlines() == ["start", "exit SUCCEEDED NoneType"]
    assert record.exit_call is ExitCall.CALLED


def test_a_retry(bench: Bench, place: Callable[..., Environment]) -> None:
    run_id = bench.submit(second_time_lucky, environment=place(), retries=Retry(1, delay=0.1))
    record = ended(bench, run_id, State.SUCCEEDED, None)
    assert record.attempt == 2
    assert [event.final for event in bench.events(run_id) if event.kind == "exited"] == [False, True]


@pytest.mark.parametrize(("ending", "cause"), [(State.CANCELLED, Cause.CANCELLED), (State.TIMED_OUT, Cause.DEADLINE)])
def test_a_running_flow_is_ended(
    bench: Bench, place: Callable[..., Environment], tmp_path: Path, ending: State, cause: Cause
) -> None:
    begun = tmp_path / "begun"
    timeout = 1.0 if ending is State.TIMED_OUT else None
    run_id = bench.submit(slow, {"path": str(begun)}, environment=place(), timeout=timeout)
    wait_until(begun.exists, "the flow's start", timeout=30)
    if ending is State.CANCELLED:
        bench.records.runs.update(run_id, transitions.request_cancel)
    record = ended(bench, run_id, ending, cause)
    assert record.attempt == 1
    assert [event.final for event in bench.events(run_id) if event.kind == "exited"] == [True]
    bench.until(run_id, lambda record: not record.leftovers, "confirmed teardown")
