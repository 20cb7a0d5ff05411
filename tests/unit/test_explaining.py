"""The end of a runner that was told to stop waits, for a moment, until it is seen why."""

from __future__ import annotations

import pytest

from backends.base import Observation, Phase
from dispatcher.runner.container.report import ReportKind
from dispatcher.runs.events import Kind
from dispatcher.runs.record import Outcome, Record
from dispatcher.runs.states import Cause, State
from tests.unit.supervised import Scene
from workers.supervisor import reports

TOLD = Outcome(cause=Cause.PREEMPTED, reason="PreemptInterrupt", message="told to stop")
BARE = Observation(phase=Phase.ENDED, cause=Cause.PREEMPTED, message="PreemptInterrupt: told to stop", exit_code=143)
EVICTED = Observation(phase=Phase.ENDED, cause=Cause.EVICTED, reason="Evicted", message="disk is full", exit_code=143)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def told(scene: Scene, about: ReportKind = ReportKind.EXITED) -> tuple[Record, str]:
    """A run whose runner has reported, and its container's name."""
    record = scene.running("r1")
    scene.round()
    if about is ReportKind.EXITED:
        scene.report(record, ReportKind.SETTLED, TOLD)
    scene.report(record, about, TOLD)
    return record, str((record.handle or {})["name"])


@pytest.mark.parametrize("about", [ReportKind.EXITED, ReportKind.DIED])
def test_it_ends_with_the_cause_that_is_seen_then(scene: Scene, about: ReportKind) -> None:
    _, name = told(scene, about)
    scene.round()
    scene.backend.seen[name] = BARE
    scene.round()
    assert not scene.record("r1").terminal, "its container's own words say no more"
    scene.backend.seen[name] = EVICTED
    scene.round()
    record = scene.record("r1")
    assert record.outcome is not None
    assert (record.state, record.outcome.cause) == (State.CRASHED, Cause.EVICTED)
    assert "disk is full" in record.outcome.message
    kinds = [event.kind for event in scene.records.events.of("r1")[0]]
    assert kinds.count(Kind.EXITED) == 1


def test_a_timeout_that_was_settled_stands(scene: Scene) -> None:
    """The timeout deletes the container; its runner only knows that it was told to stop."""
    record = scene.running("r1", timeout=1e-6)
    scene.round()
    name = str((record.handle or {})["name"])
    scene.backend.seen[name] = Observation(phase=Phase.RUNNING, cause=Cause.KILLED, reason="deleted")
    scene.report(record, ReportKind.SETTLED, TOLD)
    scene.round()
    scene.report(record, ReportKind.EXITED, TOLD)
    scene.round()
    assert scene.record("r1").state is State.TIMED_OUT


def test_it_does_not_wait_for_ever(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "EXPLAINED", 0.0)
    _, name = told(scene)
    scene.backend.seen[name] = BARE
    scene.round()
    record = scene.record("r1")
    assert record.outcome is not None
    assert (record.state, record.outcome.cause) == (State.CRASHED, Cause.PREEMPTED)
