"""When a running attempt is to be ended, and how. Pure: the keeper looks, this decides.

First the flow is asked (an exception in its main thread); after ``stop_grace`` its process is killed, after
``on_exit_timeout`` where ``on_exit`` had begun; at once where another has taken the run.
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

#: Looks in a row after which a run that isn't ours any more is not just about to end by itself.
PATIENCE = 2

#: Seconds between two signals that ask the same flow to end. One that comes while Python hands its lock over, on the
#: way into a blocking call, isn't handled before that call ends, unless another comes.
AGAIN = 1.0


_PID = re.compile(r"[0-9]{1,10}")


class TerminationReason(StrEnum):
    """Why we end a process. The first three are also what the flow is told."""

    CANCEL = "cancel"
    TIMEOUT = "timeout"
    PREEMPT = "preempt"
    TAKEN = "taken"  #: others took the run: its epoch was passed
    ON_EXIT = "on_exit"  #: on_exit took too long


class Action(StrEnum):
    """The next step towards an end."""

    NOTHING = "nothing"
    TELL = "tell"
    KILL = "kill"


@dataclass(frozen=True)
class Decision:
    """The decision: a step, its reason, and in how many seconds to look again at the latest (None: no hurry)."""

    step: Action
    ending: TerminationReason | None = None
    again: float | None = None


@dataclass(frozen=True, kw_only=True)
class TerminationContext:
    """The facts that the keeper sees: the server's clock, its own monotonic one, who we are, and whether we are
    shutting down."""

    now: float
    at: float
    worker: str
    preempting: bool


def pid_of(holder: str) -> int | None:
    """The pid in a holder's name, ``host:pid:nonce``."""
    parts = holder.rsplit(":", 2)
    return int(parts[1]) if len(parts) == 3 and _PID.fullmatch(parts[1]) else None


def is_held(record: Record | None, holding: BusyProcess, worker: str) -> bool:
    """Return True if the record says that this process of this worker runs it."""
    return (
        record is not None and record.owner == worker and record.state in HELD and pid_of(record.holder) == holding.pid
    )


def decide(record: Record | None, holding: BusyProcess, look: TerminationContext, timing: TimingSettings) -> Decision:
    """Decide what to do with a process, given the record of what it runs."""
    if record is None or not is_held(record, holding, look.worker):
        return _not_ours(record, holding, look, timing)
    if record.settled_at is not None:
        return _on_exit(holding, look, timing)
    if holding.told is not None:
        grace = holding.told_at + timing.stop_grace - look.at
        if grace <= 0:
            return Decision(Action.KILL, holding.told)
        return Decision(Action.TELL, holding.told, again=min(grace, AGAIN))
    if record.state is State.CANCELLING:
        return Decision(Action.TELL, TerminationReason.CANCEL, again=min(timing.stop_grace, AGAIN))
    timeout = record.spec.options.timeout
    left = None if timeout is None or record.started_at is None else record.started_at + timeout - look.now
    if left is not None and left <= 0:
        return Decision(Action.TELL, TerminationReason.TIMEOUT, again=min(timing.stop_grace, AGAIN))
    if look.preempting:
        return Decision(Action.TELL, TerminationReason.PREEMPT, again=min(timing.stop_grace, AGAIN))
    return Decision(Action.NOTHING, again=left)


def _not_ours(
    record: Record | None, holding: BusyProcess, look: TerminationContext, timing: TimingSettings
) -> Decision:
    """Not claimed yet, just ended, or taken by others."""
    if holding.epoch is None:  # never seen as ours: most likely about to be claimed
        return (
            Decision(Action.KILL, TerminationReason.TAKEN)
            if look.at - holding.since > timing.lease
            else Decision(Action.NOTHING)
        )
    if holding.missing + 1 >= PATIENCE or (record is not None and _taken(record, look.worker)):
        return Decision(Action.KILL, TerminationReason.TAKEN)
    return Decision(Action.NOTHING, again=1.0)


def _taken(record: Record, worker: str) -> bool:
    if record.owner not in {"", worker}:
        return True
    return record.outcome is not None and record.outcome.cause is Cause.WORKER_LOST


def _on_exit(holding: BusyProcess, look: TerminationContext, timing: TimingSettings) -> Decision:
    since = look.at if holding.settled_since is None else holding.settled_since
    left = since + timing.on_exit_timeout - look.at
    return Decision(Action.KILL, TerminationReason.ON_EXIT) if left <= 0 else Decision(Action.NOTHING, again=left)
