"""Rejections in this process."""

from __future__ import annotations

from dispatcher.records.memory.shared import Shared
from dispatcher.records.rejections import Rejected, Rejections, Tally


class MemoryRejections(Rejections):
    """A dictionary."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._tallies: dict[Rejected, Tally] = {}

    def note(self, what: Rejected) -> None:
        with self._shared.changed:
            before = self._tallies.get(what)
            self._tallies[what] = Tally(count=1 + (before.count if before else 0), last=self._shared.clock())

    def tallies(self) -> dict[Rejected, Tally]:
        with self._shared.changed:
            return dict(self._tallies)
