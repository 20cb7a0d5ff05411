"""The Dask cluster of an attempt whose environment asks for one: opened, waited for, reported, and missed if it dies.

Used by :mod:`dispatcher.runner.container.attempt_runner`, and imported only then.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from dispatcher.environments.cluster import ClusterSpec
from dispatcher.errors import RunInterrupt, SchedulerInterrupt
from dispatcher.executors.current import cluster_executor
from dispatcher.executors.dask_cluster.cluster import SchedulerEnd, make_cluster
from dispatcher.runner.container.memory import oom_kills
from dispatcher.runner.scheduler_end import outcome_of
from dispatcher.runs.cluster import WorkerReport
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.states import Cause

_RETRY = 1.0  # seconds until a report is sent again, or the flow is interrupted again

#: The causes that an outcome may have because the scheduler has died.
_CONSEQUENCES = frozenset({Cause.USER_ERROR, Cause.KILLED, Cause.START_FAILED})

#: What Dask raises in a flow whose scheduler has gone, perhaps before its end is known here.
_SYMPTOMS = ("FutureCancelledError", "CancelledError", "CommClosedError", "FuturesCancelledError", "ClosedClientError")
_SYMPTOM_TIMEOUT = 2.0  # seconds for the scheduler's end to become known


class AttemptCluster:
    """The cluster of one attempt.

    Args:
        spec: what the environment asks for.
        send: sends a report of its workers; may raise if the server is away.
        interrupt: interrupts the flow, from any thread.
        lost: called with the outcome once the scheduler has died.
        has_ended: returns True once the flow has ended.

    Raises:
        InvalidSettings: a variable of this container is missing.
        MissingExtra: Dask isn't installed here.
    """

    def __init__(
        self,
        spec: ClusterSpec,
        *,
        send: Callable[[WorkerReport], None],
        interrupt: Callable[[type[RunInterrupt]], None],
        lost: Callable[[Outcome], None],
        has_ended: Callable[[], bool],
    ) -> None:
        self._send = send
        self._interrupt = interrupt
        self._lost = lost
        self._has_ended = has_ended
        self._unsent = threading.Event()
        self._oom_kills_before = oom_kills()
        self._cluster = make_cluster(
            spec, os.environ, on_report=lambda _report: self._unsent.set(), on_end=self._end_flow
        )
        threading.Thread(target=self._send_changes, name="dispatcher-workers", daemon=True).start()

    @property
    def report(self) -> WorkerReport | None:
        """The latest report of its workers; None until its scheduler listens."""
        return self._cluster.report

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Compute on it what is loaded in this context, and close it afterwards."""
        try:
            with cluster_executor.using(self._cluster.executor()):
                yield
        finally:
            self.close()

    def wait(self) -> None:
        """See :meth:`dispatcher.executors.dask_cluster.cluster.DaskCluster.wait`."""
        self._cluster.wait()

    def close(self) -> None:
        """End the cluster. Safe to call again."""
        self._cluster.close()

    def explain(self, outcome: Outcome) -> Outcome:
        """Return an outcome as it is, or what stands behind it: the death of the scheduler."""
        if outcome.cause not in _CONSEQUENCES:
            return outcome
        doubtful = outcome.reason in _SYMPTOMS or outcome.cause is Cause.START_FAILED
        end = self._cluster.ended(within=_SYMPTOM_TIMEOUT if doubtful else 0.0)
        if end is None:
            return outcome
        return replace(outcome_of(end, self._oom_kills_before), traceback=outcome.traceback, log_tail=outcome.log_tail)

    def _send_changes(self) -> None:
        """Send each change until the process ends; of those that come while the server is away, the last."""
        while True:
            self._unsent.wait()
            self._unsent.clear()
            try:
                if self.report is not None:
                    self._send(self.report)
            except Exception:
                time.sleep(_RETRY)
                self._unsent.set()

    def _end_flow(self, end: SchedulerEnd) -> None:
        """Interrupt the flow until it has ended."""
        if self._has_ended():
            return
        self._lost(outcome_of(end, self._oom_kills_before))
        while not self._has_ended():
            self._interrupt(SchedulerInterrupt)
            time.sleep(_RETRY)
