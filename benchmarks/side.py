"""What is measured of both systems alike; implemented by :mod:`benchmarks.bare` and :mod:`benchmarks.ours`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Idle:
    """One request while nothing else runs: seconds from its submit to the user's code, and to the result here."""

    start: float
    result: float


class Side(Protocol):
    """One of the two systems, its worker running. Every call leaves nothing waiting. ``pid`` is its worker's."""

    name: str
    pid: int

    def completed(self, count: int) -> float:
        """No-ops per second: ``count`` submitted at once, until every result is here."""

    def submitted(self, count: int) -> float:
        """Submits per second: one after the other, by one client."""

    def mapped(self, count: int) -> float:
        """Submits per second in the quickest way that it has for many."""

    def idle(self, count: int) -> list[Idle]:
        """``count`` requests, each after the one before has ended."""


@contextmanager
def both() -> Iterator[tuple[Side, Side]]:
    """Ours and bare Celery on one server, both warm."""
    from benchmarks import bare, ours
    from benchmarks.machine import server

    with server() as socket, bare.side(socket) as theirs, ours.side(socket) as mine:
        for side in (mine, theirs):
            side.mapped(20)
            side.idle(5)
        yield mine, theirs
