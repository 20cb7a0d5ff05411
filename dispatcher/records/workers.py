"""Workers that live. The interface stands beside those of :mod:`dispatcher.records.base`, under the same contract."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dispatcher.runs.routing import Offer


@dataclass(frozen=True, kw_only=True)
class WorkerInfo:
    """A worker process as it presents itself. ``id`` is new at each process start."""

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


class Workers(ABC):
    """The register of workers that live. A worker's beat stands for the leases of all runs that it owns."""

    @abstractmethod
    def announce(self, info: WorkerInfo) -> None:
        """Present oneself, or change what was said."""

    @abstractmethod
    def beat(self, worker_id: str) -> bool:
        """Renew: the worker's counter grows by one. False if others have taken it for dead (:meth:`remove`)."""

    @abstractmethod
    def beats(self) -> dict[str, int]:
        """The counter of every worker not removed. An observer that saw one unchanged for the lease's length, by its
        own monotonic clock while its own commands succeeded, may take what that worker owned."""

    @abstractmethod
    def live(self, *, within: float = 30.0) -> list[WorkerInfo]:
        """Workers that beat within so many seconds by the server's clock: for people and warnings, not for takeover."""

    @abstractmethod
    def remove(self, worker_id: str) -> bool:
        """Forget a worker that left, or was found dead; False, and nothing is done, while it owns runs.

        A claim brings it back to :meth:`beats`, so that no run ever has an owner whom nobody watches.
        """
