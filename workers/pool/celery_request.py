"""A Celery request that reports to the engine which pool process runs which run, and when that process died.

Celery calls all of it on the event loop of the worker's parent process. Nothing here waits for the server.
"""

from __future__ import annotations

import re
from typing import Any

from billiard.exceptions import Terminated, WorkerLostError
from celery.worker.request import Request

from dispatcher.support.failpoints import failpoint
from dispatcher.support.ids import is_run_id
from workers.pool.death import Death
from workers.pool.processes import sweep_group

_STATUS = re.compile(r"(signal|exitcode) (\d+)")


class RunRequest(Request):  # type: ignore[misc]
    """The request of one doorbell."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._request_dict["also_served"] = self._engine.queues.beyond()  # replaces whatever the message contains

    @property
    def run_id(self) -> str:
        """The id of the run that the doorbell names; empty if the message isn't a doorbell."""
        kwargs = self.kwargs
        run_id = kwargs.get("run_id") if isinstance(kwargs, dict) else None
        return run_id if is_run_id(run_id) else ""

    def acknowledge(self) -> None:
        """Send nothing: the server keeps no message that was taken; see :func:`workers.queues.queue`."""
        self.acknowledged = True

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        self._engine.busy.add(pid, self.run_id)
        super().on_accepted(pid, time_accepted)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Wrap methods of the class that Celery derives for each task, because they don't call their base's."""
        super().__init_subclass__(**kwargs)
        celery_execute, celery_on_success = cls.execute_using_pool, cls.on_success

        def execute_using_pool(self: RunRequest, pool: Any, **keywords: Any) -> Any:
            failpoint("bell.taken", self.run_id)
            return celery_execute(self, pool, **keywords)

        def on_success(self: RunRequest, failed__retval__runtime: Any, **keywords: Any) -> Any:
            self._engine.busy.remove(self.worker_pid, self.run_id)
            return celery_on_success(self, failed__retval__runtime, **keywords)

        cls.execute_using_pool, cls.on_success = execute_using_pool, on_success

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        process = self._engine.busy.remove(self.worker_pid, self.run_id)
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        if isinstance(error, WorkerLostError | Terminated | SystemExit):
            sweep_group(self.worker_pid)
            self._engine.process_died(
                Death(
                    run_id=self.run_id,
                    pid=self.worker_pid,
                    reason=process.killed_for if process else None,
                    status=-abs(error.args[0]) if isinstance(error, Terminated) else exit_status(str(error)),
                )
            )
        return super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    @property
    def _engine(self) -> Any:
        return self.app.dispatcher


def exit_status(text: str) -> int | None:
    """Return how a process ended by billiard's message: a signal as its negative number, else the exit code."""
    match = _STATUS.search(text)
    if match is None:
        return None
    number = int(match[2])
    return -number if match[1] == "signal" else number
