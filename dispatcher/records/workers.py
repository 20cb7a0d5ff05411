"""The register of live workers, and their heartbeats.

The rules common to all interfaces stand in :mod:`dispatcher.records.base`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dispatcher.runs.routing import Offer, Route


@dataclass(frozen=True, kw_only=True)
class WorkerInfo:
    """A worker process as it registers itself. ``id`` is new at each process start."""

    id: str
    host: str
    pid: int
    offer: Offer
    concurrency: int
    started_at: float
    python: str = ""
    version: str = ""
    celery_name: str = ""
    queues: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)


def serving(route: Route, workers: Sequence[WorkerInfo]) -> list[WorkerInfo]:
    """Return the workers that serve ``route``."""
    return [worker for worker in workers if worker.offer.serves(route)]


class Workers(ABC):
    """The register of live workers. A worker's heartbeats renew the leases of all runs that it owns."""

    @abstractmethod
    def announce(self, info: WorkerInfo) -> None:
        """Register a worker, or update its entry."""

    @abstractmethod
    def beat(self, worker_id: str) -> bool:
        """Count one heartbeat; return False if the worker isn't registered any more (:meth:`remove`)."""

    @abstractmethod
    def beats(self) -> dict[str, int]:
        """Return the heartbeat counters of all registered workers.

        An observer that saw a counter unchanged for the length of a lease, by its own monotonic clock while its own
        commands succeeded, may take over the runs of that worker.
        """

    @abstractmethod
    def live(self, *, within: float = 30.0) -> list[WorkerInfo]:
        """Return workers with a heartbeat in the last ``within`` seconds by the server's clock.

        For display and warnings only: takeover is decided by :meth:`beats`.
        """

    @abstractmethod
    def remove(self, worker_id: str) -> bool:
        """Deregister a worker that left or was declared dead; return False, and do nothing, while it owns runs.

        A claim lists the worker in :meth:`beats` again, so that every owner of a run is observed.
        """
