"""Counters of rejections in this process."""

from __future__ import annotations

from dispatcher.records.memory.shared import SharedState
from dispatcher.records.rejections import Rejected, Rejections, Tally


class MemoryRejections(Rejections):
    """Tallies by kind."""

    def __init__(self, shared: SharedState) -> None:
        self._shared = shared
        self._tallies: dict[Rejected, Tally] = {}

    def note(self, kind: Rejected, count: int = 1) -> None:
        with self._shared.changed:
            before = self._tallies.get(kind)
            self._tallies[kind] = Tally(count=count + (before.count if before else 0), last=self._shared.clock())

    def tallies(self) -> dict[Rejected, Tally]:
        with self._shared.changed:
            return dict(self._tallies)
