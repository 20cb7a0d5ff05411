"""The phases of a run, with those of its infrastructure."""

from __future__ import annotations

import pytest

from dispatcher.inspection.timeline import moments, timeline
from dispatcher.runs.events import Event, EventKind
from dispatcher.runs.states import State


def event(kind: EventKind, time: float, *, attempt: int = 1, final: bool = False) -> Event:
    state = State.SUCCEEDED if final else State.RUNNING
    return Event(run_id="r", attempt=attempt, kind=kind, state=state, time=time, data={"final": final})


EVENTS = [
    event(EventKind.QUEUED, 100.0),
    event(EventKind.CLAIMED, 100.5),
    event(EventKind.PROVISIONING, 100.5),
    event(EventKind.PENDING, 100.6),
    event(EventKind.STARTED, 104.2),
    event(EventKind.EXITED, 110.3, final=True),
]
TIMES = {"created": 100.0, "scheduled": 101.0, "pulled": 103.0, "started": 104.0, "finished": 111.0, "torn down": 112.5}


def test_phases_of_a_container_by_its_own_timestamps() -> None:
    phases = timeline("r", EVENTS, {"1": TIMES}, {1: 104.4})
    assert [(phase.name, round(phase.start, 3)) for phase in phases] == [
        ("queued", 100.0),
        ("created", 100.5),  # whole seconds of another clock: never before what caused it
        ("pending", 100.6),
        ("scheduled", 101.0),
        ("pulled", 103.0),
        ("started", 104.0),
        ("running", 104.2),
        ("first line", 104.4),
        ("finished", 111.0),
        ("torn down", 112.5),
    ]
    assert (phases.end, phases.ended) == ("SUCCEEDED", 110.3)
    assert phases.total == pytest.approx(10.3)


@pytest.mark.parametrize("ahead", [-3600.0, 3600.0])
def test_a_wrong_clock_makes_nothing_negative(ahead: float) -> None:
    skewed = {name: time + ahead for name, time in TIMES.items()}
    phases = timeline("r", EVENTS, {"1": skewed}, {1: 104.4 + ahead})
    assert all((phase.duration or 0.0) >= 0.0 for phase in phases)
    assert phases.total == pytest.approx(10.3)
    starts = [phase.start for phase in phases]
    assert starts == sorted(starts)


def test_what_was_not_observed_is_missing() -> None:
    phases = timeline("r", EVENTS, {"1": {"created": 100.0}}, {})
    assert [phase.name for phase in phases] == ["queued", "created", "pending", "running"]
    assert timeline("r", EVENTS) == timeline("r", EVENTS, {}, {1: 104.4}), "a run in a pool has no such phases"


def test_an_attempt_has_its_own_moments() -> None:
    again = [event(EventKind.QUEUED, 120.0, attempt=2), event(EventKind.CLAIMED, 121.0, attempt=2)]
    events = [*EVENTS[:-1], event(EventKind.EXITED, 110.3), *again]
    in_order = moments(events, {"1": TIMES, "2": {"created": 121.5}})
    assert [(moment.name, moment.attempt) for moment in in_order][-4:] == [
        ("exited", 1), ("queued", 2), ("claimed", 2), ("created", 2),
    ]  # fmt: skip
