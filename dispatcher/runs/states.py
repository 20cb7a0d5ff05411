"""The states of a run, and the causes for which an attempt may end."""

from __future__ import annotations

from enum import StrEnum


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


#: States that never change again.
TERMINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CRASHED, State.TIMED_OUT, State.CANCELLED})

#: States in which a worker, or a shard of one, answers for the run.
HELD = frozenset({State.CLAIMED, State.PROVISIONING, State.PENDING, State.RUNNING, State.CANCELLING})

#: States in which no runner has claimed the attempt yet.
UNSTARTED = frozenset({State.QUEUED, State.CLAIMED, State.PROVISIONING, State.PENDING})


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
