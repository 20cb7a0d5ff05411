"""The supervisor creates and deletes workers of a run's own cluster, as its runner reports what it wants."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from backends.base import Observation, Phase
from dispatcher.errors import Permanent
from dispatcher.inspection.waiting import why_waiting
from dispatcher.runner.container.report import ReportKind
from dispatcher.runs import transitions
from dispatcher.runs.change import Change
from dispatcher.runs.cluster_state import ClusterState
from dispatcher.runs.events import EventKind
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.states import Cause, State
from tests.unit.scaling_scene import ScalingScene
from workers.supervisor.supervisor import Supervisor


@pytest.fixture
def scene(tmp_path: Path) -> ScalingScene:
    return ScalingScene(tmp_path)


def started(scene: ScalingScene) -> None:
    """A run whose first worker has joined."""
    scene.begin()
    scene.until_names("w1")
    scene.say("w1", connected="w1")
    scene.until(lambda: scene.state.ready, "the start of the flow")


def test_the_first_workers_are_created_once_the_attempt_is_claimed(tmp_path: Path) -> None:
    scene = ScalingScene(tmp_path, least=2)
    scene.provisioned("run1")
    scene.round()
    assert scene.created == []
    scene.report(scene.run, ReportKind.CLAIMED)
    scene.until_names("w1", "w2")
    assert scene.state == ClusterState(least=2, wanted=2)


def test_an_attempt_without_workers_has_no_cluster(tmp_path: Path) -> None:
    scene = ScalingScene(tmp_path, least=0, most=0)
    scene.begin()
    scene.round()
    assert scene.run.workers is None


def test_a_cluster_that_starts_from_none_is_ready_at_once(tmp_path: Path) -> None:
    scene = ScalingScene(tmp_path, least=0)
    scene.begin()
    scene.round()
    assert (scene.names, scene.run.awaits_workers) == ([], False)
    scene.say("w1", ready=True)
    scene.until_names("w1")


def test_the_workers_that_the_runner_wants_are_created_and_the_others_deleted(scene: ScalingScene) -> None:
    started(scene)
    scene.say("w1", "w2", connected="w1")
    scene.until_names("w1", "w2")
    scene.say("w1", connected="w1")
    scene.until_names("w1")
    assert scene.created == ["w1", "w2"]
    assert scene.state.lost == 0, "a worker that was deleted isn't lost"


def test_a_worker_that_is_closing_is_left_to_the_scheduler(scene: ScalingScene) -> None:
    started(scene)
    scene.say("w1", "w2", connected="w1 w2")
    scene.until_names("w1", "w2")
    scene.say("w1", connected="w1 w2")
    scene.round()
    assert scene.names == ["w1", "w2"]
    scene.scaled.play("w2", "done")
    scene.until_names("w1")
    assert scene.state.lost == 0


def test_no_more_live_than_the_request_allows(scene: ScalingScene) -> None:
    started(scene)
    scene.say("w1", "w2", "w3", "w4", connected="w1")
    scene.until_names("w1", "w2")
    scene.until(lambda: scene.state.wanted == 2, "the number in the record")
    assert (scene.names, scene.scaled.most_alive) == (["w1", "w2"], 2)


def test_creations_wait_for_the_address_of_the_flow(scene: ScalingScene) -> None:
    (scene.scaled.directory / "no_address").touch()
    scene.begin()
    for _ in range(3):
        scene.round()
    assert (scene.names, scene.run.wait) == ([], None)
    (scene.scaled.directory / "no_address").unlink()
    scene.until_names("w1")


def test_a_heartbeat_brings_the_list_after_a_takeover(scene: ScalingScene) -> None:
    started(scene)
    scene.say("w1", "w2", connected="w1 w2")
    scene.until_names("w1", "w2")
    scene.supervisor.leave()
    scene.supervisor = Supervisor(scene.provisioner, scene.backend, scene.woken.set)
    for _ in range(3):
        scene.round()
    assert scene.names == ["w1", "w2"], "nobody has said what is wanted"
    scene.say("w1", connected="w1")
    scene.until_names("w1")
    assert scene.created == ["w1", "w2"]


def test_a_takeover_before_the_start_creates_the_first_workers_that_are_missing(tmp_path: Path) -> None:
    scene = ScalingScene(tmp_path, least=2, most=3)
    scene.begin()
    scene.until_names("w1", "w2")
    scene.supervisor.leave()
    scene.scaled.delete_workers(scene.run.handle or {}, ["w2"])
    scene.supervisor = Supervisor(scene.provisioner, scene.backend, scene.woken.set)
    scene.until_names("w1", "w2")
    assert scene.created == ["w1", "w2", "w2"]


@pytest.mark.parametrize("step", ["cancel", "settle"])
def test_a_run_that_is_over_gets_no_more_workers(scene: ScalingScene, step: str) -> None:
    started(scene)
    if step == "cancel":
        scene.update("run1", transitions.request_cancel)
    else:
        outcome = Outcome(cause=Cause.USER_ERROR)
        scene.update("run1", partial(transitions.settle, epoch=scene.run.epoch, outcome=outcome))
    scene.say("w1", "w2", connected="w1")
    for _ in range(3):
        scene.round()
    assert scene.created == ["w1"]


def test_a_forged_request_creates_nothing(scene: ScalingScene) -> None:
    record = scene.begin()
    assert record.request is not None
    body = {**record.request["body"], "workers": {"min": 1, "max": 4000, "play": "run"}}
    forged = {**record.request, "body": body}
    scene.update("run1", lambda before, now: Change(before=before, after=before.but(request=forged)))
    scene.until(lambda: scene.run.terminal, "the refusal")
    assert scene.created == []
    assert scene.run.outcome is not None
    assert scene.run.outcome.reason == "SealBroken"


def test_a_worker_s_wait_is_the_run_s_until_the_flow_starts(tmp_path: Path) -> None:
    scene = ScalingScene(tmp_path, play="image_pull")
    scene.begin()
    scene.until(lambda: scene.run.wait is not None, "the reason for the wait")
    assert why_waiting(scene.run, now=0.0) == "ImagePullBackOff: worker w1"
    assert (scene.run.last_cause, scene.state.cause) == (None, Cause.IMAGE_PULL)
    scene.say("w1")
    scene.scaled.play("w1", "run")
    scene.until(lambda: scene.run.wait is None, "that it waits no more")
    assert why_waiting(scene.run, now=0.0) == "waits for workers: 0 of 1 have joined"
    scene.say("w1", connected="w1")
    scene.until(lambda: why_waiting(scene.run, now=0.0) == "", "the start of the flow")


def test_a_quota_is_the_run_s_wait(scene: ScalingScene) -> None:
    (scene.scaled.directory / "quota").touch()
    scene.begin()
    scene.until(lambda: scene.run.wait is not None, "the reason for the wait")
    assert why_waiting(scene.run, now=0.0) == "quota: worker w1: exceeded quota: toys"
    (scene.scaled.directory / "quota").unlink()
    scene.until_names("w1")
    scene.until(lambda: scene.run.wait is None, "that it waits no more")


def test_start_within_lasts_until_the_workers_have_joined(tmp_path: Path) -> None:
    scene = ScalingScene(tmp_path, play="image_pull")
    scene.begin(start_within=0.3)
    scene.say("w1")
    scene.until(lambda: scene.state.failure is not None, "the end of start_within")
    assert scene.scaled.cancelled == set()
    scene.until(lambda: scene.scaled.cancelled, "the deletion")
    scene.say("w1", connected="w1")  # too late
    stopped = Outcome(cause=Cause.PREEMPTED, reason="SIGTERM", message="the runner was told to stop")
    scene.report(scene.run, ReportKind.SETTLED, stopped)
    scene.report(scene.run, ReportKind.EXITED, stopped)
    scene.until(lambda: scene.run.terminal, "its end")
    outcome = scene.run.outcome
    assert outcome is not None
    assert (scene.run.state, outcome.cause, outcome.reason) == (State.CRASHED, Cause.IMAGE_PULL, "start_within")
    assert outcome.message == "not started within 0.3 s: ImagePullBackOff: worker w1"


def test_start_within_without_a_reason_is_a_deadline(scene: ScalingScene) -> None:
    scene.begin(start_within=0.3)
    scene.say("w1")
    scene.until(lambda: scene.scaled.cancelled, "the deletion")
    scene.scaled.observations[str((scene.run.handle or {})["name"])] = Observation(phase=Phase.GONE)
    scene.until(lambda: scene.run.terminal, "its end")
    assert scene.run.outcome is not None
    assert (scene.run.state, scene.run.outcome.message) == (
        State.TIMED_OUT,
        "not started within 0.3 s: 0 of 1 workers joined",
    )


def test_start_within_doesn_t_end_a_flow_that_has_started(scene: ScalingScene) -> None:
    scene.begin(start_within=0.5)
    scene.say("w1", connected="w1")
    scene.until(lambda: scene.state.ready, "the start of the flow")
    scene.until(lambda: scene.records.runs.now() > (scene.run.start_by or 0.0), "the end of start_within")
    scene.round()
    assert (scene.state.failure, scene.scaled.cancelled) == (None, set())


def test_a_supervisor_that_is_new_to_a_run_hears_its_runner_before_start_within_ends_it(scene: ScalingScene) -> None:
    """Its predecessor may have died between the report that the flow has started and the record."""
    scene.begin(start_within=0.1)
    scene.until(lambda: scene.records.runs.now() > (scene.run.start_by or 0.0), "the end of start_within")
    scene.round()
    assert scene.state.failure is None
    scene.say("w1")
    scene.until(lambda: scene.state.failure is not None, "the end")


def test_a_run_that_is_cancelled_loses_no_workers(scene: ScalingScene) -> None:
    started(scene)
    scene.update("run1", transitions.request_cancel)
    scene.scaled.delete_workers(scene.run.handle or {}, ["w1"])
    for _ in range(3):
        scene.round()
    assert (scene.state.lost, scene.log()) == (0, [])


def test_workers_that_end_with_the_flow_are_not_lost(scene: ScalingScene) -> None:
    started(scene)
    scene.update("run1", partial(transitions.settle, epoch=scene.run.epoch, outcome=Outcome()))
    scene.scaled.play("w1", "failed")
    scene.say("w1", connected="")
    for _ in range(3):
        scene.round()
    assert (scene.state.lost, scene.log()) == (0, [])


def test_workers_that_are_refused_for_good_end_an_attempt_that_waits_for_them(scene: ScalingScene) -> None:
    def refused(*arguments: object) -> None:
        raise Permanent("worker w1: the admission says no", cause=Cause.CONFIG_ERROR, reason="Forbidden")

    scene.scaled.create_workers = refused  # type: ignore[method-assign, assignment]
    scene.begin()
    scene.until(lambda: scene.scaled.cancelled, "the deletion")
    failure = scene.state.failure
    assert failure is not None
    assert (failure.cause, failure.message) == (Cause.CONFIG_ERROR, "worker w1: the admission says no")


def test_workers_that_are_refused_leave_a_flow_that_computes_alone(scene: ScalingScene) -> None:
    started(scene)

    def refused(*arguments: object) -> None:
        raise Permanent("worker w2: the admission says no", cause=Cause.CONFIG_ERROR, reason="Forbidden")

    scene.scaled.create_workers = refused  # type: ignore[method-assign, assignment]
    scene.say("w1", "w2", connected="w1")
    scene.until(lambda: any(event.data.get("cause") == "config_error" for event in scene.events()), "an event")
    assert scene.state.failure is None


def test_why_a_worker_of_a_flow_that_computes_waits_is_an_event(scene: ScalingScene) -> None:
    started(scene)
    scene.say("w1", "w2", connected="w1")
    scene.until_names("w1", "w2")
    scene.scaled.play("w2", "unschedulable")
    scene.until(lambda: scene.events()[-1].data.get("cause") == "unschedulable", "an event")
    assert scene.events()[-1].data["message"] == "worker w2"
    assert (scene.run.wait, scene.run.last_cause) == (None, None)
    kinds = [event.kind for event in scene.records.events.of("run1")[0]]
    assert EventKind.WAITING not in kinds
