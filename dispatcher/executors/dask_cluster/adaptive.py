"""Adapt the workers of a cluster to its tasks, by the rules of distributed.

Runs in the scheduler's process (:mod:`dispatcher.executors.dask_cluster.scheduler`), beside the scheduler.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

import dask
from distributed.core import Status
from distributed.deploy.adaptive_core import AdaptiveCore

from dispatcher.executors.dask_cluster.worker_names import WorkerNames

logger = logging.getLogger("distributed.scheduler")


class Adapting(AdaptiveCore):  # type: ignore[misc]
    """Decides which workers are wanted.

    Args:
        scheduler: the ``distributed.Scheduler``.
        names: the names of its workers.
        minimum: workers that are kept.
        maximum: most workers.
    """

    def __init__(self, scheduler: Any, names: WorkerNames, *, minimum: int, maximum: int) -> None:
        super().__init__(
            minimum=minimum, maximum=maximum, wait_count=dask.config.get("distributed.adaptive.wait-count")
        )
        self._scheduler = scheduler
        self._names = names
        self.retiring: set[str] = set()  #: those that are moving their results to others, and end then

    @property
    def plan(self) -> set[str]:
        return self._names.wanted - self.retiring

    @property
    def requested(self) -> set[str]:
        return self.plan

    @property
    def observed(self) -> set[str]:
        return self._names.connected - self.retiring

    async def target(self) -> int:
        return int(self._scheduler.adaptive_target())

    async def workers_to_close(self, target: int) -> list[str]:
        names = self._scheduler.workers_to_close(target=target, attribute="name")
        return [name for name in names if name not in self.retiring]

    async def scale_up(self, n: int) -> None:
        self._names.add(n - len(self.plan))

    async def scale_down(self, workers: Collection[str]) -> None:
        """Want these no longer. Those that have joined are retired beside further decisions, as that may take long."""
        joined = self.observed.intersection(workers)
        self._names.drop(set(workers) - joined)
        if joined:
            self.retiring |= joined
            self._scheduler.loop.add_callback(self._retire, joined)

    async def adapt(self) -> None:
        """Decide anew. Called at an interval, and when something has happened that can't wait for it."""
        if self._scheduler.status is not Status.running:
            return
        try:
            await super().adapt()
        except Exception:
            logger.warning("The number of workers could not be adapted", exc_info=True)

    async def _retire(self, names: set[str]) -> None:
        """Close workers once others have their results. Those whose results have no other place go on."""
        try:
            await self._scheduler.retire_workers(names=sorted(names), close_workers=True, remove=True)
        except Exception:
            logger.warning("Workers could not be retired: %s", ", ".join(sorted(names)), exc_info=True)
        finally:
            self.retiring -= names
