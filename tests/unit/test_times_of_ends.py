"""The times of a run whose supervisor was away: those of its runner and of its infrastructure."""

from __future__ import annotations

import pytest

from backends.base import Observation, Phase
from dispatcher.cli.formatting import length
from dispatcher.runner.container.report import ReportKind
from dispatcher.runs import transitions
from dispatcher.runs.events import EventKind
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.retry import Retry
from dispatcher.runs.states import Cause, State
from tests.unit.making import make_record
from tests.unit.supervisor_scene import Scene

AWAY = 3600.0  # seconds without a supervisor


class Clock:
    """Seconds since the epoch, as a test sets them."""

    def __init__(self) -> None:
        self.now = 1_000_000.25

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def scene(clock: Clock) -> Scene:
    return Scene(clock=clock)


@pytest.mark.parametrize("kind", [ReportKind.EXITED, ReportKind.DIED])
@pytest.mark.parametrize("settled", [False, True])
def test_a_run_ended_when_its_runner_reported_so(scene: Scene, clock: Clock, kind: ReportKind, settled: bool) -> None:
    record = scene.running("r1", on_exit=settled)
    clock.now += 20
    outcome = Outcome() if kind is ReportKind.EXITED else Outcome(cause=Cause.KILLED, message="killed")
    if settled:
        scene.report(record, ReportKind.SETTLED, outcome)
    clock.now += 10
    scene.report(record, kind, outcome)
    ended_at = clock.now
    clock.now += AWAY
    scene.round()
    ended = scene.record("r1")
    assert ended.terminal
    assert ended.ended_at == ended_at
    assert length(ended, clock.now) == "30 s"
    assert ended.settled_at == (ended_at - 10 if settled else None)
    (exited,) = [event for event in scene.records.events.of("r1")[0] if event.kind is EventKind.EXITED]
    assert exited.time == ended_at


def test_a_run_ended_when_its_infrastructure_says_so(scene: Scene, clock: Clock) -> None:
    """Its times have whole seconds."""
    record = scene.running("r1")
    finished = float(int(clock.now)) + 30
    clock.now += AWAY
    times = {"started": finished - 31, "finished": finished}
    scene.backend.observations[str((record.handle or {})["name"])] = Observation(
        phase=Phase.ENDED, cause=Cause.OOM_KILLED, exit_code=137, times=times
    )
    scene.round()
    assert scene.record("r1").ended_at == finished


@pytest.mark.parametrize(
    ("offset", "expected"), [(-0.5, 0.0), (-1.5, 100.0), (50.0, 50.0), (100.0, 100.0), (101.0, 100.0), (None, 100.0)]
)
def test_a_time_that_can_not_be_is_replaced_by_the_servers(offset: float | None, expected: float) -> None:
    """A node's clock may be wrong, and a container may say anything."""
    started = make_record("r1").but(state=State.RUNNING, started_at=1000.0, owner="s", epoch=1)
    at = None if offset is None else 1000.0 + offset
    change = transitions.finish(started, 1100.0, epoch=1, outcome=Outcome(), at=at)
    assert change is not None
    assert change.after.ended_at == 1000.0 + expected


def test_a_retry_waits_from_when_its_supervisor_was_back(scene: Scene, clock: Clock) -> None:
    record = scene.running("r1", retries=Retry(1, delay=60))
    scene.report(record, ReportKind.EXITED, Outcome(cause=Cause.USER_ERROR, message="no"))
    clock.now += AWAY
    scene.round()
    waiting = scene.record("r1")
    assert (waiting.state, waiting.due_at) == (State.AWAITING_RETRY, clock.now + 60)
