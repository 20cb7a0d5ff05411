"""The meaning of one look at an attempt's infrastructure for its run. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from backends.base import Observation, Phase
from dispatcher.errors import PreemptInterrupt
from dispatcher.records.base import Step
from dispatcher.runs import infrastructure
from dispatcher.runs.record import Outcome, Record
from dispatcher.runs.states import Cause, State

#: Phases in which nothing of an attempt runs any more.
OVER = frozenset({Phase.ENDED, Phase.GONE})


#: Seconds that a runner gets to end its flow by its own clock, and to say so, before its container is told to stop.
LATE = 5.0

#: What says less of an end than what was noted before.
_VAGUE = frozenset({None, Cause.KILLED, Cause.RESULT_MISSING, Cause.UNKNOWN})


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The verdict: note something, ask for the infrastructure to go, or end the attempt with this outcome."""

    step: Step | None = None
    cancel: bool = False
    end: Outcome | None = None


def judge(record: Record, seen: Observation, now: float, *, silent: bool) -> Judgement:
    """Decide by the record and what was seen. All that the runner had reported before was acted upon.

    Args:
        record: the run, held by our shard, with a handle.
        seen: the observation.
        now: the server's clock.
        silent: whether its runner, which we would have heard, has given no sign of life for long.
    """
    unwanted = record.state is State.CANCELLING or overdue(record, now - LATE)
    if seen.phase is Phase.UNSEEN:
        return Judgement(cancel=unwanted)
    if seen.cause is Cause.NODE_LOST and seen.exit_code is None and seen.phase is not Phase.RUNNING:
        if silent:  # two sources agree
            return Judgement(end=_outcome(record, seen, now))
        return Judgement(step=partial(infrastructure.sight, seen=False), cancel=unwanted)
    if seen.phase is Phase.UNKNOWN:
        return Judgement(step=partial(infrastructure.sight, seen=False), cancel=unwanted)
    if seen.phase in OVER:
        return Judgement(end=_outcome(record, seen, now))
    if unwanted:
        return Judgement(cancel=True)
    if seen.paused and record.state is State.RUNNING:  # a quota queue took its place back: its runner was told
        return Judgement(step=partial(infrastructure.sight, seen=True, cause=Cause.PREEMPTED), cancel=True)
    stale = seen.phase is Phase.WAITING and record.state is State.RUNNING  # its runner was heard before it was seen
    cause = None if stale or seen.cause is Cause.KILLED else seen.cause  # a deletion hides why, and may be our own
    step = partial(
        infrastructure.sight, seen=True, cause=cause, message=seen.message, paused=seen.paused, times=seen.times
    )
    return Judgement(step=step)


def explained(record: Record, outcome: Outcome, seen: Observation | None, now: float) -> Outcome:
    """Return the end that a runner reports, corrected by what it can't know: who sent it SIGTERM, and why."""
    if outcome.cause is not Cause.PREEMPTED or outcome.reason not in {PreemptInterrupt.__name__, "SIGTERM"}:
        return outcome
    if overdue(record, now):
        return replace(outcome, cause=Cause.DEADLINE, reason="timeout", message=_late(record))
    if record.last_cause is not None and (seen is None or seen.cause in _VAGUE):
        return replace(outcome, cause=record.last_cause)
    if seen is None or seen.cause in _VAGUE - {Cause.KILLED}:
        return outcome
    return replace(
        outcome, cause=seen.cause, reason=seen.reason or outcome.reason, message=seen.message or outcome.message
    )


def explainable(record: Record, outcome: Outcome, seen: Observation | None, now: float) -> bool:
    """Return True if a runner's end is one of which more may be seen soon: it was told to stop, and nobody knows
    why."""
    told = outcome.cause is Cause.PREEMPTED and outcome.reason in {PreemptInterrupt.__name__, "SIGTERM"}
    settled = record.outcome is not None and record.outcome.cause is not Cause.PREEMPTED
    known = settled or record.state is State.CANCELLING or overdue(record, now) or record.last_cause is not None
    if seen is None or not told or known:
        return told and not known
    echo = seen.cause is Cause.PREEMPTED and outcome.message in seen.message  # only the runner's own last words
    if seen.cause is Cause.KILLED:  # a Job's controller deletes its pods first and says why afterwards
        return seen.phase is not Phase.GONE
    return echo or seen.cause in _VAGUE


def overdue(record: Record, now: float) -> bool:
    """Return True if the flow's ``timeout`` has passed."""
    if record.started_at is None or record.settled_at is not None:
        return False
    timeout = record.spec.options.timeout
    return timeout is not None and record.started_at + timeout <= now


def _outcome(record: Record, seen: Observation, now: float) -> Outcome:
    missing = Cause.KILLED if seen.phase is Phase.GONE else Cause.RESULT_MISSING
    cause = seen.cause or missing
    message = seen.message or "its infrastructure ended without a report"
    if overdue(record, now):
        cause, message = Cause.DEADLINE, _late(record)
    elif record.state is State.RUNNING and record.last_cause is not None and cause is Cause.KILLED:
        cause = record.last_cause  # it was noted why it would be ended; what followed was our own doing
    return Outcome(
        cause=cause,
        reason=seen.reason or seen.phase,
        message=message,
        exit_code=seen.exit_code,
        log_tail=seen.log_tail,
    )


def _late(record: Record) -> str:
    return f"the flow ran longer than its timeout of {record.spec.options.timeout:g} s"
