"""A run's own Dask cluster, opened by the runner in the flow's process: ``with open_cluster(spec, ...) as cluster``.

The scheduler is a child process (:mod:`dispatcher.executors.dask_cluster.scheduler_process`), so that a flow that
computes doesn't slow it down. Who starts the workers is told their names by reports.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dispatcher.errors import Permanent
from dispatcher.executors.dask_cluster.executor import ClusterExecutor
from dispatcher.executors.dask_cluster.messages import ClusterLine
from dispatcher.executors.dask_cluster.operator_cluster import OperatorCluster, check_dask
from dispatcher.executors.dask_cluster.scheduler_process import SchedulerProcess
from dispatcher.executors.dask_cluster.tls import Tls
from dispatcher.executors.received_lines import emit
from dispatcher.runs.cluster import WorkerReport
from dispatcher.runs.states import Cause

if TYPE_CHECKING:
    from dispatcher.environments.cluster import ClusterSpec

logger = logging.getLogger("dispatcher.executors")

#: The variable with the scheduler's port; its pages have the next one.
PORT = "DISPATCHER__RUN__SCHEDULER_PORT"

#: The variable with the seconds after which a task fails that no worker can run.
NO_WORKERS_TIMEOUT = "DISPATCHER__RUN__NO_WORKERS_TIMEOUT"

_DEFAULT_PORT, _DEFAULT_TIMEOUT = 8786, 300.0
_SCHEDULER = "DASK_DISTRIBUTED__SCHEDULER__"
_CHECK_INTERVAL = 1.0  # seconds; a signal that arrives just before a wait is handled after it
_LAST_LINES = 10  # that are kept of the scheduler, for the case that it dies


@dataclass(frozen=True, kw_only=True)
class SchedulerEnd:
    """The end of a scheduler's process that nobody asked for.

    Attributes:
        code: its exit code, or the negative number of the signal that killed it.
        started: True if it had listened.
        lines: its last lines.
    """

    code: int
    started: bool
    lines: tuple[str, ...]


class DaskCluster:
    """The cluster of this process's run.

    Args:
        spec: what its environment asks for.
        variables: those of the flow's container.
        on_report: called with each report of the workers that are wanted, in a thread of its own.
        on_end: called when the scheduler has died, in that thread.

    Raises:
        InvalidSettings: a variable is missing or wrong.
        MissingExtra: Dask isn't installed.
    """

    def __init__(
        self,
        spec: ClusterSpec,
        variables: Mapping[str, str],
        *,
        on_report: Callable[[WorkerReport], None],
        on_end: Callable[[SchedulerEnd], None],
    ) -> None:
        check_dask()
        self._on_report, self._on_end = on_report, on_end
        self._changed = threading.Condition()
        self._report: WorkerReport | None = None
        self._refusal = ""
        self._lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._end: SchedulerEnd | None = None
        self._tls = Tls.of(variables)
        port = int(variables.get(PORT) or _DEFAULT_PORT)
        self.address = f"tls://127.0.0.1:{port}"
        self._process = SchedulerProcess(
            _arguments(spec, port),
            {**variables, **_configuration(spec, variables), **self._tls.variables()},
            on_message=self._receive,
            on_output=self._print,
            on_end=self._note_end,
        )

    @property
    def report(self) -> WorkerReport | None:
        """The latest report; None until the scheduler listens."""
        return self._report

    @property
    def scheduler_pid(self) -> int:
        """The id of the scheduler's process."""
        return self._process.pid

    def ended(self, *, within: float = 0.0) -> SchedulerEnd | None:
        """Return how the scheduler died; None if it lives, or was closed by a client. Wait for it so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._end is not None, timeout=within)
            return self._end

    def executor(self) -> ClusterExecutor:
        """Return a new executor, which may be started once :meth:`wait` has returned."""
        return ClusterExecutor(self.address, self._tls, lambda: self._process.has_ended)

    def wait(self) -> None:
        """Wait until the least number of workers has joined. Imports Dask meanwhile, and configures it so that the flow
        can connect clients of its own to :attr:`address`.

        Raises:
            Permanent: a worker has other versions than the scheduler, or the scheduler has died.
        """
        import distributed  # noqa: F401 - takes a second, in which workers start

        self._tls.configure()
        while True:
            with self._changed:
                if self._refusal:
                    raise Permanent(self._refusal, cause=Cause.CONFIG_ERROR, reason="OtherVersions")
                if self._end is not None or self._process.has_ended:
                    raise Permanent(
                        "the scheduler of the run's Dask cluster ended before its workers had joined",
                        cause=Cause.START_FAILED,
                        reason="SchedulerDied",
                    )
                if self._report is not None and self._report.ready:
                    return
                self._changed.wait(_CHECK_INTERVAL)

    def close(self) -> None:
        """End the cluster: the workers that are connected end, too. Safe to call again."""
        self._process.close()

    def _receive(self, message: dict[str, Any]) -> None:
        if "line" in message:
            self._show(ClusterLine(*message["line"]))
        if "refusal" in message:
            with self._changed:
                self._refusal = message["refusal"]
                self._changed.notify_all()
        if "workers" in message:
            self._set_report(WorkerReport.from_json(message["workers"]))

    def _set_report(self, report: WorkerReport) -> None:
        with self._changed:
            self._report = report
            self._changed.notify_all()
        self._on_report(report)

    def _show(self, line: ClusterLine) -> None:
        if not line.worker:
            self._lines.append(line.text)
        try:
            emit(line.stream, line.text, line.level, line.logger, worker=line.worker)
        except Exception:  # the flow may have closed the stream
            logger.debug("A line of the Dask cluster can't be shown", exc_info=True)

    def _print(self, text: str) -> None:
        self._show(ClusterLine("", "stderr", f"Dask scheduler: {text}"))

    def _note_end(self, code: int) -> None:
        if code == 0 and self._report is not None:  # a client has closed it: the flow wants no workers any more
            self._set_report(WorkerReport(ready=True, lost=self._report.lost))
            return
        end = SchedulerEnd(code=code, started=self._report is not None, lines=tuple(self._lines))
        with self._changed:
            self._end = end
            self._changed.notify_all()
        self._on_end(end)


def make_cluster(
    spec: ClusterSpec,
    variables: Mapping[str, str],
    *,
    on_report: Callable[[WorkerReport], None],
    on_end: Callable[[SchedulerEnd], None],
) -> DaskCluster | OperatorCluster:
    """Return the cluster that an environment asks for: a new one, or the one that an operator makes. Arguments as those
    of :class:`DaskCluster`."""
    if spec.has_operator:
        return OperatorCluster(spec, variables, on_report=on_report)
    return DaskCluster(spec, variables, on_report=on_report, on_end=on_end)


@contextlib.contextmanager
def open_cluster(
    spec: ClusterSpec,
    variables: Mapping[str, str],
    *,
    on_report: Callable[[WorkerReport], None],
    on_end: Callable[[SchedulerEnd], None],
) -> Iterator[DaskCluster | OperatorCluster]:
    """Yield what :func:`make_cluster` returns, whose arguments these are, and close it afterwards."""
    cluster = make_cluster(spec, variables, on_report=on_report, on_end=on_end)
    try:
        yield cluster
    finally:
        cluster.close()


def _arguments(spec: ClusterSpec, port: int) -> list[str]:
    logs = ["--scheduler-logs"] if spec.scheduler_logs else []
    numbers = {"min": spec.min_workers, "max": spec.max_workers, "port": port, "pages-port": port + 1}
    return [*(f"--{name}={number}" for name, number in numbers.items()), *logs]


def _configuration(spec: ClusterSpec, variables: Mapping[str, str]) -> dict[str, str]:
    """Return variables of the scheduler's configuration. Those that are set already stand."""
    timeout = float(variables.get(NO_WORKERS_TIMEOUT) or _DEFAULT_TIMEOUT)
    made = {f"{_SCHEDULER}NO_WORKERS_TIMEOUT": f"{timeout:g}s"}
    if spec.work_stealing is not None:
        made[f"{_SCHEDULER}WORK_STEALING"] = str(spec.work_stealing)
    return {name: value for name, value in made.items() if name not in variables}
