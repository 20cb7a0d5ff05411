"""When a running attempt is ended, and how."""

from __future__ import annotations

import pytest

from dispatcher.runs import transitions
from dispatcher.runs.record import Outcome, Record
from dispatcher.runs.states import Cause
from dispatcher.settings import TimingSettings
from tests.unit.making import queued
from workers.pool.processes import BusyProcess
from workers.pool.termination import Action, Decision, TerminationContext, TerminationReason, decide, pid_of

TIMING = TimingSettings(stop_grace=10, on_exit_timeout=60, lease=30)


def running(**changes: object) -> Record:
    """A run that process 7 of worker w runs since time 100."""
    change = transitions.start_here(queued(**changes), 100.0, owner="w", holder="host:7:nonce")  # type: ignore[arg-type]
    assert change is not None
    return change.after


def holding(**changes: object) -> BusyProcess:
    return BusyProcess(**{"pid": 7, "run_id": "run1", "since": 0.0, "epoch": 1, **changes})  # type: ignore[arg-type]


def look(now: float = 100.0, at: float = 0.0, *, preempting: bool = False) -> TerminationContext:
    return TerminationContext(now=now, at=at, worker="w", preempting=preempting)


def test_a_run_without_a_timeout_is_left_alone() -> None:
    assert decide(running(), holding(), look(1e9), TIMING) == Decision(Action.NOTHING)


def test_a_timeout_is_told_when_it_passes() -> None:
    record = running(timeout=5)
    assert decide(record, holding(), look(104.0), TIMING) == Decision(Action.NOTHING, again=1.0)
    assert decide(record, holding(), look(105.0), TIMING).reason is TerminationReason.TIMEOUT


def test_a_cancel_goes_before_a_timeout() -> None:
    change = transitions.request_cancel(running(timeout=5), 101.0)
    assert change is not None
    assert decide(change.after, holding(), look(200.0), TIMING) == Decision(
        Action.INTERRUPT, TerminationReason.CANCEL, again=1.0
    )


def test_what_was_told_is_told_again_and_killed_after_the_grace() -> None:
    told = holding(interrupted_for=TerminationReason.TIMEOUT, interrupted_at=50.0)
    assert decide(running(timeout=5), told, look(at=51.0), TIMING) == Decision(
        Action.INTERRUPT, TerminationReason.TIMEOUT, again=1.0
    )
    assert decide(running(timeout=5), told, look(at=59.5), TIMING) == Decision(
        Action.INTERRUPT, TerminationReason.TIMEOUT, again=0.5
    )
    assert decide(running(timeout=5), told, look(at=60.0), TIMING) == Decision(Action.KILL, TerminationReason.TIMEOUT)


def test_from_its_outcome_on_only_the_time_of_on_exit_counts() -> None:
    change = transitions.settle(running(timeout=5), 103.0, epoch=1, outcome=Outcome())
    assert change is not None
    settled = change.after
    told = holding(interrupted_for=TerminationReason.TIMEOUT, interrupted_at=0.0)
    assert decide(settled, told, look(200.0, at=50.0), TIMING) == Decision(Action.NOTHING, again=60.0)
    told.settled_since = 50.0
    assert decide(settled, told, look(200.0, at=110.0), TIMING) == Decision(Action.KILL, TerminationReason.ON_EXIT)


def test_a_shutdown_preempts() -> None:
    assert decide(running(), holding(), look(preempting=True), TIMING).reason is TerminationReason.PREEMPT


def test_a_run_not_yet_claimed_is_left_alone_for_a_lease() -> None:
    record = queued()
    assert decide(record, holding(epoch=None), look(at=29.0), TIMING) == Decision(Action.NOTHING)
    assert decide(record, holding(epoch=None), look(at=31.0), TIMING) == Decision(Action.KILL, TerminationReason.TAKEN)


def test_a_run_that_others_took_is_killed_at_once() -> None:
    change = transitions.lose(running(), 200.0, owner="w")
    assert change is not None
    assert change.after.outcome is not None
    assert change.after.outcome.cause is Cause.WORKER_LOST
    assert decide(change.after, holding(), look(), TIMING) == Decision(Action.KILL, TerminationReason.TAKEN)


def test_a_run_that_just_ended_is_given_a_second_look() -> None:
    change = transitions.finish(running(), 200.0, epoch=1, outcome=Outcome())
    assert change is not None
    assert decide(change.after, holding(), look(), TIMING).action is Action.NOTHING
    assert decide(change.after, holding(missing=1), look(), TIMING).action is Action.KILL
    assert decide(None, holding(missing=1), look(), TIMING).action is Action.KILL


@pytest.mark.parametrize(("holder", "pid"), [("host:7:n", 7), ("fe80::1:7:n", 7), ("", None), ("host:x:n", None)])
def test_the_pid_in_a_holder(holder: str, pid: int | None) -> None:
    assert pid_of(holder) == pid
