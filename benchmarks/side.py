"""What is measured of each side; implemented by :mod:`benchmarks.bare` and :mod:`benchmarks.ours`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Idle:
    """One request while nothing else runs: seconds from its submit to the user's code, and to the result here."""

    start: float
    result: float


class Side(Protocol):
    """One of the two systems, its worker running. Every call leaves nothing waiting."""

    name: str

    def completed(self, count: int) -> float:
        """No-ops per second: ``count`` submitted at once, until every result is here."""

    def submitted(self, count: int) -> float:
        """Submits per second: one after the other, by one client."""

    def mapped(self, count: int) -> float:
        """Submits per second in the quickest way that it has for many."""

    def idle(self, count: int) -> list[Idle]:
        """``count`` requests, each after the one before has ended."""
