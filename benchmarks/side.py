"""The interface of the two compared systems, which :mod:`benchmarks.bare` and :mod:`benchmarks.ours` implement."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Latency:
    """One request while nothing else runs: seconds from its submit to the user's code, and to its result in the
    client."""

    start: float
    result: float


class Take(StrEnum):
    """A way to take the results of many requests."""

    ONE_BY_ONE = "one by one"  #: in the order of the submits
    BY_WAIT = "by wait"  #: once all are there
    AS_COMPLETED = "as completed"


@dataclass(frozen=True)
class LoopRates:
    """Requests per second of a loop: until the last was submitted, and until the last result was taken."""

    submitted: float
    completed: float


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

    def looped(self, count: int, take: Take, *, empty: bool = False) -> LoopRates:
        """Submit ``count`` requests in a loop, each with a number that comes back, and take the results.

        ``empty``: without a parameter and a result.
        """

    def idle(self, count: int) -> list[Latency]:
        """Measure ``count`` requests, each after the previous one has ended."""


@contextmanager
def both(socket: Path) -> Iterator[tuple[Side, Side]]:
    """Yield ours and bare Celery on one server, both warmed up."""
    from benchmarks import bare, ours

    with bare.side(socket) as theirs, ours.side(socket) as mine:
        for side in (mine, theirs):
            side.mapped(20)
            side.idle(5)
        yield mine, theirs
