"""A run's Dask cluster that an operator makes: the runner waits for it, connects to it and reports its workers.

Scheduler and workers run elsewhere. The operator starts them, adapts them, and deletes them after the run.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from dispatcher.errors import InvalidSettings, MissingExtra, Permanent
from dispatcher.executors.dask_cluster.executor import ClusterExecutor
from dispatcher.executors.dask_cluster.versions import version_problem
from dispatcher.runs.cluster import WorkerReport, first_names
from dispatcher.runs.states import Cause

if TYPE_CHECKING:
    from dispatcher.environments.cluster import ClusterSpec

logger = logging.getLogger("dispatcher.executors")

#: The variable with the scheduler's address.
ADDRESS = "DASK_SCHEDULER_ADDRESS"

_POLL_INTERVAL = 0.5  # seconds between two looks at the workers until the flow starts
_REPORT_INTERVAL = 2.0  # seconds, later
_CONNECT_TIMEOUT = 5.0  # seconds of one try: the scheduler's name may become known meanwhile


class OperatorCluster:
    """The cluster of this process's run.

    Args:
        spec: what its environment asks for.
        variables: those of the flow's container.
        on_report: called with each change of the workers, in a thread of its own.

    Raises:
        InvalidSettings: the scheduler's address is missing.
        MissingExtra: Dask isn't installed.
    """

    def __init__(
        self, spec: ClusterSpec, variables: Mapping[str, str], *, on_report: Callable[[WorkerReport], None]
    ) -> None:
        check_dask()
        if not variables.get(ADDRESS):
            raise InvalidSettings(f"{ADDRESS}: not set; the flow needs the address of the operator's scheduler")
        self.address = variables[ADDRESS]
        self._spec = spec
        self._on_report = on_report
        self._report: WorkerReport | None = None
        self._closed = threading.Event()
        self._client: Any = None
        self._watching: threading.Thread | None = None

    @property
    def report(self) -> WorkerReport | None:
        """The latest report; None until the scheduler answers."""
        return self._report

    def ended(self, *, within: float = 0.0) -> None:
        """Return None: the operator replaces a scheduler that dies."""

    def executor(self) -> ClusterExecutor:
        """Return a new executor, which may be started once :meth:`wait` has returned."""
        return ClusterExecutor(self.address, None, self._closed.is_set)

    def wait(self) -> None:
        """Wait until the scheduler answers and the least number of workers has joined.

        Raises:
            Permanent: scheduler or workers have other versions than this process.
        """
        self._client = self._connected()
        while not self._closed.is_set() and not self._look(ready=False).ready:
            self._closed.wait(_POLL_INTERVAL)
        self._check_versions()
        self._watching = threading.Thread(target=self._watch, name="dispatcher-operator-workers", daemon=True)
        self._watching.start()

    def close(self) -> None:
        """Leave the cluster, which its operator deletes. Safe to call again."""
        self._closed.set()
        if self._watching is not None and self._watching is not threading.current_thread():
            self._watching.join(_CONNECT_TIMEOUT)
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):
                client.close(timeout=_REPORT_INTERVAL)

    def _connected(self) -> Any:
        """Return a client, once the operator has made the scheduler. ``start_within`` bounds how long that takes."""
        import distributed

        while not self._closed.is_set():
            try:
                return distributed.Client(self.address, timeout=_CONNECT_TIMEOUT, set_as_default=False)
            except (OSError, TimeoutError) as error:
                logger.debug("The operator's scheduler doesn't answer yet: %r", error)
                self._closed.wait(_POLL_INTERVAL)
        raise Permanent("the flow ended before its Dask cluster was there", cause=Cause.START_FAILED)

    def _look(self, *, ready: bool) -> WorkerReport:
        """Ask the scheduler for its workers, and report a change."""
        target, connected = self._client.sync(_numbers, self._client.scheduler)
        least, most = self._spec.min_workers, self._spec.max_workers
        report = WorkerReport(
            wanted=first_names(max(least, min(target, most))),
            connected=first_names(connected),
            ready=ready or connected >= least,
        )
        if report != self._report:
            self._report = report
            self._on_report(report)
        return report

    def _watch(self) -> None:
        while not self._closed.wait(_REPORT_INTERVAL):
            try:
                self._look(ready=True)
            except Exception as error:  # it is being replaced
                logger.debug("The operator's scheduler doesn't answer: %r", error)

    def _check_versions(self) -> None:
        versions = self._client.get_versions(check=False)
        members = {"scheduler": versions["scheduler"], **versions["workers"]}
        for name, theirs in members.items():
            if theirs and (problem := version_problem(str(name), theirs, versions["client"])):
                raise Permanent(problem, cause=Cause.CONFIG_ERROR, reason="OtherVersions")


async def _numbers(scheduler: Any) -> tuple[int, int]:
    """Return how many workers the scheduler wants, and how many it has."""
    return int(await scheduler.adaptive_target()), len((await scheduler.identity())["workers"])


def check_dask() -> None:
    """Raise MissingExtra if Dask isn't installed."""
    if importlib.util.find_spec("distributed") is None:
        raise MissingExtra(
            "a run's own Dask cluster needs distributed in the flow's image: "
            "pip install 'flow-dispatcher[dask-kubernetes]'"
        )
