"""Celery's pool of processes, with one defect corrected that would end a worker, and a few changes.

The defect: if two processes die at once, the event loop notices both in one iteration. The first is replaced, its
successor gets the descriptor number on which the other one was watched, and is considered dead: it lives, but isn't
watched any more. At the next lost connection Celery (5.7) registers its processes again, fails on that one, and never
recovers.

The changes:

- A process's end is noticed by a descriptor of the process. Celery watches its pipe, which its forked children hold
  open, and which closes before the process can be waited for. It looks once, and then after 5 s; here it looks again
  within milliseconds.
- A process may end between two jobs. Celery gives the jobs that it hadn't begun to another process.
- A job goes to an idle process at once. Celery leaves it to the next iteration of the event loop, which first asks the
  broker for more messages, on all queues of the worker. Nor does each iteration search for idle processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from celery.concurrency import asynpool
from celery.concurrency.prefork import TaskPool

from workers.pool.journals import journals
from workers.pool.processes import sweep_group

#: Seconds between two checks whether a process can be waited for: the first pause, and the longest.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 1.0

_leaving = False
_between_jobs: Callable[[], None] | None = None


def between_jobs(call: Callable[[], None]) -> None:
    """Have ``call`` called in this pool process between two jobs: after a result was sent, before the next is read."""
    global _between_jobs  # noqa: PLW0603 - as below
    _between_jobs = call


def leave() -> None:
    """End this pool process once the result of its job was read; a new one takes its place."""
    global _leaving  # noqa: PLW0603 - read by Celery's loop, which can't be given an object
    _leaving = True


class PoolWorker(asynpool.Worker):  # type: ignore[misc]
    """A process of the pool: it does one job after the other."""

    wait_for_job: Any

    def _make_child_methods(self, *arguments: Any, **keywords: Any) -> None:
        super()._make_child_methods(*arguments, **keywords)
        receive = self.wait_for_job

        def wait_for_job(*arguments: Any, **keywords: Any) -> Any:
            if _between_jobs is not None:
                _between_jobs()
            if _leaving:
                raise SystemExit(os.EX_OK)
            return receive(*arguments, **keywords)

        self.wait_for_job = wait_for_job


class ProcessPool(asynpool.AsynPool):  # type: ignore[misc]
    """The processes of the pool, and the event loop's handlers for them."""

    Worker = PoolWorker
    _quick_put: Any
    on_poll_start: Any
    on_process_down: Any

    def _create_worker_process(self, i: int) -> Any:
        """Create a process with a journal, which it alone writes, and its parent reads after its death."""
        journals.prepare()
        process = super()._create_worker_process(i)
        journals.forked(process.pid)
        return process

    def _create_process_handlers(self, hub: Any, *arguments: Any, **keywords: Any) -> None:
        """Kill what a process has left in its process group, however it ended."""
        super()._create_process_handlers(hub, *arguments, **keywords)
        celery_handler = self.on_process_down

        def on_process_down(process: Any) -> None:
            sweep_group(process.pid)
            journals.ended(process.pid)
            celery_handler(process)

        self.on_process_down = on_process_down

    def _event_process_exit(self, hub: Any, proc: Any) -> None:
        """Replace a process, even if its pipe was closed a moment before it could be waited for."""
        super()._event_process_exit(hub, proc)
        self._replace(hub, proc, _FIRST_PAUSE)

    def _replace(self, hub: Any, proc: Any, pause: float) -> None:
        if proc in self._pool:
            self.maintain_pool()
        if proc in self._pool:
            hub.call_later(pause, self._replace, hub, proc, min(2 * pause, _LONGEST_PAUSE))

    def _track_child_process(self, proc: Any, hub: Any) -> None:
        """Watch a process, even if it was considered dead and isn't watched any more.

        By a descriptor of the process itself: a child that a flow has forked holds its pipe open. Where there is none,
        by the pipe.
        """
        if getattr(proc, "_sentinel_poll", None) is None:
            vars(proc).pop("_sentinel_poll", None)
            with suppress(OSError):  # the kernel lacks it or forbids it, or the process is gone
                proc._sentinel_poll = os.pidfd_open(proc.pid)
        super()._track_child_process(proc, hub)

    def _create_write_handlers(self, hub: Any, *arguments: Any, **keywords: Any) -> None:
        """Queue a job for the event loop, as Celery does, and write it at once if a process is idle."""
        super()._create_write_handlers(hub, *arguments, **keywords)
        put, write, register = self._quick_put, hub.consolidate_callback, self.on_poll_start

        def put_and_write(job: Any) -> None:
            put(job)
            if idle := self._all_inqueues - self._active_writes - self._busy_workers:
                write([min(idle)])

        def register_if_jobs_wait() -> None:
            """Do nothing while no job waits: Celery would remove from the loop what isn't registered there."""
            if self.outbound_buffer or hub.consolidate:
                register()

        self._quick_put, self.on_poll_start = put_and_write, register_if_jobs_wait


class Pool(TaskPool):  # type: ignore[misc]
    """The pool that Celery finds by the setting ``worker_pool``."""

    Pool = ProcessPool
