"""What one look at an attempt's infrastructure means for its run. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from backends.base import Observation, Phase
from dispatcher.records.base import Step
from dispatcher.runs import transitions
from dispatcher.runs.record import Outcome, Record
from dispatcher.runs.states import Cause, State


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The transition to make, if any, and whether the infrastructure is to go first."""

    step: Step | None = None
    cancel: bool = False


def judge(record: Record, seen: Observation, now: float, *, ended_before: bool) -> Verdict:
    """Decide by the record and what was seen.

    Args:
        record: the run, held by our shard, with a handle.
        seen: the observation.
        now: the server's clock.
        ended_before: whether an earlier look saw it ended too; the runner's own report may be on its way until then.
    """
    if seen.phase is Phase.UNKNOWN:
        return Verdict(step=partial(transitions.sight, seen=False))
    if seen.phase in {Phase.ENDED, Phase.GONE}:
        return Verdict(step=_end(record, seen, now)) if ended_before else Verdict()
    if record.state is State.CANCELLING or overdue(record, now):
        return Verdict(cancel=True)
    if seen.paused and record.state is State.RUNNING:
        return Verdict(step=_preempted(record, seen))
    return Verdict(step=partial(transitions.sight, seen=True, cause=seen.cause))


def _preempted(record: Record, seen: Observation) -> Step:
    """A quota queue took back what ran: its attempt ends, and the next one, if the policy has one, queues anew."""
    message = seen.message or "a quota queue took its place back while it ran"
    outcome = Outcome(cause=Cause.PREEMPTED, reason=seen.reason, message=message)
    return partial(transitions.abandon, epoch=record.epoch, outcome=outcome)


def overdue(record: Record, now: float) -> bool:
    """Whether the flow's ``timeout`` has passed."""
    timeout = record.spec.options.timeout
    return (
        timeout is not None
        and record.started_at is not None
        and record.settled_at is None
        and record.started_at + timeout <= now
    )


def _end(record: Record, seen: Observation, now: float) -> Step:
    missing = Cause.KILLED if seen.phase is Phase.GONE else Cause.RESULT_MISSING
    outcome = Outcome(
        cause=Cause.DEADLINE if overdue(record, now) else seen.cause or missing,
        reason=seen.reason or seen.phase,
        message=seen.message or "its infrastructure ended without a report",
        exit_code=seen.exit_code,
        log_tail=seen.log_tail,
    )
    return partial(transitions.abandon, epoch=record.epoch, outcome=outcome)
