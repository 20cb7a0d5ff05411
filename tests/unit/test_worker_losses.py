"""Workers of a run's own cluster that are lost, or end before they join: counted, told of, in a row the run's end."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dispatcher.cli.formatting import event_note, facts, log_line
from dispatcher.inspection.explain import explain
from dispatcher.runner.container.report import ReportKind
from dispatcher.runs.cluster import WorkerReport
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.states import Cause, State
from dispatcher.runs.worker_loss import WorkerLoss
from tests.unit.scaling_scene import ScalingScene
from workers.supervisor import reports, scaling
from workers.supervisor.supervisor import Supervisor

STOPPED = Outcome(cause=Cause.PREEMPTED, reason="SIGTERM", message="the runner was told to stop")


@pytest.fixture
def scene(tmp_path: Path) -> ScalingScene:
    scene = ScalingScene(tmp_path)
    scene.begin()
    scene.until_names("w1")
    return scene


def test_a_worker_that_dies_is_replaced_and_told_of(scene: ScalingScene) -> None:
    scene.say("w1", connected="w1")
    scene.until(lambda: scene.state.running == 1, "the start of the flow")
    scene.scaled.play("w1", "oom", log=["allocating", "more"])
    scene.say("w2", connected="", ready=True, lost="w1")
    scene.until_names("w2")
    scene.until(lambda: scene.state.lost == 1, "the count")
    loss = WorkerLoss(name="w1", cause=Cause.OOM_KILLED, reason="OOMKilled", exit_code=137)
    assert scene.state.last_loss == loss
    event = next(event for event in scene.events() if event.data.get("cause"))
    assert (event.data["worker"], event.data["cause"], event.data["lost"]) == ("w1", "oom_killed", 1)
    assert event_note(event) == "1 wanted, 0 running, 1 lost; worker w1: oom_killed, exit code 137"
    lines = ["[worker/w1] allocating", "[worker/w1] more", "[worker/w1] worker w1: oom_killed, exit code 137"]
    assert scene.log() == lines
    assert log_line(scene.records.logs.read("run1")[0][0]) == "[w1] allocating"
    assert scene.state.failure is None


def test_the_loss_of_a_worker_waits_for_its_reason(scene: ScalingScene) -> None:
    scene.say("w1", connected="w1")
    scene.round()
    scene.say("w2", connected="", ready=True, lost="w1")
    scene.until_names("w1", "w2")
    assert scene.state.lost == 0, "its container still runs"
    scene.scaled.play("w1", "oom")
    scene.until(lambda: scene.state.lost == 1, "the count")
    assert scene.state.last_loss is not None
    assert scene.state.last_loss.cause is Cause.OOM_KILLED


def test_a_worker_whose_container_was_deleted_was_killed(scene: ScalingScene) -> None:
    scene.say("w1", connected="w1")
    scene.round()
    scene.scaled.delete_workers(scene.run.handle or {}, ["w1"])
    scene.round()
    scene.say("w2", connected="", ready=True, lost="w1")
    scene.until(lambda: scene.state.lost == 1, "the count")
    assert scene.state.last_loss == WorkerLoss(name="w1", cause=Cause.KILLED, message="its container was deleted")


def test_a_worker_that_ends_before_it_joins_is_created_again(scene: ScalingScene) -> None:
    scene.say("w1")
    scene.scaled.play("w1", "failed", log=["no such module"])
    scene.until(lambda: scene.created == ["w1", "w1"], "the same worker again")
    scene.until(lambda: scene.state.unjoined == 1, "the count")
    assert scene.log() == [
        "[worker/w1] no such module",
        "[worker/w1] worker w1 before it joined: start_failed, exit code 1",
    ]
    scene.say("w1", connected="w1")
    scene.until(lambda: scene.state.running == 1, "the start of the flow")
    assert (scene.state.unjoined, scene.state.lost) == (0, 1)


def test_three_in_a_row_end_the_run_with_cause_and_last_lines(scene: ScalingScene) -> None:
    scene.say("w1")
    for count in range(1, 4):
        scene.until(lambda count=count: scene.created == ["w1"] * count, "the worker")  # type: ignore[misc]
        scene.scaled.play("w1", "failed", log=["importing", f"no such module {count}"])
    scene.until(lambda: scene.scaled.cancelled, "the deletion")
    assert scene.created == ["w1"] * 3
    scene.report(scene.run, ReportKind.EXITED, STOPPED)
    scene.until(lambda: scene.run.terminal, "its end")
    outcome = scene.run.outcome
    assert outcome is not None
    assert (scene.run.state, outcome.cause, outcome.exit_code) == (State.CRASHED, Cause.START_FAILED, 1)
    assert outcome.message == (
        "3 workers in a row ended before they joined, the last one: "
        "worker w1 before it joined: start_failed, exit code 1"
    )
    assert outcome.log_tail == ("importing", "no such module 3")
    assert [line for line in scene.log() if "module" in line] == [
        f"[worker/w1] no such module {count}" for count in (1, 2, 3)
    ]
    assert (scene.state.wanted, scene.state.running, scene.state.lost) == (0, 0, 3)


def test_the_row_is_counted_on_after_a_takeover(scene: ScalingScene) -> None:
    scene.say("w1")
    scene.scaled.play("w1", "failed")
    scene.until(lambda: scene.state.unjoined == 1, "the count")
    scene.supervisor.leave()
    scene.supervisor = Supervisor(scene.provisioner, scene.backend, scene.woken.set)
    scene.say("w1")
    for count in (2, 3):
        scene.until(lambda count=count: scene.created == ["w1"] * count, "the worker")  # type: ignore[misc]
        scene.scaled.play("w1", "failed")
    scene.until(lambda: scene.state.failure is not None, "the end")


def test_a_worker_that_can_never_run_ends_a_run_that_waits_for_it(tmp_path: Path) -> None:
    scene = ScalingScene(tmp_path, play="config")
    scene.begin()
    scene.say("w1")
    scene.until(lambda: scene.state.failure is not None, "the end")
    assert scene.created == ["w1"]
    failure = scene.state.failure
    assert failure is not None
    assert (failure.cause, failure.message) == (Cause.CONFIG_ERROR, "worker w1 before it joined: config_error")


def test_many_changes_are_few_events(tmp_path: Path) -> None:
    scene = ScalingScene(tmp_path, least=1, most=500)
    scene.begin()
    scene.round()
    begun = time.monotonic()
    names = [f"w{number}" for number in range(1, 401)]
    for count in range(1, 401, 4):
        report = WorkerReport(wanted=tuple(names), connected=tuple(names[:count]), ready=True)
        scene.report(scene.run, ReportKind.WORKERS, workers=report)
        scene.supervisor.tick()
    assert 1 <= len(scene.events()) <= 1 + (time.monotonic() - begun) / scaling.NOTE_INTERVAL
    report = WorkerReport(wanted=tuple(names), connected=tuple(names), ready=True)
    scene.report(scene.run, ReportKind.WORKERS, workers=report)
    scene.until(lambda: scene.state.running == 400, "the last count")


def test_show_and_explain_tell_of_workers(scene: ScalingScene) -> None:
    scene.say("w1", connected="w1")
    scene.until(lambda: scene.state.running == 1, "the start of the flow")
    scene.scaled.play("w1", "oom")
    scene.say("w2", ready=True, lost="w1")
    scene.until(lambda: scene.state.lost == 1, "the count")
    shown = dict(facts(scene.run))
    lost = "worker w1: oom_killed, exit code 137"
    assert shown["workers"] == f"1 wanted, 0 running, 1 lost; the last one lost: {lost}"
    sentences = explain(scene.run, now=scene.records.runs.now(), workers=[])
    assert "Its cluster's workers: 1 wanted, 0 running, 1 lost." in sentences
    assert f"The last one lost: {lost}" in sentences


def test_the_end_of_a_flow_that_failed_waits_for_the_reason_of_a_loss(scene: ScalingScene) -> None:
    scene.say("w1", connected="w1")
    scene.until(lambda: scene.state.running == 1, "the start of the flow")
    scene.say("w2", ready=True, lost="w1")
    failed = Outcome(cause=Cause.USER_ERROR, reason="KilledWorker", message="the task killed its worker")
    scene.report(scene.run, ReportKind.EXITED, failed)
    scene.round()
    assert scene.run.settled is State.FAILED, "whatever becomes of the supervisor"
    assert not scene.run.terminal
    scene.scaled.play("w1", "oom")
    scene.until(lambda: scene.run.terminal, "its end")
    assert scene.run.outcome == failed
    assert scene.events()[-1].data["cause"] == "oom_killed"
    assert scene.created == ["w1"], "a flow that has ended gets no more workers"


def test_the_end_of_a_flow_that_lost_no_worker_waits_for_nothing(scene: ScalingScene) -> None:
    scene.say("w1", connected="w1")
    scene.until(lambda: scene.state.running == 1, "the start of the flow")
    scene.report(scene.run, ReportKind.EXITED, Outcome(cause=Cause.USER_ERROR))
    scene.round()
    assert scene.run.state is State.FAILED


def test_a_loss_without_a_reason_does_not_hold_the_end_for_long(
    scene: ScalingScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "LOSS_TIMEOUT", 0.2)
    scene.say("w1", connected="w1")
    scene.until(lambda: scene.state.running == 1, "the start of the flow")
    scene.say("w2", ready=True, lost="w1")
    scene.report(scene.run, ReportKind.EXITED, Outcome(cause=Cause.USER_ERROR))
    scene.until(lambda: scene.run.state is State.FAILED, "its end")
