"""The registry of queues, from which workers learn what to serve.

The rules common to all interfaces stand in :mod:`dispatcher.records.base`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from dispatcher.runs.routing import Route


class Queues(ABC):
    """The registry of queues. :meth:`Runs.create` and :meth:`Runs.commit` note each use."""

    @abstractmethod
    def known(self) -> dict[str, tuple[Route, float]]:
        """Return, for each queue name, its route and the time of its last use by the server's clock."""

    @abstractmethod
    def passed(self) -> dict[str, float]:
        """Return, for each queue name, the latest ``rung_at`` of a run claimed from it."""

    @abstractmethod
    def retire(self, *, unused_for: float) -> list[str]:
        """Drop queues without waiting runs that were unused for so many seconds; return their names."""
