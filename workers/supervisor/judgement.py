"""Decisions about a run by an observation of its infrastructure. Pure: supervisors observe, and act on them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from backends.base import Observation, Phase
from dispatcher.errors import PreemptInterrupt
from dispatcher.records.runs import Transition
from dispatcher.runs import infrastructure
from dispatcher.runs.change import Change
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.states import Cause, State
from dispatcher.runs.wait import Wait

#: Phases in which nothing of an attempt runs any more.
OVER = frozenset({Phase.ENDED, Phase.GONE})

#: Seconds that a runner gets to enforce the ``timeout`` itself, and to report, before its container is deleted.
TIMEOUT_MARGIN = 5.0

#: Causes that explain less than a cause that was noted before.
_VAGUE = frozenset({None, Cause.KILLED, Cause.RESULT_MISSING, Cause.UNKNOWN})


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A decision about a run: take a step, delete its infrastructure, or end the attempt with an outcome."""

    step: Transition | None = None
    delete: bool = False
    end: Outcome | None = None


def judge(record: Record, observation: Observation, now: float, *, silent: bool) -> Judgement:
    """Decide by the record and an observation. Call after all pending reports of the runner were acted on.

    Args:
        record: the run, owned by a shard that is held, with a handle.
        observation: of its infrastructure.
        now: the server's clock.
        silent: whether its runner, which could have reported, has been silent for long.
    """
    unwanted = _is_unwanted(record, now)
    if observation.phase is Phase.UNSEEN:
        return Judgement(delete=unwanted)
    node_lost = observation.cause is Cause.NODE_LOST and observation.exit_code is None
    if node_lost and observation.phase is not Phase.RUNNING:
        if silent:  # two sources agree
            return Judgement(end=_outcome(record, observation, now))
        return Judgement(step=partial(infrastructure.lose_sight, why=observation.message), delete=unwanted)
    if observation.phase is Phase.UNKNOWN:
        if record.state is State.CANCELLING and silent:  # nobody can tell it to end, and its runner doesn't live
            return Judgement(end=Outcome(cause=Cause.CANCELLED, message="cancelled"))
        return Judgement(step=partial(infrastructure.lose_sight, why=observation.message), delete=unwanted)
    if observation.phase in OVER:
        return Judgement(end=_outcome(record, observation, now))
    if unwanted:
        return Judgement(step=partial(infrastructure.observe, visible=True, times=observation.times), delete=True)
    stopped = observation.paused or observation.suspended
    if stopped and record.state is State.RUNNING:  # preempted by a quota queue or a person: the runner was told to stop
        preempted = partial(infrastructure.observe, visible=True, cause=Cause.PREEMPTED, message=observation.message)
        return Judgement(step=preempted, delete=True)
    return Judgement(step=partial(_note, observation=observation))


def _is_unwanted(record: Record, now: float) -> bool:
    """Return True if an attempt is to be ended: its runner is told by the deletion of its infrastructure."""
    failed = _failure(record) is not None
    return failed or record.state is State.CANCELLING or overdue(record, now - TIMEOUT_MARGIN)


def _note(record: Record, now: float, *, observation: Observation) -> Change | None:
    """Note what was observed of infrastructure that hasn't ended."""
    stale = observation.phase is Phase.WAITING and record.state is State.RUNNING  # older than the runner's report
    hidden = observation.cause is Cause.KILLED  # a deletion hides its reason, and may be our own
    return infrastructure.note(
        record,
        now,
        wait=None if hidden else _wait(observation),
        visible=True,
        cause=None if stale or hidden else observation.cause,
        reason="" if stale or hidden or observation.paused else observation.reason,
        message=observation.message,
        paused=observation.paused,
        times=observation.times,
    )


def _wait(observation: Observation) -> Wait | None:
    """Return why an attempt waits; None where nothing holds it: a word such as ContainerCreating is no reason."""
    if observation.cause is None and not observation.message and not observation.paused:
        return None
    return Wait.of(observation.cause, observation.reason, observation.message)


def explained(
    record: Record, outcome: Outcome, observation: Observation | None, now: float, *, final: bool = True
) -> Outcome:
    """Return the end that a runner reports, corrected by what it can't know: who sent it SIGTERM, and why.

    Without evidence of a disruption it was killed. Before a ``final`` report that isn't decided yet.
    """
    if not told_to_stop(outcome):
        return outcome
    if (failure := _failure(record)) is not None:
        return replace(failure, traceback=outcome.traceback)
    if overdue(record, now):
        return replace(outcome, cause=Cause.DEADLINE, reason="timeout", message=_timeout_message(record))
    if record.last_cause is not None and (observation is None or observation.cause in _VAGUE):
        return replace(outcome, cause=record.last_cause, message=record.last_message or outcome.message)
    if observation is None or observation.cause in _VAGUE - {Cause.KILLED} or _is_echo(observation, outcome):
        return replace(outcome, cause=Cause.KILLED, reason="SIGTERM") if final else outcome
    if observation.tentative and not final and observation.reason == "SIGTERM":
        return outcome
    return replace(
        outcome,
        cause=observation.cause,
        reason=observation.reason or outcome.reason,
        message=observation.message or outcome.message,
    )


def explainable(record: Record, outcome: Outcome, observation: Observation | None, now: float) -> bool:
    """Return True if the reason of a runner's end may be observed soon: it was told to stop, for an unknown reason."""
    if not told_to_stop(outcome):
        return False
    settled = record.outcome is not None and not told_to_stop(record.outcome)
    noted = _failure(record) is not None or record.last_cause is not None
    if settled or noted or record.state is State.CANCELLING or overdue(record, now):
        return False
    if (
        observation is None or observation.tentative
    ):  # a Job's controller deletes its pods first and says why afterwards
        return True
    if observation.cause is Cause.KILLED:
        return False
    return _is_echo(observation, outcome) or observation.cause in _VAGUE


def _is_echo(observation: Observation, outcome: Outcome) -> bool:
    """Return True if an observation only repeats the runner's own message."""
    return observation.cause is Cause.PREEMPTED and outcome.message in observation.message


def told_to_stop(outcome: Outcome | None) -> bool:
    """Return True for the end of a runner that was told to stop, and couldn't know why."""
    if outcome is None:
        return False
    return outcome.cause is Cause.PREEMPTED and outcome.reason in {PreemptInterrupt.__name__, "SIGTERM"}


def overdue(record: Record, now: float) -> bool:
    """Return True if the flow's ``timeout`` has passed."""
    if record.started_at is None or record.settled_at is not None:
        return False
    timeout = record.spec.options.timeout
    return timeout is not None and record.started_at + timeout <= now


def _failure(record: Record) -> Outcome | None:
    """Return the outcome with which an attempt is being ended because its cluster can't be had; else None."""
    return None if record.workers is None or record.settled_at is not None else record.workers.failure


def _outcome(record: Record, observation: Observation, now: float) -> Outcome:
    if (failure := _failure(record)) is not None:
        return failure
    missing = Cause.KILLED if observation.phase is Phase.GONE else Cause.RESULT_MISSING
    cause = observation.cause or missing
    message = observation.message or "its infrastructure ended without a report"
    if overdue(record, now):
        cause, message = Cause.DEADLINE, _timeout_message(record)
    elif record.state is State.RUNNING and record.last_cause is not None and cause is Cause.KILLED:
        cause = record.last_cause  # noted before the infrastructure was deleted here
        message = record.last_message or message
    return Outcome(
        cause=cause,
        reason=observation.reason or observation.phase,
        message=message,
        exit_code=observation.exit_code,
        log_tail=observation.log_tail,
    )


def _timeout_message(record: Record) -> str:
    return f"the flow ran longer than its timeout of {record.spec.options.timeout:g} s"
