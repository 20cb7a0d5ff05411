"""What one look at an attempt's infrastructure means."""

from __future__ import annotations

from typing import Any

import pytest

from backends.base import Observation, Phase
from dispatcher.runs import transitions as t
from dispatcher.runs.record import Change, Record
from dispatcher.runs.states import Cause, State
from tests.unit.making import queued
from workers.supervisor.verdicts import judge


def after(change: Change | None) -> Record:
    assert change is not None
    return change.after


def pending(**changes: Any) -> Record:
    record = after(t.claim(queued(**changes), 1, owner="w"))
    record = after(t.intend(record, 1, epoch=1, request={"shard": "fake/1", "epoch": 1, "body": {}}))
    return after(t.created(record, 1, epoch=1, handle={"uid": "u"}, owner="fake/1"))


def running(**changes: Any) -> Record:
    return after(t.claim_attempt(pending(**changes), 2, attempt=1, holder="pod"))


def test_losing_sight_ends_nothing() -> None:
    verdict = judge(running(), Observation(phase=Phase.UNKNOWN), 1e6, ended_before=True)
    assert not verdict.cancel
    assert verdict.step is not None
    record = after(verdict.step(running(), 9))
    assert (record.state, record.unknown_since) == (State.RUNNING, 9)


@pytest.mark.parametrize(
    ("seen", "cause"),
    [
        (Observation(phase=Phase.GONE), Cause.KILLED),
        (Observation(phase=Phase.ENDED, exit_code=0), Cause.RESULT_MISSING),
        (Observation(phase=Phase.ENDED, cause=Cause.OOM_KILLED, exit_code=137), Cause.OOM_KILLED),
    ],
)
def test_an_end_without_a_report_counts_at_the_second_look(seen: Observation, cause: Cause) -> None:
    assert judge(running(), seen, 3, ended_before=False).step is None
    step = judge(running(), seen, 4, ended_before=True).step
    assert step is not None
    record = after(step(running(), 4))
    assert record.state is State.CRASHED
    assert record.outcome is not None
    assert (record.outcome.cause, record.outcome.exit_code) == (cause, seen.exit_code)


def test_the_cause_it_waits_for_is_noted() -> None:
    seen = Observation(phase=Phase.WAITING, cause=Cause.IMAGE_PULL)
    step = judge(pending(), seen, 3, ended_before=False).step
    assert step is not None
    assert after(step(pending(), 3)).last_cause is Cause.IMAGE_PULL


def test_a_cancel_and_a_timeout_let_the_infrastructure_go_first() -> None:
    seen = Observation(phase=Phase.RUNNING)
    cancelling = after(t.request_cancel(running(), 3))
    assert judge(cancelling, seen, 4, ended_before=False).cancel
    late = running(timeout=5)
    assert not judge(late, seen, 6.9, ended_before=False).cancel
    assert judge(late, seen, 7, ended_before=False).cancel
    step = judge(late, Observation(phase=Phase.GONE), 9, ended_before=True).step
    assert step is not None
    assert after(step(late, 9)).state is State.TIMED_OUT


def test_a_quota_queue_that_takes_its_place_back_ends_the_attempt_as_preempted() -> None:
    """kubernetes.md §2: suspended before the claim it isn't admitted yet; after it, the attempt ends."""
    seen = Observation(phase=Phase.WAITING, paused=True, reason="Suspended", message="evicted by the queue")
    step = judge(pending(), seen, 3, ended_before=False).step
    assert step is None or step(pending(), 3) is None
    step = judge(running(), seen, 3, ended_before=False).step
    assert step is not None
    record = after(step(running(), 3))
    assert record.outcome is not None
    assert (record.state, record.outcome.cause, record.outcome.reason) == (
        State.CRASHED,
        Cause.PREEMPTED,
        "Suspended",
    )
    assert judge(after(t.request_cancel(running(), 3)), seen, 4, ended_before=False).cancel
