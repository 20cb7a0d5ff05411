"""Submits of one client per second, which show the cost for client and server. No worker takes the runs.

:mod:`benchmarks.parts.throughput` measures the same beside a worker that runs them.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from benchmarks import bare, ours
from benchmarks.bench import Benchmark, Measure, Part, turns
from benchmarks.figures import Figure, Measured, Pair
from benchmarks.machine import server

FIGURES = (
    Figure(name="submit, one client", unit="runs/s", bound=1.5, more_is_better=True, digits=0),
    Figure(name="map, one client", unit="runs/s", bound=5.0, more_is_better=True, digits=0),
)

_WARM_UP = 50  # submits before the measurement


@contextmanager
def opened(bench: Benchmark) -> Iterator[Measure]:
    """Yield the measurement, which starts a new, empty server for each value."""

    def measure(number: int) -> Measured:
        bench.say("submits")
        submits = turns(
            number, {"ours": partial(_submit_rate, bench.count(2000)), "base": partial(_bare_rate, bench.count(2000))}
        )
        bench.say("maps")
        maps = turns(
            number, {"ours": partial(_map_rate, bench.count(5000)), "base": partial(_bare_rate, bench.count(5000))}
        )
        return {FIGURES[0].name: Pair(**submits), FIGURES[1].name: Pair(**maps)}

    yield measure


def _submit_rate(count: int) -> float:
    with server() as socket, ours.client(socket) as client:
        return _rate(lambda: client.submit(ours.noop, environment=ours.HERE), count)


def _bare_rate(count: int) -> float:
    with server() as socket:
        noop = bare.application(str(socket)).tasks["bare.noop"]
        results: list[object] = []  # kept, as by a program that reads the results later
        rate = _rate(lambda: results.append(noop.apply_async()), count)
        results.clear()  # before the server stops, because each result unsubscribes
        return rate


def _map_rate(count: int) -> float:
    with server() as socket, ours.client(socket) as client, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the client warns that no worker serves the runs
        client.map(ours.noop, [{}] * _WARM_UP, environment=ours.HERE)
        begin = time.perf_counter()
        client.map(ours.noop, [{}] * count, environment=ours.HERE)
        return count / (time.perf_counter() - begin)


def _rate(submit: Callable[[], object], count: int) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(_WARM_UP):
            submit()
        begin = time.perf_counter()
        for _ in range(count):
            submit()
        return count / (time.perf_counter() - begin)


PART = Part(name="accepting", figures=FIGURES, opened=opened)
