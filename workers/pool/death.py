"""The death of a pool process: how the worker's parent records the end of the attempt that it ran."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from dispatcher.logs.journal import JournalLine
from dispatcher.logs.last_lines import store_last_lines, stored_last_lines
from dispatcher.logs.limits import Limits
from dispatcher.logs.shipper import TAIL
from dispatcher.records.base import Records
from dispatcher.records.runs import Transition
from dispatcher.runs import transitions
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.states import Cause, State
from dispatcher.support.failpoints import failpoint
from dispatcher.support.signal_names import signal_name
from workers.pool.termination import TerminationReason, pid_of
from workers.updates import try_update


@dataclass(frozen=True, kw_only=True)
class Death:
    """Death of a pool process while it ran a run.

    ``reason`` is why this worker killed it, if it did. ``status`` is a signal as its negative number, or an exit
    code; None if that is unknown. ``answer`` is what it did after its flow had ended, when it was interrupted.
    ``last_output`` has the lines that the process hadn't sent.
    """

    run_id: str
    pid: int
    reason: TerminationReason | None
    status: int | None
    answer: str = ""
    last_output: tuple[JournalLine, ...] = ()

    @property
    def was_seen(self) -> bool:
        """Return True if the worker saw the process end, or killed it; False if it only misses the process."""
        return self.status is not None or self.reason is not None


def attempt_died(records: Records, worker: str, death: Death, limits: Limits) -> Record | None:
    """End the attempt that a dead pool process ran, if it is still this worker's. Return the record after that.

    None if nothing was to be done. The last lines are stored first, so that whoever sees the end sees them, too.

    Raises:
        ServerUnavailable: to be tried again.
    """
    return try_update(_end_attempt, records, worker, death, limits)


def _end_attempt(records: Records, worker: str, death: Death, limits: Limits) -> Record | None:
    record, now = records.runs.get(death.run_id)
    step: Transition
    if record.owner == worker and elsewhere(record):  # it died during the claim or the request
        step = partial(transitions.lose, owner=worker)
    elif record.owner == worker and pid_of(record.holder) == death.pid:
        tail = store_last_lines(records.logs, record.id, record.attempt, death.last_output, limits)
        tail = tail or stored_last_lines(records.logs, record.id, record.attempt, TAIL)
        outcome = outcome_of(record, death, tail)
        step = partial(transitions.abandon, epoch=record.epoch, outcome=outcome)
    else:
        return None
    failpoint("death.noticed", record.id)
    after = records.runs.update(record.id, step, record=record, now=now)
    failpoint("death.recorded", record.id)
    return None if after.version == record.version else after


def elsewhere(record: Record) -> bool:
    """Return True if the flow runs elsewhere: a pool process only requests its infrastructure."""
    return record.request is not None or record.state is State.CLAIMED or not record.holder


def outcome_of(record: Record, death: Death, tail: tuple[str, ...] = ()) -> Outcome:
    """Return the outcome of an attempt whose process died."""
    if record.state is State.CANCELLING or death.reason is TerminationReason.CANCEL:
        return Outcome(cause=Cause.CANCELLED, message="cancelled", log_tail=tail)
    if death.reason is TerminationReason.TIMEOUT:
        timeout = f"its timeout of {record.spec.options.timeout:g} s"
        message = f"{death.answer} when {timeout} passed" if death.answer else f"the flow ran longer than {timeout}"
        return Outcome(cause=Cause.DEADLINE, reason="timeout", message=message, log_tail=tail)
    if death.reason is TerminationReason.PREEMPT:
        message = (
            f"{death.answer} when the worker shut down"
            if death.answer
            else "the worker was shut down while the flow ran"
        )
        return Outcome(cause=Cause.PREEMPTED, reason="WorkerShutdown", message=message, log_tail=tail)
    if death.status is None:
        message = "the worker lost sight of the flow's process"
        return Outcome(cause=Cause.WORKER_LOST, reason="ProcessLost", message=message, log_tail=tail)
    reason, description, exit_code = _describe(death.status)
    message = f"the flow's process {description}"
    return Outcome(cause=Cause.KILLED, reason=reason, message=message, exit_code=exit_code, log_tail=tail)


def _describe(status: int) -> tuple[str, str, int]:
    """Return reason, description and exit code. A signal's exit code is its number plus 128, as in a shell."""
    if status >= 0:
        return "Exited", f"exited with status {status}", status
    name = signal_name(-status)
    return name, f"was killed by {name}", 128 - status
