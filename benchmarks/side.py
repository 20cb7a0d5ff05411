"""The interface of the two compared systems, which :mod:`benchmarks.bare` and :mod:`benchmarks.ours` implement."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Latency:
    """One request while nothing else runs: seconds from its submit to the user's code, and to its result in the
    client."""

    start: float
    result: float


class Side(Protocol):
    """One of the two systems, with a running worker, whose process is ``pid``. No call leaves anything waiting."""

    name: str
    pid: int

    def completed(self, count: int) -> float:
        """Submit ``count`` no-ops at once, and return how many per second were done when all results had arrived."""

    def submitted(self, count: int) -> float:
        """Return the submits per second of one client, one after the other."""

    def mapped(self, count: int) -> float:
        """Return the submits per second of one client, by the system's fastest way to submit many."""

    def idle(self, count: int) -> list[Latency]:
        """Measure ``count`` requests, each after the previous one has ended."""


@contextmanager
def both() -> Iterator[tuple[Side, Side]]:
    """Yield ours and bare Celery on one server, both warmed up."""
    from benchmarks import bare, ours
    from benchmarks.machine import server

    with server() as socket, bare.side(socket) as theirs, ours.side(socket) as mine:
        for side in (mine, theirs):
            side.mapped(20)
            side.idle(5)
        yield mine, theirs
