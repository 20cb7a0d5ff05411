"""Runs in containers: the toy container service under real workers, with the same states and events."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from backends.fake import FakeEnvironment
from dispatcher import context, flow
from dispatcher.runs import transitions
from dispatcher.runs.record import Record
from dispatcher.runs.states import Cause, State
from dispatcher.serialization import from_value
from tests.integration.workers import Bench, Worker
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

StartWorker = Callable[..., Worker]
TIMING = {"poll": 0.1}


@flow
def greet(name: str) -> str:
    print("printed")  # noqa: T201 - what it prints is what is tested
    context.logger.info("logged")
    return f"hello {name}, attempt {context.attempt}"


@flow
def fail() -> None:
    raise ZeroDivisionError("no")


@flow
def note_and_sleep(path: str, seconds: float) -> str:
    import time

    with Path(path).open("a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(seconds)
    return "slept"


def kinds(bench: Bench, run_id: str) -> list[str]:
    return [event.kind for event in bench.events(run_id)]


def result_of(bench: Bench, record: Record) -> Any:
    assert record.outcome is not None
    assert record.outcome.result is not None, record.outcome
    return from_value(record.outcome.result, get=bench.records.blobs.get, seal=bench.keys.seal(record))


def cause_of(record: Record) -> Cause | None:
    assert record.outcome is not None
    return record.outcome.cause


def ledger(directory: Path) -> Counter[str]:
    """Return the service's own counts of its operations."""
    file = directory / "ledger.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return Counter(json.loads(line)["what"] for line in lines)


def start(start_worker: StartWorker, **options: Any) -> Worker:
    return start_worker(backends=["fake"], concurrency=1, timing={**TIMING, **options.pop("timing", {})}, **options)


def torn_down(bench: Bench, run_id: str, service: Path) -> None:
    bench.until(run_id, lambda record: not record.leftovers, "confirmed teardown")
    wait_until(lambda: not list(service.glob("*.json")), "an empty service")


def test_a_run_goes_its_way_and_leaves_nothing(bench: Bench, start_worker: StartWorker, service: Path) -> None:
    start(start_worker)
    run_id = bench.submit(greet, {"name": "you"}, environment=FakeEnvironment(service))
    record = bench.ended(run_id)
    assert record.state is State.SUCCEEDED, record.outcome
    assert result_of(bench, record) == "hello you, attempt 1"
    expected = ["queued", "claimed", "provisioning", "pending", "started", "exited"]
    assert sorted(kinds(bench, run_id)) == sorted(expected)  # a runner may start before its handle is stored
    assert {"printed", "logged"} <= set(bench.lines(run_id))
    torn_down(bench, run_id, service)
    assert ledger(service) == {"created": 1, "ended": 1, "deleted": 1}


def test_no_slot_is_held_while_containers_run(bench: Bench, start_worker: StartWorker, service: Path) -> None:
    start(start_worker)
    paths = [service / f"started-{number}" for number in range(4)]
    environment = FakeEnvironment(service)
    runs = [bench.submit(note_and_sleep, {"path": str(p), "seconds": 60}, environment=environment) for p in paths]
    wait_until(lambda: all(path.exists() for path in paths), "four flows at once with one slot", timeout=60)
    from functools import partial

    for run_id in runs:
        bench.records.runs.update(run_id, partial(transitions.request_cancel))
    assert {bench.ended(run_id).state for run_id in runs} == {State.CANCELLED}


def test_a_failure_is_repeated_as_the_policy_says(bench: Bench, start_worker: StartWorker, service: Path) -> None:
    start(start_worker)
    run_id = bench.submit(fail, environment=FakeEnvironment(service), retries=1)
    record = bench.ended(run_id)
    assert record.state is State.FAILED
    assert record.attempt == 2
    assert kinds(bench, run_id).count("exited") == 2
    torn_down(bench, run_id, service)
    assert ledger(service)["created"] == 2


def test_on_exit_runs_where_the_flow_ran_after_a_cancel(bench: Bench, start_worker: StartWorker, service: Path) -> None:
    start(start_worker)
    path = service / "told"
    begun = service / "begun"

    def on_exit() -> None:
        path.write_text(f"{context.state} {os.getpid()}")

    environment = FakeEnvironment(service, on_exit=on_exit)
    run_id = bench.submit(note_and_sleep, {"path": str(begun), "seconds": 60}, environment=environment)
    wait_until(begun.exists, "the flow's start")
    bench.records.runs.update(run_id, transitions.request_cancel)
    record = bench.ended(run_id)
    assert record.state is State.CANCELLED
    assert path.read_text().split()[1] == begun.read_text().strip()


def test_a_cancel_is_heard_of_between_rounds(
    bench: Bench, start_worker: StartWorker, service: Path, server_url: str
) -> None:
    """The supervisor polls only every 20 s here; a cancel doesn't wait for that."""
    begun = service / "begun"
    start(start_worker, timing={"poll": 20.0})
    run_id = bench.submit(note_and_sleep, {"path": str(begun), "seconds": 60}, environment=FakeEnvironment(service))
    wait_until(begun.exists, "the flow's start", timeout=60)

    def shard() -> str:
        owner = bench.records.runs.get(run_id)[0].owner
        return owner if "/" in owner else ""

    owner = wait_until(shard, "the shard that answers for it", timeout=30)
    with redis.Redis.from_url(server_url) as client:
        wait_until(lambda: client.pubsub_channels(f"*owner:{owner}"), "who listens for its shard", timeout=30)
    began = time.monotonic()
    bench.records.runs.update(run_id, transitions.request_cancel)
    assert bench.ended(run_id).state is State.CANCELLED
    took = time.monotonic() - began
    print(f"cancelled after {took:.2f} s")  # noqa: T201
    assert took < 10


def test_a_timeout_ends_the_container(bench: Bench, start_worker: StartWorker, service: Path) -> None:
    start(start_worker)
    environment = FakeEnvironment(service)
    run_id = bench.submit(
        note_and_sleep, {"path": str(service / "x"), "seconds": 60}, environment=environment, timeout=0.5
    )
    assert bench.ended(run_id).state is State.TIMED_OUT
    torn_down(bench, run_id, service)


@pytest.mark.parametrize(
    ("script", "cause", "options"),
    [
        ("image_pull", Cause.IMAGE_PULL, {"start_within": 1.0}),
        ("unschedulable", Cause.UNSCHEDULABLE, {"start_within": 1.0}),
        ("oom", Cause.OOM_KILLED, {}),
        ("silent", Cause.RESULT_MISSING, {}),
        ("refused", Cause.CONFIG_ERROR, {}),
    ],
)
def test_what_the_runner_cannot_tell(
    bench: Bench, start_worker: StartWorker, service: Path, script: str, cause: Cause, options: dict[str, Any]
) -> None:
    start(start_worker)
    run_id = bench.submit(greet, {"name": "you"}, environment=FakeEnvironment(service, script), **options)
    record = bench.ended(run_id)
    assert record.state is State.CRASHED
    assert cause_of(record) is cause
    torn_down(bench, run_id, service)


@pytest.mark.row(4)
def test_a_lost_reply_makes_no_second_container(bench: Bench, start_worker: StartWorker, service: Path) -> None:
    start(start_worker)
    run_id = bench.submit(greet, {"name": "you"}, environment=FakeEnvironment(service, "lost_reply"))
    assert bench.ended(run_id).state is State.SUCCEEDED
    torn_down(bench, run_id, service)
    assert ledger(service)["created"] == 1


@pytest.mark.row(31)
def test_a_killed_runner_is_seen(bench: Bench, start_worker: StartWorker, service: Path) -> None:
    start(start_worker)
    begun = service / "begun"
    environment = FakeEnvironment(service)
    run_id = bench.submit(note_and_sleep, {"path": str(begun), "seconds": 60}, environment=environment)
    wait_until(lambda: begun.exists() and begun.read_text().strip(), "the flow's start")
    os.kill(int(begun.read_text()), signal.SIGKILL)
    record = bench.ended(run_id)
    assert cause_of(record) is Cause.KILLED
    assert record.outcome is not None
    assert record.outcome.exit_code == 137


@pytest.mark.row(4)
def test_containers_outlive_their_worker(bench: Bench, start_worker: StartWorker, service: Path) -> None:
    first = start(start_worker)
    begun = service / "begun"
    environment = FakeEnvironment(service)
    run_id = bench.submit(note_and_sleep, {"path": str(begun), "seconds": 3}, environment=environment)
    wait_until(begun.exists, "the flow's start")
    first.process.kill()
    start(start_worker)
    record = bench.ended(run_id, timeout=60)
    assert record.state is State.SUCCEEDED
    assert len(begun.read_text().splitlines()) == 1
    assert kinds(bench, run_id).count("exited") == 1
    torn_down(bench, run_id, service)
    assert ledger(service)["created"] == 1


@pytest.mark.row(34)
def test_a_forged_report_is_refused(bench: Bench, start_worker: StartWorker, service: Path) -> None:
    worker = start(start_worker)
    begun = service / "begun"
    environment = FakeEnvironment(service)
    run_id = bench.submit(note_and_sleep, {"path": str(begun), "seconds": 2}, environment=environment)
    wait_until(begun.exists, "the flow's start")
    from dispatcher.runner.container.report import Report, ReportKind
    from dispatcher.runs.attempt import shard_of
    from dispatcher.runs.outcome import Outcome

    lie = Report(run_id=run_id, attempt=1, kind=ReportKind.EXITED, outcome=Outcome(cause=Cause.USER_ERROR))
    bench.records.inbox.report(shard_of("fake", run_id), lie.to_entry("00" * 32))
    worker.says("was not made by the attempt it names")
    assert bench.ended(run_id).state is State.SUCCEEDED


def test_a_report_of_nonsense_holds_nothing_up(bench: Bench, start_worker: StartWorker, service: Path) -> None:
    start(start_worker)
    begun = service / "begun"
    environment = FakeEnvironment(service)
    run_id = bench.submit(note_and_sleep, {"path": str(begun), "seconds": 1}, environment=environment)
    wait_until(begun.exists, "the flow's start")
    from dispatcher.runs.attempt import shard_of

    shard = shard_of("fake", run_id)
    for entry in ({"run": run_id, "body": "é", "mac": "é"}, {"run": run_id}, {"x": "y"}, {"run": "other", "mac": ""}):
        bench.records.inbox.report(shard, entry)
    assert bench.ended(run_id).state is State.SUCCEEDED
