"""Decisions about a run by an observation of its infrastructure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from backends.base import Observation, Phase
from dispatcher.inspection.explain import explain
from dispatcher.runs import infrastructure
from dispatcher.runs import transitions as t
from dispatcher.runs.change import Change
from dispatcher.runs.events import EventKind
from dispatcher.runs.indexes import next_due
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.states import Cause, State
from tests.unit.making import queued
from workers.supervisor.judgement import TIMEOUT_MARGIN, Judgement, explainable, explained, judge


def after(change: Change | None) -> Record:
    assert change is not None
    return change.after


def pending(**changes: Any) -> Record:
    record = after(t.claim(queued(**changes), 1, owner="w"))
    record = after(t.intend(record, 1, epoch=1, request={"shard": "fake/1", "epoch": 1, "body": {}}))
    return after(t.created(record, 1, epoch=1, handle={"uid": "u"}, owner="fake/1"))


def running(**changes: Any) -> Record:
    return after(t.claim_attempt(pending(**changes), 2, attempt=1, holder="pod"))


def decide(record: Record, observation: Observation, now: float, *, silent: bool = False) -> Judgement:
    return judge(record, observation, now, silent=silent)


def ended(record: Record, observation: Observation, now: float, **options: bool) -> Record:
    """Return the record after the observation ended its attempt."""
    judgement = decide(record, observation, now, **options)
    assert judgement.end is not None
    return after(t.abandon(record, now, epoch=record.epoch, outcome=judgement.end, times=observation.times))


def noted(record: Record, observation: Observation, now: float) -> Record:
    step = decide(record, observation, now).step
    assert step is not None
    return after(step(record, now))


def test_infrastructure_in_an_unknown_state_ends_nothing() -> None:
    unknown = Observation(phase=Phase.UNKNOWN)
    judgement = decide(running(), unknown, 1e6, silent=True)
    assert (judgement.delete, judgement.end) == (False, None)
    record = noted(running(), unknown, 9)
    assert (record.state, record.unknown_since) == (State.RUNNING, 9)


def test_why_infrastructure_is_unknown_is_noted_until_it_is_seen_again() -> None:
    silent = Observation(phase=Phase.UNKNOWN, reason="Transient", message="401 Unauthorized")
    first = decide(running(), silent, 9).step
    assert first is not None
    change = first(running(), 9)
    assert change is not None
    assert [(event.kind, event.data["message"]) for event in change.events] == [(EventKind.UNKNOWN, "401 Unauthorized")]
    record = change.after
    again = decide(record, replace(silent, message="still 401"), 10).step
    assert again is not None
    assert again(record, 10) is None, "nothing is written while it lasts"
    assert record.unknown_why == "401 Unauthorized"
    later = noted(record, Observation(phase=Phase.RUNNING), 11)
    assert (later.unknown_since, later.unknown_why) == (None, "")


def test_infrastructure_that_was_not_observed_yet_changes_nothing() -> None:
    """A worker that starts has thousands of runs, and its first lists take a moment."""
    unseen = Observation(phase=Phase.UNSEEN)
    assert decide(running(), unseen, 1e6, silent=True) == Judgement()
    assert decide(after(t.request_cancel(running(), 3)), unseen, 9) == Judgement(delete=True)


@pytest.mark.parametrize(
    ("observation", "cause"),
    [
        (Observation(phase=Phase.GONE), Cause.KILLED),
        (Observation(phase=Phase.ENDED, exit_code=0), Cause.RESULT_MISSING),
        (Observation(phase=Phase.ENDED, cause=Cause.OOM_KILLED, exit_code=137), Cause.OOM_KILLED),
    ],
)
def test_an_end_without_a_report(observation: Observation, cause: Cause) -> None:
    record = ended(running(), observation, 4)
    assert record.state is State.CRASHED
    assert record.outcome is not None
    assert (record.outcome.cause, record.outcome.exit_code) == (cause, observation.exit_code)


def test_the_cause_for_which_a_run_waits_is_noted() -> None:
    observation = Observation(phase=Phase.WAITING, cause=Cause.IMAGE_PULL)
    record = noted(pending(), observation, 3)
    assert record.last_cause is Cause.IMAGE_PULL
    step = decide(record, observation, 4).step
    assert step is not None
    assert step(record, 4) is None, "an observation without news writes nothing"
    claimed = after(t.claim_attempt(record, 5, attempt=1, holder="pod"))
    assert claimed.last_cause is None


def test_the_cause_for_which_it_waited_does_not_count_once_its_runner_has_reported() -> None:
    """A busy node's pod may be reported as waiting after its runner has claimed the attempt."""
    observation = Observation(
        phase=Phase.WAITING, cause=Cause.START_FAILED, reason="FailedCreatePodSandBox", message="busy"
    )
    record = running()
    step = decide(record, observation, 3).step
    assert step is not None
    assert step(record, 3) is None
    preempted = Outcome(cause=Cause.PREEMPTED, reason="PreemptInterrupt", message="told to stop")
    deleted = Observation(phase=Phase.RUNNING, cause=Cause.KILLED, reason="deleted", message="its pod is being deleted")
    assert explained(record, preempted, deleted, 4).cause is Cause.KILLED


def test_the_outcome_of_start_within_has_the_cause_and_its_first_message() -> None:
    first = Observation(phase=Phase.WAITING, cause=Cause.UNSCHEDULABLE, message="0/1 nodes: Insufficient cpu")
    record = noted(pending(start_within=5), first, 1)
    again = decide(record, replace(first, message="0/2 nodes: Insufficient cpu"), 2).step
    assert again is not None
    assert again(record, 2) is None, "another text for the same cause is no reason to write"
    late = after(t.tick(record, 100))
    assert late.outcome is not None
    assert late.outcome.cause is Cause.UNSCHEDULABLE
    assert "not started within 5 s: 0/1 nodes: Insufficient cpu" in late.outcome.message


@pytest.mark.parametrize(
    ("observation", "waits"),
    [
        (None, True),
        (Observation(phase=Phase.RUNNING), True),
        (Observation(phase=Phase.ENDED, cause=Cause.PREEMPTED, message="PreemptInterrupt: told to stop"), True),
        (Observation(phase=Phase.ENDED, cause=Cause.PREEMPTED, reason="NodeShutdown", message="node is down"), False),
        (Observation(phase=Phase.RUNNING, cause=Cause.KILLED, reason="deleted", tentative=True), True),
        (Observation(phase=Phase.ENDED, cause=Cause.KILLED, reason="deleted", exit_code=143, tentative=True), True),
        (Observation(phase=Phase.ENDED, cause=Cause.KILLED, reason="SIGTERM", exit_code=143, tentative=True), True),
        (Observation(phase=Phase.ENDED, cause=Cause.KILLED, reason="Unhealthy", exit_code=143), False),
        (Observation(phase=Phase.GONE, cause=Cause.KILLED, reason="deleted"), False),
        (Observation(phase=Phase.ENDED, cause=Cause.EVICTED), False),
    ],
)
def test_an_end_that_the_runner_cannot_explain_waits_for_an_observation(
    observation: Observation | None, waits: bool
) -> None:
    preempted = Outcome(cause=Cause.PREEMPTED, reason="PreemptInterrupt", message="told to stop")
    assert explainable(running(), preempted, observation, 10) is waits
    assert not explainable(after(t.request_cancel(running(), 3)), preempted, observation, 10)
    assert not explainable(running(timeout=3), preempted, observation, 10)
    assert not explainable(running(), Outcome(cause=Cause.USER_ERROR, reason="ValueError"), observation, 10)


def test_a_settled_end_may_be_explained_later_and_not_be_changed() -> None:
    preempted = Outcome(cause=Cause.PREEMPTED, reason="PreemptInterrupt", message="told to stop")
    why = Outcome(cause=Cause.EVICTED, reason="Evicted")
    settled = after(t.settle(running(), 5, epoch=running().epoch, outcome=preempted))
    assert after(t.finish(settled, 6, epoch=settled.epoch, outcome=why)).outcome == preempted
    assert after(t.finish(settled, 6, epoch=settled.epoch, outcome=why, corrected=True)).outcome == why


def test_a_cancel_and_a_timeout_first_delete_the_infrastructure() -> None:
    observation = Observation(phase=Phase.RUNNING)
    cancelling = after(t.request_cancel(running(), 3))
    assert decide(cancelling, observation, 4).delete
    assert decide(cancelling, Observation(phase=Phase.UNKNOWN), 4).delete
    late = running(timeout=5)
    assert not decide(late, observation, 6.9 + TIMEOUT_MARGIN).delete, (
        "its runner ends it by its own clock, which calls on_exit as it should"
    )
    assert decide(late, observation, 7 + TIMEOUT_MARGIN).delete
    assert ended(late, Observation(phase=Phase.GONE), 9).state is State.TIMED_OUT


def test_a_quota_queue_that_suspends_a_running_job_preempts_the_attempt() -> None:
    """A Job that is suspended before the claim isn't admitted yet; after the claim, the attempt ends.

    Its runner gets SIGTERM and may still call ``on_exit``, so the infrastructure is deleted first.
    """
    observation = Observation(phase=Phase.WAITING, paused=True, reason="Suspended", message="evicted by the queue")
    waiting = noted(pending(start_within=60), observation, 3)
    assert (waiting.state, waiting.paused_since, waiting.start_by) == (State.PENDING, 3, None)
    assert not decide(waiting, observation, 4).delete
    assert decide(running(), observation, 3).delete
    record = noted(running(), observation, 3)
    assert record.state is State.RUNNING
    gone = ended(record, Observation(phase=Phase.GONE, cause=Cause.KILLED, reason="deleted"), 4)
    assert gone.outcome is not None
    assert (gone.state, gone.outcome.cause) == (State.CRASHED, Cause.PREEMPTED)
    assert gone.outcome.message == "evicted by the queue"
    stopped = Outcome(cause=Cause.PREEMPTED, reason="PreemptInterrupt", message="told to stop")
    assert explained(record, stopped, observation, 4).message == "evicted by the queue"
    assert decide(after(t.request_cancel(running(), 3)), observation, 4).delete


def test_a_job_suspended_by_hand_runs_out_of_time_and_ends_a_running_attempt() -> None:
    """No quota queue lets it go on by itself."""
    observation = Observation(phase=Phase.WAITING, suspended=True, reason="Suspended", message="by kubectl-patch")
    record = noted(pending(start_within=60), observation, 3)
    assert (record.state, record.paused_since, record.last_cause) == (State.PENDING, None, None)
    late = after(t.tick(record, 100))
    assert late.outcome is not None
    assert (late.state, late.outcome.cause) == (State.TIMED_OUT, Cause.DEADLINE)
    assert late.outcome.message == "not started within 60 s: Suspended: by kubectl-patch"
    assert decide(running(), observation, 3).delete


def test_another_reason_replaces_what_was_noted_and_the_same_one_does_not() -> None:
    """``start_within`` ends a run with what holds it then."""
    pull = Observation(phase=Phase.WAITING, cause=Cause.IMAGE_PULL, reason="Pulling", message="since 10:00")
    record = noted(pending(), pull, 3)
    assert (record.last_cause, record.last_message) == (Cause.IMAGE_PULL, "Pulling: since 10:00")
    step = decide(record, replace(pull, message="since 10:01"), 4).step
    assert step is not None
    assert step(record, 4) is None, "another text for the same reason is no reason to write"
    for cause in (Cause.START_FAILED, None):
        record = noted(record, Observation(phase=Phase.WAITING, cause=cause, reason=f"b{cause}", message="x"), 5)
        assert (record.last_cause, record.last_message) == (cause, f"b{cause}: x")
    step = decide(record, Observation(phase=Phase.WAITING, reason="ContainerCreating"), 6).step
    assert step is not None
    change = step(record, 6)
    assert change is None or change.after.last_message == record.last_message, "a reason without a text is none"


def test_a_quota_queue_stops_the_clock_of_start_within() -> None:
    """The clock is paused while a quota queue holds the Job; here for 100 of 110 s."""
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


def test_a_cancel_ends_what_is_out_of_sight_and_silent() -> None:
    """Its cluster may be gone for good; what is left of it stays open."""
    cancelling = after(t.request_cancel(running(), 3))
    unseen = Observation(phase=Phase.UNKNOWN, reason="Unseen", message="it is on another cluster")
    assert decide(cancelling, unseen, 4).end is None
    record = ended(cancelling, unseen, 4, silent=True)
    assert record.outcome is not None
    assert (record.state, record.outcome.cause) == (State.CANCELLED, Cause.CANCELLED)
    assert len(record.leftovers) == 1


@pytest.mark.parametrize("phase", [Phase.UNKNOWN, Phase.GONE])
def test_a_lost_node_needs_two_sources(phase: Phase) -> None:
    """The runner must be silent, and the node not ready."""
    observation = Observation(
        phase=phase, cause=Cause.NODE_LOST, reason="NodeStatusUnknown", message="node n1 is silent"
    )
    record = noted(running(), observation, 9)
    assert (record.state, record.unknown_since) == (State.RUNNING, 9)
    gone = ended(record, observation, 310, silent=True)
    assert gone.outcome is not None
    assert (gone.state, gone.outcome.cause, gone.outcome.message) == (
        State.CRASHED,
        Cause.NODE_LOST,
        "node n1 is silent",
    )
    assert len(gone.leftovers) == 1, "its teardown is open"


def test_a_terminated_container_of_a_lost_node_has_ended() -> None:
    observation = Observation(phase=Phase.ENDED, cause=Cause.NODE_LOST, exit_code=143)
    assert ended(running(), observation, 5).state is State.CRASHED


@pytest.mark.parametrize(
    ("observation", "options", "expected"),
    [
        (None, {}, Cause.KILLED),
        (Observation(phase=Phase.RUNNING), {}, Cause.KILLED),
        (Observation(phase=Phase.ENDED, cause=Cause.KILLED, reason="Unhealthy"), {}, Cause.KILLED),
        (Observation(phase=Phase.RUNNING, cause=Cause.EVICTED, reason="EvictionByEvictionAPI"), {}, Cause.EVICTED),
        (Observation(phase=Phase.ENDED, cause=Cause.KILLED, reason="deleted"), {}, Cause.KILLED),
        (Observation(phase=Phase.RUNNING), {"timeout": 3}, Cause.DEADLINE),
    ],
)
def test_a_runner_does_not_know_why_it_was_told_to_stop(
    observation: Observation | None, options: dict[str, Any], expected: Cause
) -> None:
    preempted = Outcome(cause=Cause.PREEMPTED, reason="PreemptInterrupt", message="told to stop", log_tail=("x",))
    outcome = explained(running(**options), preempted, observation, 10)
    assert (outcome.cause, outcome.log_tail) == (expected, ("x",))


def test_a_runner_knows_why_its_own_flow_failed() -> None:
    own = Outcome(cause=Cause.USER_ERROR, reason="ValueError")
    assert explained(running(), own, Observation(phase=Phase.ENDED, cause=Cause.EVICTED), 10) is own


def test_when_an_ignored_cancel_ends_is_written_once() -> None:
    cancelled = after(t.request_cancel(running(), 3))
    stopping = Observation(
        phase=Phase.RUNNING, cause=Cause.KILLED, reason="deleted", times={infrastructure.STOP_DUE: 73.0}
    )
    judgement = decide(cancelled, stopping, 4)
    assert judgement.delete
    record = noted(cancelled, stopping, 4)
    assert "and is killed in 1m 09s" in explain(record, now=4, workers=())[1]
    assert judgement.step is not None
    assert judgement.step(record, 5) is None


@pytest.mark.parametrize("corrected", [False, True])
def test_a_settled_end_of_a_runner_that_died_may_be_corrected(corrected: bool) -> None:
    stopped = Outcome(cause=Cause.PREEMPTED, reason="PreemptInterrupt", message="told to stop")
    killed = Outcome(cause=Cause.KILLED, reason="Unhealthy")
    record = after(t.settle(running(), 5, epoch=running().epoch, outcome=stopped))
    end = after(t.abandon(record, 6, epoch=record.epoch, outcome=killed, corrected=corrected)).outcome
    assert end == (killed if corrected else stopped)


def test_times_are_written_when_it_has_started_and_at_its_end_and_never_alone() -> None:
    """The timeline has the objects' own timestamps, and needs no write per tick."""
    waiting = Observation(phase=Phase.WAITING, times={"created": 1.0, "scheduled": 2.0})
    step = decide(pending(), waiting, 3).step
    assert step is not None
    assert step(pending(), 3) is None
    started = Observation(phase=Phase.RUNNING, times={**waiting.times, "pulled": 3.0, "started": 4.0})
    record = noted(running(), started, 5)
    assert record.times == {"1": started.times}
    step = decide(record, started, 6).step
    assert step is not None
    assert step(record, 6) is None
    over = Observation(phase=Phase.ENDED, exit_code=1, times={**started.times, "finished": 8.0})
    record = ended(record, over, 9)
    gone = after(infrastructure.torn_down(record, 11, attempt=1))
    assert gone.times == {"1": {**over.times, "torn down": 11}}
