"""The latency of one run at a time while nothing else runs: until the user's code begins, and until its result is in
the client."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median, quantiles

from benchmarks.bench import Benchmark, Measure, Part
from benchmarks.figures import Figure, Measured, Pair
from benchmarks.machine import server
from benchmarks.side import both

FIGURES = (
    Figure(name="idle: start, p50", unit="ms", bound=1.3, digits=2),
    Figure(name="idle: start, p95", unit="ms", bound=1.3, digits=2),
    Figure(name="idle: result, p50", unit="ms", bound=1.0, digits=2),
    Figure(name="idle: result, p95", unit="ms", bound=1.0, digits=2),
)

_SLICE = 10  # requests of one side before it is the other's turn


@contextmanager
def opened(bench: Benchmark) -> Iterator[Measure]:
    """Start both workers on one server."""
    with server() as socket, both(socket) as sides:

        def measure(number: int) -> Measured:
            times: dict[str, list[float]] = {}
            for turn in range(bench.count(200) // _SLICE or 1):
                for side in sides if (turn + number) % 2 == 0 else reversed(sides):
                    for latency in side.idle(_SLICE):
                        times.setdefault(f"start, {side.name}", []).append(latency.start * 1000)
                        times.setdefault(f"result, {side.name}", []).append(latency.result * 1000)
            for name, durations in times.items():
                bench.keep(f"{name} (ms)", durations)
            mine, theirs = (side.name for side in sides)
            return {
                f"idle: {event}, {point}": Pair(of(times[f"{event}, {mine}"]), of(times[f"{event}, {theirs}"]))
                for event in ("start", "result")
                for point, of in (("p50", median), ("p95", _p95))
            }

        yield measure


def _p95(values: list[float]) -> float:
    return quantiles(values, n=20)[-1]


PART = Part(name="latency", figures=FIGURES, opened=opened)
