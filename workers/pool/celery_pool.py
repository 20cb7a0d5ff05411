"""Celery's pool of processes, but for one mistake of it that would end a worker, and two detours.

Two processes that die at once are noticed in one look of the event loop; the first is replaced, its successor gets the
descriptor number on which the other was watched, and so is taken for dead: alive, and watched no more. At the next
lost connection Celery (5.7) registers its processes again, trips over that one, and never gets over it.

A process's pipe closes before the process can be waited for; Celery looks once, and then after 5 s.

A process may leave between two jobs: Celery gives what it had been given, and hadn't begun, to another.

And a job goes to a process that is idle at once. Celery leaves it for the event loop's next turn, in which it first
asks the broker for more, on all of the worker's queues. Nor are idle processes looked up in each turn of the loop.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from celery.concurrency import asynpool
from celery.concurrency.prefork import TaskPool

from workers.pool.journals import journals
from workers.pool.processes import sweep_group

#: Seconds between two looks whether a process can be waited for.
_FIRST, _LONGEST = 0.005, 1.0

_leaving = False
_between: Callable[[], None] | None = None


def between_jobs(call: Callable[[], None]) -> None:
    """Have something done in this pool process between two jobs: the result of one was sent, the next isn't read."""
    global _between  # noqa: PLW0603 - as below
    _between = call


def leave() -> None:
    """Have this pool process end once the result of its job was read; a new one takes its place."""
    global _leaving  # noqa: PLW0603 - Celery's loop asks, and knows nothing of us
    _leaving = True


class PoolWorker(asynpool.Worker):  # type: ignore[misc]
    """A process of the pool: it does one job after the other."""

    wait_for_job: Any

    def _make_child_methods(self, *arguments: Any, **more: Any) -> None:
        super()._make_child_methods(*arguments, **more)
        receive = self.wait_for_job

        def wait_for_job(*arguments: Any, **more: Any) -> Any:
            if _between is not None:
                _between()
            if _leaving:
                raise SystemExit(os.EX_OK)
            return receive(*arguments, **more)

        self.wait_for_job = wait_for_job


class ProcessPool(asynpool.AsynPool):  # type: ignore[misc]
    """The processes themselves."""

    Worker = PoolWorker
    _quick_put: Any
    on_poll_start: Any
    on_process_down: Any

    def _create_worker_process(self, i: int) -> Any:
        """With a journal, which only the new process writes, and we read when it is dead."""
        journals.open()
        process = super()._create_worker_process(i)
        journals.opened(process.pid)
        return process

    def _create_process_handlers(self, hub: Any, *arguments: Any, **more: Any) -> None:
        """End what a process has left in its group, however it ended."""
        super()._create_process_handlers(hub, *arguments, **more)
        theirs = self.on_process_down

        def on_process_down(process: Any) -> None:
            sweep_group(process.pid)
            journals.ended(process.pid)
            theirs(process)

        self.on_process_down = on_process_down

    def _event_process_exit(self, hub: Any, proc: Any) -> None:
        """Replace a process, also one whose pipe was closed a moment before it could be waited for."""
        super()._event_process_exit(hub, proc)
        self._replace(hub, proc, _FIRST)

    def _replace(self, hub: Any, proc: Any, pause: float) -> None:
        if proc in self._pool:
            self.maintain_pool()
        if proc in self._pool:
            hub.call_later(pause, self._replace, hub, proc, min(2 * pause, _LONGEST))

    def _track_child_process(self, proc: Any, hub: Any) -> None:
        """Watch a process, also one that was taken for dead and so is watched no more."""
        if getattr(proc, "_sentinel_poll", "never watched") is None:
            del proc._sentinel_poll
        super()._track_child_process(proc, hub)

    def _create_write_handlers(self, hub: Any, *arguments: Any, **more: Any) -> None:
        """Put a job where the event loop finds it, as Celery does, and write it where a process waits for one."""
        super()._create_write_handlers(hub, *arguments, **more)
        put, write, register = self._quick_put, hub.consolidate_callback, self.on_poll_start

        def put_and_write(job: Any) -> None:
            put(job)
            if idle := self._all_inqueues - self._active_writes - self._busy_workers:
                write([min(idle)])

        def register_where_jobs_wait() -> None:
            """In each turn; while no job waits, Celery takes out of the loop what isn't in it."""
            if self.outbound_buffer or hub.consolidate:
                register()

        self._quick_put, self.on_poll_start = put_and_write, register_where_jobs_wait


class Pool(TaskPool):  # type: ignore[misc]
    """The pool that Celery finds by the setting ``worker_pool``."""

    Pool = ProcessPool
