"""A Celery request that tells the engine which pool process runs which run, and when that process died.

All of it is called by Celery, on the event loop of the worker's parent; nothing here waits for the server.
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

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._request_dict["also_served"] = self._engine.queues.beyond()  # whatever the message said of it

    @property
    def run_id(self) -> str:
        """The run it rings for, or nothing if it is no message of ours."""
        kwargs = self.kwargs
        run_id = kwargs.get("run_id") if isinstance(kwargs, dict) else None
        return run_id if is_run_id(run_id) else ""

    def acknowledge(self) -> None:
        """The server keeps no message that was taken; see :func:`workers.queues.queue`."""
        self.acknowledged = True

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        self._engine.held.take(pid, self.run_id)
        super().on_accepted(pid, time_accepted)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Celery derives a class per task whose methods call no base: put ours around them."""
        super().__init_subclass__(**kwargs)
        execute, theirs = cls.execute_using_pool, cls.on_success

        def execute_using_pool(self: RunRequest, pool: Any, **more: Any) -> Any:
            failpoint("bell.taken", self.run_id)
            return execute(self, pool, **more)

        def on_success(self: RunRequest, failed__retval__runtime: Any, **more: Any) -> Any:
            self._engine.held.drop(self.worker_pid, self.run_id)
            return theirs(self, failed__retval__runtime, **more)

        cls.execute_using_pool, cls.on_success = execute_using_pool, on_success

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        holding = self._engine.held.drop(self.worker_pid, self.run_id)
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        if isinstance(error, WorkerLostError | Terminated | SystemExit):
            sweep_group(self.worker_pid)
            self._engine.died(
                Death(
                    run_id=self.run_id,
                    pid=self.worker_pid,
                    ending=holding.ending if holding else None,
                    status=-abs(error.args[0]) if isinstance(error, Terminated) else exit_status(str(error)),
                )
            )
        return super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    @property
    def _engine(self) -> Any:
        return self.app.dispatcher


def exit_status(text: str) -> int | None:
    """Return how a process ended, from billiard's words: a signal as its negative number, else the exit code."""
    found = _STATUS.search(text)
    if found is None:
        return None
    number = int(found[2])
    return -number if found[1] == "signal" else number
