"""Decisions about the termination of running attempts."""

from __future__ import annotations

import pytest

from dispatcher.runs import transitions
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.record import Record
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


def busy_process(**changes: object) -> BusyProcess:
    return BusyProcess(**{"pid": 7, "run_id": "run1", "since": 0.0, "epoch": 1, **changes})  # type: ignore[arg-type]


def circumstances(now: float = 100.0, at: float = 0.0, *, preempting: bool = False) -> TerminationContext:
    return TerminationContext(now=now, at=at, worker="w", preempting=preempting)


def test_a_run_without_a_timeout_is_left_alone() -> None:
    assert decide(running(), busy_process(), circumstances(1e9), TIMING) == Decision(Action.NOTHING)


def test_a_flow_is_interrupted_when_its_timeout_passes() -> None:
    record = running(timeout=5)
    assert decide(record, busy_process(), circumstances(104.0), TIMING) == Decision(Action.NOTHING, again=1.0)
    assert decide(record, busy_process(), circumstances(105.0), TIMING).reason is TerminationReason.TIMEOUT


def test_a_cancel_has_precedence_over_a_timeout() -> None:
    change = transitions.request_cancel(running(timeout=5), 101.0)
    assert change is not None
    assert decide(change.after, busy_process(), circumstances(200.0), TIMING) == Decision(
        Action.INTERRUPT, TerminationReason.CANCEL, again=1.0
    )


def test_an_interrupt_is_repeated_and_the_process_killed_after_the_grace() -> None:
    interrupted = busy_process(interrupted_for=TerminationReason.TIMEOUT, interrupted_at=50.0)
    assert decide(running(timeout=5), interrupted, circumstances(at=51.0), TIMING) == Decision(
        Action.INTERRUPT, TerminationReason.TIMEOUT, again=1.0
    )
    assert decide(running(timeout=5), interrupted, circumstances(at=59.5), TIMING) == Decision(
        Action.INTERRUPT, TerminationReason.TIMEOUT, again=0.5
    )
    assert decide(running(timeout=5), interrupted, circumstances(at=60.0), TIMING) == Decision(
        Action.KILL, TerminationReason.TIMEOUT
    )


def test_once_the_outcome_is_stored_only_the_timeout_of_on_exit_counts() -> None:
    change = transitions.settle(running(timeout=5), 103.0, epoch=1, outcome=Outcome())
    assert change is not None
    settled = change.after
    interrupted = busy_process(interrupted_for=TerminationReason.TIMEOUT, interrupted_at=0.0)
    assert decide(settled, interrupted, circumstances(200.0, at=50.0), TIMING) == Decision(Action.NOTHING, again=60.0)
    interrupted.settled_since = 50.0
    assert decide(settled, interrupted, circumstances(200.0, at=110.0), TIMING) == Decision(
        Action.KILL, TerminationReason.ON_EXIT
    )


def test_a_shutdown_preempts() -> None:
    assert decide(running(), busy_process(), circumstances(preempting=True), TIMING).reason is TerminationReason.PREEMPT


def test_a_run_not_yet_claimed_is_left_alone_for_a_lease() -> None:
    record = queued()
    assert decide(record, busy_process(epoch=None), circumstances(at=29.0), TIMING) == Decision(Action.NOTHING)
    assert decide(record, busy_process(epoch=None), circumstances(at=31.0), TIMING) == Decision(
        Action.KILL, TerminationReason.TAKEN
    )


def test_a_process_whose_run_another_worker_took_is_killed_at_once() -> None:
    change = transitions.lose(running(), 200.0, owner="w")
    assert change is not None
    assert change.after.outcome is not None
    assert change.after.outcome.cause is Cause.WORKER_LOST
    assert decide(change.after, busy_process(), circumstances(), TIMING) == Decision(
        Action.KILL, TerminationReason.TAKEN
    )


def test_a_process_whose_run_has_just_ended_is_killed_only_if_it_goes_on() -> None:
    change = transitions.finish(running(), 200.0, epoch=1, outcome=Outcome())
    assert change is not None
    assert decide(change.after, busy_process(), circumstances(), TIMING).action is Action.NOTHING
    assert decide(change.after, busy_process(missing=1), circumstances(), TIMING).action is Action.KILL
    assert decide(None, busy_process(missing=1), circumstances(), TIMING).action is Action.KILL


@pytest.mark.parametrize(("holder", "pid"), [("host:7:n", 7), ("fe80::1:7:n", 7), ("", None), ("host:x:n", None)])
def test_the_pid_in_a_holder(holder: str, pid: int | None) -> None:
    assert pid_of(holder) == pid
