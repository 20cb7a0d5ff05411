"""The outcome of a run whose own Dask scheduler has died."""

from __future__ import annotations

import signal

from dispatcher.executors.dask_cluster.cluster import SchedulerEnd
from dispatcher.runner.container.memory import oom_kills, oom_message
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.states import Cause
from dispatcher.support.signal_names import signal_name

_SCHEDULER = "the scheduler of the run's Dask cluster"


def outcome_of(end: SchedulerEnd, oom_kills_before: int) -> Outcome:
    """Return the outcome of a run whose scheduler ended so.

    Args:
        end: its end.
        oom_kills_before: the number of OOM kills in this container before it started.
    """
    if end.code == -signal.SIGKILL and oom_kills() > oom_kills_before:
        cause, reason, message = Cause.OOM_KILLED, "OOMKilled", f"{_SCHEDULER} was killed: {oom_message()}"
    elif end.code < 0:
        reason = signal_name(-end.code)
        cause, message = Cause.KILLED, f"{_SCHEDULER} was killed by {reason}"
    else:
        cause = Cause.KILLED if end.started else Cause.START_FAILED
        reason, message = "SchedulerDied", f"{_SCHEDULER} ended with exit code {end.code}"
    if end.lines:
        message = f"{message}; its last lines: " + " | ".join(end.lines[-3:])
    return Outcome(cause=cause, reason=reason, message=message)
