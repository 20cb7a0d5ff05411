"""Celery's pool of processes, but for one mistake of it that would end a worker.

Two processes that die at once are noticed in one look of the event loop; the first is replaced, its successor gets the
descriptor number on which the other was watched, and so is taken for dead: alive, and watched no more. At the next
lost connection Celery (5.7) registers its processes again, trips over that one, and never gets over it.
"""

from __future__ import annotations

from typing import Any

from celery.concurrency.asynpool import AsynPool
from celery.concurrency.prefork import TaskPool


class Processes(AsynPool):  # type: ignore[misc]
    """The processes themselves."""

    def _track_child_process(self, proc: Any, hub: Any) -> None:
        """Watch a process, also one that was taken for dead and so is watched no more."""
        if getattr(proc, "_sentinel_poll", "never watched") is None:
            del proc._sentinel_poll
        super()._track_child_process(proc, hub)


class Pool(TaskPool):  # type: ignore[misc]
    """What Celery finds by the setting ``worker_pool``."""

    Pool = Processes
