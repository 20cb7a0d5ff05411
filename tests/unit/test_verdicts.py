"""What one look at an attempt's infrastructure means."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from backends.base import Observation, Phase
from dispatcher.runs import infrastructure
from dispatcher.runs import transitions as t
from dispatcher.runs.change import Change
from dispatcher.runs.indexes import next_due
from dispatcher.runs.record import Outcome, Record
from dispatcher.runs.states import Cause, State
from tests.unit.making import queued
from workers.supervisor.verdicts import TIMEOUT_MARGIN, Judgement, explainable, explained, judge


def after(change: Change | None) -> Record:
    assert change is not None
    return change.after


def pending(**changes: Any) -> Record:
    record = after(t.claim(queued(**changes), 1, owner="w"))
    record = after(t.intend(record, 1, epoch=1, request={"shard": "fake/1", "epoch": 1, "body": {}}))
    return after(t.created(record, 1, epoch=1, handle={"uid": "u"}, owner="fake/1"))


def running(**changes: Any) -> Record:
    return after(t.claim_attempt(pending(**changes), 2, attempt=1, holder="pod"))


def look(record: Record, seen: Observation, now: float, *, silent: bool = False) -> Judgement:
    return judge(record, seen, now, silent=silent)


def ended(record: Record, seen: Observation, now: float, **given: bool) -> Record:
    """The record after the look ended its attempt."""
    verdict = look(record, seen, now, **given)
    assert verdict.end is not None
    return after(t.abandon(record, now, epoch=record.epoch, outcome=verdict.end, times=seen.times))


def noted(record: Record, seen: Observation, now: float) -> Record:
    step = look(record, seen, now).step
    assert step is not None
    return after(step(record, now))


def test_losing_sight_ends_nothing() -> None:
    unknown = Observation(phase=Phase.UNKNOWN)
    verdict = look(running(), unknown, 1e6, silent=True)
    assert (verdict.delete, verdict.end) == (False, None)
    record = noted(running(), unknown, 9)
    assert (record.state, record.unknown_since) == (State.RUNNING, 9)


def test_who_has_not_looked_yet_says_nothing() -> None:
    """A worker that starts finds thousands of runs, and its first lists take a moment."""
    unseen = Observation(phase=Phase.UNSEEN)
    assert look(running(), unseen, 1e6, silent=True) == Judgement()
    assert look(after(t.request_cancel(running(), 3)), unseen, 9) == Judgement(delete=True)


@pytest.mark.parametrize(
    ("seen", "cause"),
    [
        (Observation(phase=Phase.GONE), Cause.KILLED),
        (Observation(phase=Phase.ENDED, exit_code=0), Cause.RESULT_MISSING),
        (Observation(phase=Phase.ENDED, cause=Cause.OOM_KILLED, exit_code=137), Cause.OOM_KILLED),
    ],
)
def test_an_end_without_a_report(seen: Observation, cause: Cause) -> None:
    record = ended(running(), seen, 4)
    assert record.state is State.CRASHED
    assert record.outcome is not None
    assert (record.outcome.cause, record.outcome.exit_code) == (cause, seen.exit_code)


def test_the_cause_it_waits_for_is_noted() -> None:
    seen = Observation(phase=Phase.WAITING, cause=Cause.IMAGE_PULL)
    record = noted(pending(), seen, 3)
    assert record.last_cause is Cause.IMAGE_PULL
    step = look(record, seen, 4).step
    assert step is not None
    assert step(record, 4) is None, "an idle look writes nothing"
    claimed = after(t.claim_attempt(record, 5, attempt=1, holder="pod"))
    assert claimed.last_cause is None


def test_what_it_waited_for_is_no_reason_once_its_runner_was_heard() -> None:
    """A busy node's pod is seen to wait for a moment after its runner has claimed the attempt."""
    seen = Observation(phase=Phase.WAITING, cause=Cause.START_FAILED, reason="FailedCreatePodSandBox", message="busy")
    record = running()
    step = look(record, seen, 3).step
    assert step is not None
    assert step(record, 3) is None
    told = Outcome(cause=Cause.PREEMPTED, reason="PreemptInterrupt", message="told to stop")
    deleted = Observation(phase=Phase.RUNNING, cause=Cause.KILLED, reason="deleted", message="its pod is being deleted")
    assert explained(record, told, deleted, 4).cause is Cause.KILLED


def test_what_was_said_of_the_cause_stands_in_the_end_that_start_within_brings() -> None:
    first = Observation(phase=Phase.WAITING, cause=Cause.UNSCHEDULABLE, message="0/1 nodes: Insufficient cpu")
    record = noted(pending(start_within=5), first, 1)
    again = look(record, replace(first, message="0/2 nodes: Insufficient cpu"), 2).step
    assert again is not None
    assert again(record, 2) is None, "another text for the same cause is no reason to write"
    late = after(t.tick(record, 100))
    assert late.outcome is not None
    assert late.outcome.cause is Cause.UNSCHEDULABLE
    assert "not started within 5 s: 0/1 nodes: Insufficient cpu" in late.outcome.message


@pytest.mark.parametrize(
    ("seen", "waits"),
    [
        (None, True),
        (Observation(phase=Phase.RUNNING), True),
        (Observation(phase=Phase.ENDED, cause=Cause.PREEMPTED, message="PreemptInterrupt: told to stop"), True),
        (Observation(phase=Phase.ENDED, cause=Cause.PREEMPTED, reason="NodeShutdown", message="node is down"), False),
        (Observation(phase=Phase.RUNNING, cause=Cause.KILLED, reason="deleted"), True),
        (Observation(phase=Phase.ENDED, cause=Cause.KILLED, reason="deleted", exit_code=143), True),
        (Observation(phase=Phase.GONE, cause=Cause.KILLED, reason="deleted"), False),
        (Observation(phase=Phase.ENDED, cause=Cause.EVICTED), False),
    ],
)
def test_an_end_that_the_runner_cannot_explain_waits_for_what_is_seen(seen: Observation | None, waits: bool) -> None:
    told = Outcome(cause=Cause.PREEMPTED, reason="PreemptInterrupt", message="told to stop")
    assert explainable(running(), told, seen, 10) is waits
    assert not explainable(after(t.request_cancel(running(), 3)), told, seen, 10)
    assert not explainable(running(timeout=3), told, seen, 10)
    assert not explainable(running(), Outcome(cause=Cause.USER_ERROR, reason="ValueError"), seen, 10)


def test_a_settled_end_may_be_explained_later_and_not_be_changed() -> None:
    told = Outcome(cause=Cause.PREEMPTED, reason="PreemptInterrupt", message="told to stop")
    why = Outcome(cause=Cause.EVICTED, reason="Evicted")
    settled = after(t.settle(running(), 5, epoch=running().epoch, outcome=told))
    assert after(t.finish(settled, 6, epoch=settled.epoch, outcome=why)).outcome == told
    assert after(t.finish(settled, 6, epoch=settled.epoch, outcome=why, corrected=True)).outcome == why


def test_a_cancel_and_a_timeout_let_the_infrastructure_go_first() -> None:
    seen = Observation(phase=Phase.RUNNING)
    cancelling = after(t.request_cancel(running(), 3))
    assert look(cancelling, seen, 4).delete
    assert look(cancelling, Observation(phase=Phase.UNKNOWN), 4).delete
    late = running(timeout=5)
    assert not look(late, seen, 6.9 + TIMEOUT_MARGIN).delete, (
        "its runner ends it by its own clock, which calls on_exit as it should"
    )
    assert look(late, seen, 7 + TIMEOUT_MARGIN).delete
    assert ended(late, Observation(phase=Phase.GONE), 9).state is State.TIMED_OUT


def test_a_quota_queue_that_takes_its_place_back_ends_the_attempt_as_preempted() -> None:
    """kubernetes.md §2: suspended before the claim it isn't admitted yet; after it, the attempt ends. Its runner was
    told and may still call ``on_exit``, so that the infrastructure goes first."""
    seen = Observation(phase=Phase.WAITING, paused=True, reason="Suspended", message="evicted by the queue")
    waiting = noted(pending(start_within=60), seen, 3)
    assert (waiting.state, waiting.paused_since, waiting.start_by) == (State.PENDING, 3, None)
    assert not look(waiting, seen, 4).delete
    assert look(running(), seen, 3).delete
    record = noted(running(), seen, 3)
    assert record.state is State.RUNNING
    gone = ended(record, Observation(phase=Phase.GONE, cause=Cause.KILLED, reason="deleted"), 4)
    assert gone.outcome is not None
    assert (gone.state, gone.outcome.cause) == (State.CRASHED, Cause.PREEMPTED)
    assert look(after(t.request_cancel(running(), 3)), seen, 4).delete


def test_a_quota_queue_stops_the_clock_of_start_within() -> None:
    """kubernetes.md §2: the clock is paused while a quota queue holds it; here for 100 of 110 s."""
    held = Observation(phase=Phase.WAITING, paused=True)
    record = noted(pending(start_within=60), held, 5)
    assert t.tick(record, 1000) is None
    assert next_due(record) is None
    record = noted(record, Observation(phase=Phase.WAITING), 105)
    assert (record.paused, record.paused_since, record.start_by) == (100, None, 160)
    assert t.tick(record, 159) is None
    late = after(t.tick(record, 160))
    assert late.state is State.TIMED_OUT
    assert late.leftovers[0]["claimed"] is False


@pytest.mark.parametrize("phase", [Phase.UNKNOWN, Phase.GONE])
def test_a_lost_node_needs_two_sources(phase: Phase) -> None:
    """kubernetes.md §4: the heartbeat has been absent, and the node isn't ready."""
    seen = Observation(phase=phase, cause=Cause.NODE_LOST, reason="NodeStatusUnknown", message="node n1 is silent")
    record = noted(running(), seen, 9)
    assert (record.state, record.unknown_since) == (State.RUNNING, 9)
    gone = ended(record, seen, 310, silent=True)
    assert gone.outcome is not None
    assert (gone.state, gone.outcome.cause, gone.outcome.message) == (
        State.CRASHED,
        Cause.NODE_LOST,
        "node n1 is silent",
    )
    assert len(gone.leftovers) == 1, "its teardown is open"


def test_a_terminated_container_of_a_lost_node_has_ended() -> None:
    seen = Observation(phase=Phase.ENDED, cause=Cause.NODE_LOST, exit_code=143)
    assert ended(running(), seen, 5).state is State.CRASHED


@pytest.mark.parametrize(
    ("seen", "options", "expected"),
    [
        (None, {}, Cause.PREEMPTED),
        (Observation(phase=Phase.RUNNING), {}, Cause.PREEMPTED),
        (Observation(phase=Phase.RUNNING, cause=Cause.EVICTED, reason="EvictionByEvictionAPI"), {}, Cause.EVICTED),
        (Observation(phase=Phase.ENDED, cause=Cause.KILLED, reason="deleted"), {}, Cause.KILLED),
        (Observation(phase=Phase.RUNNING), {"timeout": 3}, Cause.DEADLINE),
    ],
)
def test_a_runner_does_not_know_who_told_it_to_stop(
    seen: Observation | None, options: dict[str, Any], expected: Cause
) -> None:
    told = Outcome(cause=Cause.PREEMPTED, reason="PreemptInterrupt", message="told to stop", log_tail=("x",))
    outcome = explained(running(**options), told, seen, 10)
    assert (outcome.cause, outcome.log_tail) == (expected, ("x",))


def test_a_runner_knows_why_its_own_flow_failed() -> None:
    own = Outcome(cause=Cause.USER_ERROR, reason="ValueError")
    assert explained(running(), own, Observation(phase=Phase.ENDED, cause=Cause.EVICTED), 10) is own


def test_times_are_written_once_it_runs_and_at_its_end_and_never_by_themselves() -> None:
    """Issue 5, the phase timeline: from the objects' own timestamps, without a write per tick."""
    waiting = Observation(phase=Phase.WAITING, times={"created": 1.0, "scheduled": 2.0})
    step = look(pending(), waiting, 3).step
    assert step is not None
    assert step(pending(), 3) is None
    started = Observation(phase=Phase.RUNNING, times={**waiting.times, "pulled": 3.0, "started": 4.0})
    record = noted(running(), started, 5)
    assert record.times == {"1": started.times}
    step = look(record, started, 6).step
    assert step is not None
    assert step(record, 6) is None
    over = Observation(phase=Phase.ENDED, exit_code=1, times={**started.times, "finished": 8.0})
    record = ended(record, over, 9)
    gone = after(infrastructure.torn_down(record, 11, attempt=1))
    assert gone.times == {"1": {**over.times, "torn down": 11}}
