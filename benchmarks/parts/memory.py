"""The memory of a worker with two pool processes after some runs, as its proportional share (PSS)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.bench import Benchmark, Measure, Part
from benchmarks.figures import Figure, Measured, Pair
from benchmarks.machine import memory, pids, server
from benchmarks.side import both

FIGURES = (Figure(name="worker memory at concurrency 2", unit="MB PSS", bound=1.3),)


@contextmanager
def opened(bench: Benchmark) -> Iterator[Measure]:
    """Start both workers on one server."""
    with server() as socket, both(socket) as (mine, theirs):

        def measure(number: int) -> Measured:
            for side in (mine, theirs):
                side.completed(bench.count(200))
            # Pages of files that both workers map count half for each.
            sizes = [sum(memory(pid) for pid in pids(side.pid)) for side in (mine, theirs)]
            return {FIGURES[0].name: Pair(*sizes)}

        yield measure


PART = Part(name="memory", figures=FIGURES, opened=opened)
