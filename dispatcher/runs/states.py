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
    UNKNOWN = "UNKNOWN"  #: a state of another release: neither open nor ended here, and never changed here


class Cause(StrEnum):
    """Why an attempt did not succeed; the same words on every backend."""

    OOM_KILLED = "oom_killed"  #: out of memory
    IMAGE_PULL = "image_pull"  #: the image can't be pulled
    CONFIG_ERROR = "config_error"  #: the request, the payload or a reference in it is wrong
    UNSCHEDULABLE = "unschedulable"  #: no node has room for it
    QUOTA = "quota"  #: a quota or a capacity limit
    EVICTED = "evicted"  #: evicted by the node
    PREEMPTED = "preempted"  #: ended in favour of another workload, or by a worker's shutdown
    SPOT_INTERRUPTED = "spot_interrupted"  #: the provider took the machine back
    NODE_LOST = "node_lost"  #: the node vanished
    KILLED = "killed"  #: by a signal or a deletion from outside
    START_FAILED = "start_failed"  #: the container or process couldn't start
    DEADLINE = "deadline"  #: timeout or start_within passed
    CANCELLED = "cancelled"  #: somebody cancelled it
    USER_ERROR = "user_error"  #: the flow or its on_start raised
    RESULT_MISSING = "result_missing"  #: it exited with 0, but left no result
    WORKER_LOST = "worker_lost"  #: the worker that held it died
    UNKNOWN = "unknown"  #: none of these, or one of another release


#: States that never change again.
TERMINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CRASHED, State.TIMED_OUT, State.CANCELLED})

#: States in which a worker, or a shard of one, is responsible for the run.
HELD = frozenset({State.CLAIMED, State.PROVISIONING, State.PENDING, State.RUNNING, State.CANCELLING})

#: States in which no runner has claimed the attempt yet.
UNSTARTED = frozenset({State.QUEUED, State.CLAIMED, State.PROVISIONING, State.PENDING})


def state_of(cause: Cause | None) -> State:
    """Return the terminal state in which an attempt with this cause ends; None is success."""
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
