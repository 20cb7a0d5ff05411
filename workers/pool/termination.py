"""When a running attempt is to be terminated, and how. Pure: the monitor observes, and carries the decision out.

First the flow is interrupted (an exception in its main thread). Its process is killed after ``stop_grace``; after
``on_exit_timeout`` if ``on_exit`` had begun; and at once if another worker has taken the run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from dispatcher.runs.record import Record
from dispatcher.runs.states import HELD, Cause, State
from dispatcher.settings import TimingSettings

if TYPE_CHECKING:
    from workers.pool.processes import BusyProcess

#: Observations in a row after which a run that isn't this process's any more is not just about to end by itself.
MISSING_LIMIT = 2

#: Seconds between two signals that interrupt the same flow. A signal that comes while Python passes on its lock, before
#: a blocking call, isn't handled until that call ends, unless another signal comes.
SIGNAL_INTERVAL = 1.0

_PID = re.compile(r"[0-9]{1,10}")


class TerminationReason(StrEnum):
    """Why a process is terminated. The first three are also the kinds of interrupts of a flow."""

    CANCEL = "cancel"
    TIMEOUT = "timeout"
    PREEMPT = "preempt"
    TAKEN = "taken"  #: another worker has the run: its epoch has grown
    ON_EXIT = "on_exit"  #: on_exit took too long


class Action(StrEnum):
    """The next action towards the end of a process."""

    NOTHING = "nothing"
    INTERRUPT = "interrupt"
    KILL = "kill"


@dataclass(frozen=True)
class Decision:
    """A decision about a process: the action, its reason, and in how many seconds to decide again (None: no hurry)."""

    action: Action
    reason: TerminationReason | None = None
    again: float | None = None


@dataclass(frozen=True, kw_only=True)
class TerminationContext:
    """Circumstances of a decision: the server's clock, the monotonic clock, the worker's id, whether it shuts down."""

    now: float
    at: float
    worker: str
    preempting: bool


def pid_of(holder: str) -> int | None:
    """Return the pid in a holder's name, ``host:pid:nonce``; None if it has none."""
    parts = holder.rsplit(":", 2)
    return int(parts[1]) if len(parts) == 3 and _PID.fullmatch(parts[1]) else None


def is_held(record: Record | None, process: BusyProcess, worker: str) -> bool:
    """Return True if the record says that this process of this worker runs the run."""
    return (
        record is not None and record.owner == worker and record.state in HELD and pid_of(record.holder) == process.pid
    )


def decide(
    record: Record | None, process: BusyProcess, context: TerminationContext, timing: TimingSettings
) -> Decision:
    """Decide what to do with a process, by the record of the run that it has accepted."""
    if record is None or not is_held(record, process, context.worker):
        return _decide_not_held(record, process, context, timing)
    if record.settled_at is not None:
        return _decide_on_exit(process, context, timing)
    if process.interrupted_for is not None:
        grace = process.interrupted_at + timing.stop_grace - context.at
        if grace <= 0:
            return Decision(Action.KILL, process.interrupted_for)
        return Decision(Action.INTERRUPT, process.interrupted_for, again=min(grace, SIGNAL_INTERVAL))
    timeout = record.spec.options.timeout
    left = None if timeout is None or record.started_at is None else record.started_at + timeout - context.now
    reason = None
    if record.state is State.CANCELLING:
        reason = TerminationReason.CANCEL
    elif left is not None and left <= 0:
        reason = TerminationReason.TIMEOUT
    elif context.preempting:
        reason = TerminationReason.PREEMPT
    if reason is None:
        return Decision(Action.NOTHING, again=left)
    return Decision(Action.INTERRUPT, reason, again=min(timing.stop_grace, SIGNAL_INTERVAL))


def _decide_not_held(
    record: Record | None, process: BusyProcess, context: TerminationContext, timing: TimingSettings
) -> Decision:
    """Decide about a process whose run isn't claimed yet, has just ended, or was taken by another worker."""
    if process.epoch is None:  # never held: most likely about to be claimed
        if context.at - process.since > timing.lease:
            return Decision(Action.KILL, TerminationReason.TAKEN)
        return Decision(Action.NOTHING)
    if process.missing + 1 >= MISSING_LIMIT or (record is not None and _is_taken(record, context.worker)):
        return Decision(Action.KILL, TerminationReason.TAKEN)
    return Decision(Action.NOTHING, again=1.0)


def _is_taken(record: Record, worker: str) -> bool:
    if record.owner not in {"", worker}:
        return True
    return record.outcome is not None and record.outcome.cause is Cause.WORKER_LOST


def _decide_on_exit(process: BusyProcess, context: TerminationContext, timing: TimingSettings) -> Decision:
    since = context.at if process.settled_since is None else process.settled_since
    left = since + timing.on_exit_timeout - context.at
    return Decision(Action.KILL, TerminationReason.ON_EXIT) if left <= 0 else Decision(Action.NOTHING, again=left)
