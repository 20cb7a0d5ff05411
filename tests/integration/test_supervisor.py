"""The supervisor under real workers and the toy container service: its observations and their consequences."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from backends.fake import FakeBackend, FakeEnvironment
from dispatcher import context, flow
from dispatcher.runs import transitions
from dispatcher.runs.attempt import Attempt
from dispatcher.runs.events import EventKind
from dispatcher.runs.outcome import ExitCall
from dispatcher.runs.record import Record
from dispatcher.runs.states import Cause, State
from tests.integration.workers import Bench, Worker, children_of
from tests.unit.command import call
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

StartWorker = Callable[..., Worker]


@flow
def greet() -> str:
    return "hello"


@flow
def note_and_sleep(path: str) -> None:
    Path(path).write_text(f"{os.getpid()}\n")
    time.sleep(60)


def write_final_state() -> None:
    """Write the flow's final state, as an ``on_exit`` that the worker can import."""
    Path(os.environ["FINAL_STATE_FILE"]).write_text(f"{context.state}")


def start(start_worker: StartWorker, *, timing: dict[str, float] | None = None, **options: Any) -> Worker:
    return start_worker(backends=["fake"], concurrency=1, timing=timing or {}, **options)


def cause_of(record: Record) -> Cause | None:
    assert record.outcome is not None
    return record.outcome.cause


def begun(path: Path) -> int:
    """Return the pid of the flow's process once it runs."""
    wait_until(lambda: path.exists() and path.read_text().endswith("\n"), "the flow's start", timeout=60)
    return int(path.read_text())


def gone(bench: Bench, run_id: str) -> Record:
    return bench.until(run_id, lambda record: not record.leftovers, "confirmed teardown", timeout=60)


def test_changes_and_reports_wake_the_supervisor(bench: Bench, start_worker: StartWorker, service: Path) -> None:
    """An event follows an observation within a second, although rounds are 30 s apart."""
    start(start_worker, timing={"poll": 30.0}, environ={"DISPATCHER__FAKE__SERVICES": str(service)})
    run_id = bench.submit(greet, environment=FakeEnvironment(service))
    assert bench.ended(run_id, timeout=25).state is State.SUCCEEDED
    run_id = bench.submit(greet, environment=FakeEnvironment(service, "talks"))
    record = bench.ended(run_id, timeout=25)
    took = (record.ended_at or 0.0) - (record.times or {})["1"]["finished"]
    print(f"from the end of a container to its event: {took * 1000:.0f} ms")  # noqa: T201
    assert took < 10.0


def test_lines_of_a_container_whose_runner_sent_none(bench: Bench, start_worker: StartWorker, service: Path) -> None:
    """The log is read once before the teardown, and doesn't delay the state."""
    start(start_worker, timing={"poll": 0.2})
    run_id = bench.submit(greet, environment=FakeEnvironment(service, "talks"))
    record = bench.ended(run_id)
    assert record.outcome is not None
    assert (record.state, record.outcome.exit_code) == (State.CRASHED, 3)
    record = bench.until(run_id, lambda record: record.outcome and record.outcome.log_tail, "its last lines")
    assert record.outcome is not None
    assert record.outcome.log_tail == ("the runner can't start",)
    assert bench.lines(run_id) == ["the runner can't start"]
    gone(bench, run_id)


def test_a_budget_of_the_backend_ends_the_attempt(bench: Bench, start_worker: StartWorker, service: Path) -> None:
    """A mistake in the request ends the run without ``start_within``; no runner may claim it then."""
    start(start_worker, timing={"poll": 0.2})
    run_id = bench.submit(greet, environment=FakeEnvironment(service, "config"))
    record = bench.ended(run_id)
    assert (record.state, cause_of(record)) == (State.CRASHED, Cause.CONFIG_ERROR)
    assert record.last_cause is Cause.CONFIG_ERROR
    gone(bench, run_id)


def test_a_quota_queue_holds_a_run_and_takes_its_place_back(
    bench: Bench, start_worker: StartWorker, service: Path, tmp_path: Path
) -> None:
    """While a run isn't admitted, ``start_within`` is paused; if it is suspended later, it ends as preempted."""
    start(start_worker, timing={"poll": 0.2})
    hold = service / "suspend"
    hold.touch()
    path = tmp_path / "begun"
    environment = FakeEnvironment(service, "queued")
    run_id = bench.submit(note_and_sleep, {"path": str(path)}, environment=environment, start_within=3.0)
    held = bench.until(run_id, lambda record: record.paused_since is not None, "its pause", timeout=60)
    wait_until(lambda: bench.records.runs.now() > held.queued_at + 4.0, "more than start_within", timeout=30)
    assert bench.record(run_id).state is State.PENDING
    hold.unlink()
    begun(path)
    assert bench.record(run_id).paused > 0.0
    hold.touch()
    record = bench.ended(run_id, timeout=60)
    assert (record.state, cause_of(record)) == (State.CRASHED, Cause.PREEMPTED)
    gone(bench, run_id)


def test_a_lost_node(bench: Bench, start_worker: StartWorker, service: Path, tmp_path: Path) -> None:
    """The heartbeat is absent and the node not ready; the attempt is closed, its teardown stays open and is
    seen, until the node says that it's gone."""
    start(start_worker, timing={"poll": 0.2, "node_lost": 3.0})
    path = tmp_path / "begun"
    run_id = bench.submit(note_and_sleep, {"path": str(path)}, environment=FakeEnvironment(service, "node"))
    begun(path)
    (service / "lost").touch()
    bench.until(run_id, lambda record: record.unknown_since is not None, "the loss of sight")
    kill_runner(bench, run_id)
    record = bench.ended(run_id, timeout=60)
    assert (record.state, cause_of(record)) == (State.CRASHED, Cause.NODE_LOST)
    record = bench.until(
        run_id, lambda r: any(leftover.get("pending") for leftover in r.leftovers), "its open teardown"
    )
    assert record.leftovers[0]["pending"] == "teardown pending: node toy"
    from dispatcher.inspection.explain import explain

    lines = explain(record, now=bench.records.runs.now(), workers=[])
    assert any("teardown pending: node toy" in line for line in lines)
    (service / "lost").unlink()
    gone(bench, run_id)


def test_what_nobody_wants_is_ended(bench: Bench, start_worker: StartWorker, service: Path) -> None:
    """Orphans are found both ways, and only those with our instance id."""
    backend = FakeBackend()
    record = bench.prepare(greet, environment=FakeEnvironment(service, "image_pull"))

    def make(instance: str, number: int) -> Path:
        handle = backend.submit(backend.prepare(Attempt.of(record.spec, number, instance=instance)), {})
        return Path(backend.key(handle))

    orphan, foreign = make(bench.records.instance, 1), make("another", 2)
    start(start_worker, timing={"poll": 0.2}, environ={"DISPATCHER__FAKE__SERVICES": str(service)})
    wanted = bench.submit(greet, environment=FakeEnvironment(service, "image_pull"))
    bench.until(wanted, lambda record: record.handle is not None, "its container", timeout=60)
    wait_until(lambda: not orphan.exists(), "the end of the orphan", timeout=60)
    assert foreign.exists()
    stored = bench.record(wanted)
    assert stored.state is State.PENDING
    assert stored.handle is not None
    Path(backend.key(stored.handle)).unlink()
    assert cause_of(bench.ended(wanted, timeout=60)) is Cause.KILLED
    foreign.with_suffix(".deleted").touch()
    wait_until(lambda: not foreign.exists(), "an empty service")


def test_gc_shows_and_ends_what_nobody_wants(
    bench: Bench, server_url: str, service: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dry run by default; only objects of this instance that no run needs."""
    monkeypatch.setenv("DISPATCHER__FAKE__SERVICES", str(service))
    backend = FakeBackend()
    record = bench.prepare(greet, environment=FakeEnvironment(service, "image_pull"))

    def make(instance: str, number: int) -> Path:
        handle = backend.submit(backend.prepare(Attempt.of(record.spec, number, instance=instance)), {})
        return Path(backend.key(handle))

    orphan, foreign = make(bench.records.instance, 1), make("another", 2)
    command = ("--url", server_url, "gc", "--backend", "fake")
    young = call(*command)
    assert (young.exit_code, young.stdout) == (0, "")
    shown = call(*command, "--older", "0")
    assert shown.exit_code == 0, shown.output
    assert record.id in shown.stdout
    assert "no such run" in shown.stdout
    assert "--yes" in shown.stderr
    assert orphan.exists()
    ended = call(*command, "--older", "0", "--yes", "--json")
    assert ended.exit_code == 0, ended.output
    (row,) = json.loads(ended.stdout)
    assert (row["run"], row["attempt"], row["end"]) == (record.id, 1, "gone")
    assert not orphan.exists()
    assert foreign.exists()
    refused = call("--url", server_url, "gc", "--backend", "local")
    assert refused.exit_code != 0
    assert "can't list what it has created" in refused.stderr
    foreign.with_suffix(".deleted").touch()
    wait_until(lambda: not foreign.exists(), "an empty service")


@pytest.mark.parametrize("allowed", [True, False])
def test_on_exit_of_a_dead_runner_is_called_where_settings_allow_it(
    bench: Bench, start_worker: StartWorker, service: Path, tmp_path: Path, allowed: bool
) -> None:
    """In a child process of the worker, if it is importable and allowed; otherwise it is ``not called``."""
    written, path = tmp_path / "told", tmp_path / "begun"
    start(
        start_worker,
        timing={"poll": 0.2, "on_exit_timeout": 20.0},
        environ={"FINAL_STATE_FILE": str(written)},
        callbacks=[__name__] if allowed else ["some.other:function"],
    )
    environment = FakeEnvironment(service, on_exit=importable(write_final_state))
    assert "ref" in environment.to_json()["on_exit"]
    run_id = bench.submit(note_and_sleep, {"path": str(path)}, environment=environment)
    begun(path)
    kill_runner(bench, run_id)
    record = bench.ended(run_id, timeout=60)
    assert (record.state, cause_of(record)) == (State.CRASHED, Cause.KILLED)
    assert record.exit_call is (ExitCall.CALLED if allowed else ExitCall.NOT_CALLED)
    assert written.exists() is allowed
    if allowed:
        assert written.read_text() == "CRASHED"
    assert [event.data["on_exit"] for event in bench.events(run_id) if event.kind == "exited"] == [record.exit_call]
    gone(bench, run_id)


def test_a_frozen_supervisor_writes_nothing(
    bench: Bench, start_worker: StartWorker, service: Path, tmp_path: Path
) -> None:
    """Other workers took its shards while it was stopped, and ended the run; then it comes back."""
    first = start(start_worker, timing={"poll": 0.2})
    path = tmp_path / "begun"
    run_id = bench.submit(note_and_sleep, {"path": str(path)}, environment=FakeEnvironment(service))
    begun(path)
    shard = bench.record(run_id).owner
    bench.until(run_id, lambda record: "/" in record.owner, "its shard's watch")
    shard = bench.record(run_id).owner
    before = bench.records.leases.held("fake/")[shard]
    first.send(signal.SIGSTOP)
    start(start_worker, timing={"poll": 0.2})
    wait_until(
        lambda: bench.records.leases.held("fake/").get(shard, before).owner != before.owner, "a takeover", timeout=60
    )
    taken = bench.records.leases.held("fake/")[shard]
    assert taken.epoch > before.epoch
    bench.records.runs.update(run_id, partial(transitions.request_cancel))
    first.send(signal.SIGCONT)
    record = bench.ended(run_id, timeout=60)
    assert record.state is State.CANCELLED
    assert [event.kind for event in bench.events(run_id)].count(EventKind.EXITED) == 1


def importable(function: Callable[[], None]) -> Callable[[], None]:
    """Return a callback by name, as that of an installed function is."""
    from dispatcher.environments.callbacks import Callback

    return Callback(ref=f"{function.__module__}:{function.__qualname__}")


def kill_runner(bench: Bench, run_id: str) -> None:
    """Send SIGKILL to the runner's first process and its child, so that neither reports."""
    handle = bench.until(run_id, lambda record: record.handle is not None, "its handle").handle
    assert handle is not None
    pid = json.loads(Path(FakeBackend().key(handle)).read_text())["pid"]
    victims = [*children_of(pid), pid]
    os.kill(pid, signal.SIGSTOP)
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
