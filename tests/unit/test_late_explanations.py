"""The end of a runner that was told to stop waits for a moment, until the reason is observed."""

from __future__ import annotations

import pytest

from backends.base import Observation, Phase
from dispatcher.records.rejections import Rejected
from dispatcher.runner.container.report import ReportKind
from dispatcher.runs.events import EventKind
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.states import Cause, State
from tests.unit.supervisor_scene import Scene
from workers.supervisor import reports

PREEMPTED = Outcome(cause=Cause.PREEMPTED, reason="PreemptInterrupt", message="told to stop")
UNEXPLAINED = Observation(
    phase=Phase.ENDED, cause=Cause.PREEMPTED, message="PreemptInterrupt: told to stop", exit_code=143
)
EVICTED = Observation(phase=Phase.ENDED, cause=Cause.EVICTED, reason="Evicted", message="disk is full", exit_code=143)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def reported(scene: Scene, about: ReportKind = ReportKind.EXITED) -> tuple[Record, str]:
    """Return a run whose runner has reported, and its container's name."""
    record = scene.running("r1")
    scene.round()
    if about is ReportKind.EXITED:
        scene.report(record, ReportKind.SETTLED, PREEMPTED)
    scene.report(record, about, PREEMPTED)
    return record, str((record.handle or {})["name"])


@pytest.mark.parametrize("about", [ReportKind.EXITED, ReportKind.DIED])
def test_the_run_ends_with_the_cause_that_is_observed_later(scene: Scene, about: ReportKind) -> None:
    _, name = reported(scene, about)
    scene.round()
    scene.backend.observations[name] = UNEXPLAINED
    scene.round()
    assert not scene.record("r1").terminal, "the container's own message explains nothing"
    scene.backend.observations[name] = EVICTED
    scene.round()
    record = scene.record("r1")
    assert record.outcome is not None
    assert (record.state, record.outcome.cause) == (State.CRASHED, Cause.EVICTED)
    assert "disk is full" in record.outcome.message
    kinds = [event.kind for event in scene.records.events.of("r1")[0]]
    assert kinds.count(EventKind.EXITED) == 1


def test_a_timeout_that_was_settled_stands(scene: Scene) -> None:
    """The timeout deletes the container; the runner only knows that it was told to stop."""
    record = scene.running("r1", timeout=1e-6)
    scene.round()
    name = str((record.handle or {})["name"])
    scene.backend.observations[name] = Observation(phase=Phase.RUNNING, cause=Cause.KILLED, reason="deleted")
    scene.report(record, ReportKind.SETTLED, PREEMPTED)
    scene.round()
    scene.report(record, ReportKind.EXITED, PREEMPTED)
    scene.round()
    assert scene.record("r1").state is State.TIMED_OUT


def test_the_end_does_not_wait_for_ever(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "EXPLANATION_TIMEOUT", 0.0)
    _, name = reported(scene)
    scene.backend.observations[name] = UNEXPLAINED
    scene.round()
    record = scene.record("r1")
    assert record.outcome is not None
    assert (record.state, record.outcome.cause) == (State.CRASHED, Cause.KILLED)


def test_an_end_without_evidence_uses_up_a_retry(scene: Scene) -> None:
    """A settled end, and its process dead before its last report."""
    record = scene.running("r1")
    scene.round()
    scene.report(record, ReportKind.SETTLED, PREEMPTED)
    scene.round()
    name = str((record.handle or {})["name"])
    scene.backend.observations[name] = Observation(phase=Phase.ENDED, cause=Cause.KILLED, reason="Unhealthy")
    scene.round()
    ended = scene.record("r1")
    assert ended.outcome is not None
    assert (ended.state, ended.outcome.cause) == (State.CRASHED, Cause.KILLED)


def test_an_end_whose_shard_was_taken_meanwhile_is_left_to_the_new_holder(scene: Scene) -> None:
    record, name = reported(scene)
    scene.round()
    before, shard = scene.record("r1"), record.owner
    lease = scene.records.leases.held("scripted/")[shard]
    scene.records.leases.acquire(shard, "w2", expected=lease)
    scene.backend.observations[name] = EVICTED
    scene.backend.changed(name, "")
    scene.supervisor.tick()
    assert scene.record("r1") == before
    assert Rejected.REPORT not in scene.records.rejections.tallies(), "no report was forged"
    assert shard not in scene.supervisor.held
