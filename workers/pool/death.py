"""The death of a pool process: what is recorded of the attempt that it ran, by the worker's parent."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from dispatcher.errors import Malformed, Refused, UnknownRun
from dispatcher.logs.journal import Said
from dispatcher.logs.last_lines import TAIL, keep
from dispatcher.logs.limits import Limits
from dispatcher.records.base import Records, Step
from dispatcher.runs import transitions
from dispatcher.runs.record import Outcome, Record
from dispatcher.runs.states import Cause, State
from dispatcher.support.failpoints import failpoint
from dispatcher.support.signal_names import signal_name
from workers.pool.termination import Ending, pid_of


@dataclass(frozen=True, kw_only=True)
class Death:
    """A pool process died while it ran a run. ``status`` is a signal as its negative number, or an exit code; ``said``
    is what it said last."""

    run_id: str
    pid: int
    ending: Ending | None
    status: int | None
    said: tuple[Said, ...] = ()


def attempt_died(records: Records, worker: str, death: Death, limits: Limits) -> Record | None:
    """End the attempt that a dead pool process ran, if it is still this worker's; None if nothing was to be done.

    Its last lines come first: who sees the end sees them.

    Raises:
        ServerUnavailable: to be tried again.
    """
    try:
        record, now = records.runs.get(death.run_id)
        step: Step
        if record.owner == worker and elsewhere(record):  # it died over the claim, or over the request
            step = partial(transitions.lose, owner=worker)
        elif record.owner == worker and pid_of(record.holder) == death.pid:
            tail = keep(records.logs, record.id, record.attempt, death.said, limits)
            outcome = outcome_of(record, death, tail or _tail(records, record))
            step = partial(transitions.abandon, epoch=record.epoch, outcome=outcome)
        else:
            return None
        failpoint("death.noticed", record.id)
        record = records.runs.update(record.id, step, record=record, now=now)
        failpoint("death.recorded", record.id)
        return record
    except (UnknownRun, Refused):
        return None


def elsewhere(record: Record) -> bool:
    """Return True if its flow runs elsewhere: a pool process only asks for its infrastructure."""
    return record.request is not None or record.state is State.CLAIMED or not record.holder


def outcome_of(record: Record, death: Death, tail: tuple[str, ...] = ()) -> Outcome:
    """Return the outcome of an attempt whose process died."""
    if record.state is State.CANCELLING or death.ending is Ending.CANCEL:
        return Outcome(cause=Cause.CANCELLED, message="cancelled", log_tail=tail)
    if death.ending is Ending.TIMEOUT:
        message = f"the flow ran longer than its timeout of {record.spec.options.timeout:g} s"
        return Outcome(cause=Cause.DEADLINE, reason="timeout", message=message, log_tail=tail)
    if death.ending is Ending.PREEMPT:
        message = "the worker was shut down while the flow ran"
        return Outcome(cause=Cause.PREEMPTED, reason="WorkerShutdown", message=message, log_tail=tail)
    if death.status is None:
        message = "the worker lost sight of the flow's process"
        return Outcome(cause=Cause.WORKER_LOST, reason="ProcessLost", message=message, log_tail=tail)
    reason, said, code = _status(death.status)
    return Outcome(
        cause=Cause.KILLED, reason=reason, message=f"the flow's process {said}", exit_code=code, log_tail=tail
    )


def _status(status: int) -> tuple[str, str, int]:
    """Reason, words and exit code (a signal's as a shell gives it: 128 more than its number)."""
    if status >= 0:
        return "Exited", f"exited with status {status}", status
    name = signal_name(-status)
    return name, f"was killed by {name}", 128 - status


def _tail(records: Records, record: Record) -> tuple[str, ...]:
    """The last lines of the attempt."""
    last: deque[str] = deque(maxlen=TAIL)
    after = ""
    with suppress(Malformed):
        while True:
            lines, after = records.logs.read(record.id, after=after)
            if not lines:
                break
            last.extend(line.text for line in lines if line.attempt == record.attempt and line.stream != "gap")
    return tuple(last)
