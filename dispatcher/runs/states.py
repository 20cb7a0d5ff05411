"""The states of a run, why it may end, and the one table of legal transitions."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from dispatcher.errors import Refused


class State(StrEnum):
    """The state of a run."""

    QUEUED = "QUEUED"  #: accepted; waits for a worker
    CLAIMED = "CLAIMED"  #: a worker has taken it
    PROVISIONING = "PROVISIONING"  #: the intent to create infrastructure is stored
    PENDING = "PENDING"  #: the infrastructure exists; no runner has claimed the attempt yet
    RUNNING = "RUNNING"  #: a runner has claimed the attempt
    CANCELLING = "CANCELLING"  #: a cancel was asked for and isn't effective yet
    AWAITING_RETRY = "AWAITING_RETRY"  #: the next attempt waits for its due time
    SUCCEEDED = "SUCCEEDED"  #: the flow returned
    FAILED = "FAILED"  #: the flow, or its on_start, raised
    CRASHED = "CRASHED"  #: the infrastructure died, with a cause
    TIMED_OUT = "TIMED_OUT"  #: a deadline passed
    CANCELLED = "CANCELLED"  #: ended by a cancel
    UNKNOWN = "UNKNOWN"  #: one of another release: neither open nor ended for this one, which changes nothing of it


class Cause(StrEnum):
    """Why an attempt ended otherwise than well; the same words on every backend."""

    OOM_KILLED = "oom_killed"  #: out of memory
    IMAGE_PULL = "image_pull"  #: the image can't be had
    CONFIG_ERROR = "config_error"  #: the request, the payload or a reference in it is wrong
    UNSCHEDULABLE = "unschedulable"  #: no place for it
    QUOTA = "quota"  #: a quota or a capacity limit
    EVICTED = "evicted"  #: put out by the node
    PREEMPTED = "preempted"  #: put out for somebody else, or by a worker's shutdown
    SPOT_INTERRUPTED = "spot_interrupted"  #: the provider took the machine back
    NODE_LOST = "node_lost"  #: the node vanished
    KILLED = "killed"  #: a signal or deletion that is not ours
    START_FAILED = "start_failed"  #: the container or process couldn't start
    DEADLINE = "deadline"  #: timeout or start_within passed
    CANCELLED = "cancelled"  #: somebody cancelled it
    USER_ERROR = "user_error"  #: the flow or its on_start raised
    RESULT_MISSING = "result_missing"  #: it ended well, but left no result
    WORKER_LOST = "worker_lost"  #: the worker that held it died
    UNKNOWN = "unknown"  #: none of these, or one of another release


class ExitCall(StrEnum):
    """The progress of the environment's ``on_exit`` for the current attempt."""

    NONE = "none"  #: the environment has none
    WAITING = "waiting"  #: to be called by the runner after the flow
    DUE = "due"  #: the runner died first: a fresh process is to call it
    BEGUN = "begun"  #: it was started
    CALLED = "called"  #: it returned
    RAISED = "raised"  #: it raised
    INTERRUPTED = "interrupted"  #: it was started and did not end
    NOT_CALLED = "not called"  #: nobody could call it
    UNKNOWN = "unknown"  #: a word of another release


#: States that never change again.
TERMINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CRASHED, State.TIMED_OUT, State.CANCELLED})

#: States in which a worker, or a shard of one, answers for the run.
HELD = frozenset({State.CLAIMED, State.PROVISIONING, State.PENDING, State.RUNNING, State.CANCELLING})

#: States in which no runner has claimed the attempt yet.
UNSTARTED = frozenset({State.QUEUED, State.CLAIMED, State.PROVISIONING, State.PENDING})

#: The way an attempt walks from acceptance to the flow.
WAY = (State.QUEUED, State.CLAIMED, State.PROVISIONING, State.PENDING, State.RUNNING)

_ENDS = TERMINAL | {State.AWAITING_RETRY}

#: The one table of legal moves.
TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.CLAIMED}) | (_ENDS - {State.SUCCEEDED}),
    State.CLAIMED: frozenset({State.PROVISIONING, State.QUEUED, State.CANCELLING}) | (_ENDS - {State.SUCCEEDED}),
    State.PROVISIONING: frozenset({State.PENDING, State.CANCELLING}) | (_ENDS - {State.SUCCEEDED}),
    State.PENDING: frozenset({State.RUNNING, State.CANCELLING}) | (_ENDS - {State.SUCCEEDED}),
    State.RUNNING: frozenset({State.CANCELLING, State.QUEUED}) | _ENDS,
    State.CANCELLING: TERMINAL,
    State.AWAITING_RETRY: frozenset({State.QUEUED, State.CANCELLED, State.CRASHED}),
    **dict.fromkeys((*TERMINAL, State.UNKNOWN), frozenset[State]()),
}


def advance(state: State, to: State) -> State:
    """Give ``to`` back if the table allows the move from ``state``.

    Raises:
        Refused: the move isn't in :data:`TRANSITIONS`.
    """
    if to not in TRANSITIONS[state]:
        raise Refused(f"a run can't go from {state} to {to}")
    return to


def state_of(cause: Cause | None) -> State:
    """The terminal state in which an attempt with this cause ends; None is success."""
    match cause:
        case None:
            return State.SUCCEEDED
        case Cause.USER_ERROR:
            return State.FAILED
        case Cause.DEADLINE:
            return State.TIMED_OUT
        case Cause.CANCELLED:
            return State.CANCELLED
        case _:
            return State.CRASHED
