"""The registry of queues. Rules common to all interfaces: :mod:`dispatcher.records.base`."""

from __future__ import annotations

from abc import ABC, abstractmethod

from dispatcher.runs.routing import Route


class Queues(ABC):
    """The registry of queues; :meth:`Runs.create` and :meth:`Runs.commit` note each use."""

    @abstractmethod
    def known(self) -> dict[str, tuple[Route, float]]:
        """Queue name → its route and when it was last used, by the server's clock."""

    @abstractmethod
    def passed(self) -> dict[str, float]:
        """Queue name → the latest ``rung_at`` of a run claimed from it."""

    @abstractmethod
    def retire(self, *, unused_for: float) -> list[str]:
        """Drop queues unused for so many seconds in which no run waits; their names."""
