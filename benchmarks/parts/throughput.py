"""Many runs by one call of ours, against a loop of bare Celery's: the rate at which they complete, and what they cost.

Also the rate of submits beside the worker that runs them, which client, server and worker reach together on the cores
there are. :mod:`benchmarks.parts.accepting` measures a client alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from benchmarks.bench import Benchmark, Measure, Part, turns
from benchmarks.figures import Figure, Measured, Pair
from benchmarks.machine import processor_time, server
from benchmarks.side import Side, both

FIGURES = (
    Figure(name="completed by map, against a loop", unit="runs/s", more_is_better=True, digits=0),
    Figure(name="submit, beside a busy worker", unit="runs/s", more_is_better=True, digits=0),
    Figure(name="map, beside a busy worker", unit="runs/s", bound=5.0, more_is_better=True, digits=0),
    Figure(name="processor time of the worker per run", unit="ms", digits=2),
    Figure(name="processor time of the client per run", unit="ms", digits=2),
)


@contextmanager
def opened(bench: Benchmark) -> Iterator[Measure]:
    """Start both workers on one server."""
    with server() as socket, both(socket) as (mine, theirs):

        def measure(number: int) -> Measured:
            costs: dict[str, tuple[float, float]] = {}

            def completed(side: Side) -> float:
                count = bench.count(2000)
                before = processor_time(side.pid), sum(os.times()[:2])
                rate = side.completed(count)
                after = processor_time(side.pid), sum(os.times()[:2])
                worker, client = ((late - early) / count * 1000 for early, late in zip(before, after, strict=True))
                costs[side.name] = worker, client
                return rate

            steps = (
                ("completed by map, against a loop", completed),
                ("submit, beside a busy worker", lambda side: side.submitted(bench.count(2000))),
                ("map, beside a busy worker", lambda side: side.mapped(bench.count(5000))),
            )
            pairs = {}
            for name, step in steps:
                bench.say(name)
                both_sides = turns(number, {"ours": partial(step, mine), "base": partial(step, theirs)})
                pairs[name] = Pair(**both_sides)
            for index, name in enumerate(("worker", "client")):
                pair = Pair(costs[mine.name][index], costs[theirs.name][index])
                pairs[f"processor time of the {name} per run"] = pair
            return pairs

        yield measure


PART = Part(name="throughput", figures=FIGURES, opened=opened)
