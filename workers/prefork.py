"""Celery's pool of processes, but for one mistake of it that would end a worker, and two detours.

Two processes that die at once are noticed in one look of the event loop; the first is replaced, its successor gets the
descriptor number on which the other was watched, and so is taken for dead: alive, and watched no more. At the next
lost connection Celery (5.7) registers its processes again, trips over that one, and never gets over it.

And a job goes to a process that is idle at once. Celery leaves it for the event loop's next turn, in which it first
asks the broker for more, on all of the worker's queues. Nor are idle processes looked up in each turn of the loop.
"""

from __future__ import annotations

from typing import Any

from celery.concurrency.asynpool import AsynPool
from celery.concurrency.prefork import TaskPool


class Processes(AsynPool):  # type: ignore[misc]
    """The processes themselves."""

    _quick_put: Any
    on_poll_start: Any

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
    """What Celery finds by the setting ``worker_pool``."""

    Pool = Processes
