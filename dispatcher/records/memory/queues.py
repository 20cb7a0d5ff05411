"""Queues in this process."""

from __future__ import annotations

from dispatcher.records.memory.shared import SharedState
from dispatcher.records.queues import Queues
from dispatcher.runs.indexes import waiting
from dispatcher.runs.routing import Route


class MemoryQueues(Queues):
    """Dictionaries by queue name."""

    def __init__(self, shared: SharedState) -> None:
        self._shared = shared
        self._routes: dict[str, tuple[Route, float]] = {}
        self._passed: dict[str, float] = {}

    def known(self) -> dict[str, tuple[Route, float]]:
        with self._shared.changed:
            return dict(self._routes)

    def passed(self) -> dict[str, float]:
        with self._shared.changed:
            return dict(self._passed)

    def retire(self, *, unused_for: float) -> list[str]:
        with self._shared.changed:
            oldest = self._shared.clock() - unused_for
            unused = [
                queue
                for queue, (_, used) in self._routes.items()
                if used <= oldest and not self._shared.indexes.get(waiting(queue))
            ]
            for queue in unused:
                del self._routes[queue]
                self._passed.pop(queue, None)
            return unused

    def use(self, route: Route, now: float) -> bool:
        """Note a use; return True if the queue is new."""
        new = route.queue not in self._routes
        self._routes[route.queue] = (route, now)
        return new

    def note_passed(self, queue: str, rung_at: float) -> None:
        """Note that a run whose doorbell was rung at ``rung_at`` was claimed from ``queue``."""
        self._passed[queue] = max(rung_at, self._passed.get(queue, rung_at))
