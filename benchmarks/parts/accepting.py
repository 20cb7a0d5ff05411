"""How many runs one client has accepted per second: what a submit costs client and server. Nobody takes the runs.

:mod:`benchmarks.parts.throughput` measures the same beside a worker that runs them.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from benchmarks import bare, ours
from benchmarks.bench import Bench, Measure, Part, turns
from benchmarks.figures import Figure, Measured, Pair
from benchmarks.machine import server

FIGURES = (
    Figure(name="submit, one client", unit="runs/s", bound=1.5, more_is_better=True, digits=0),
    Figure(name="map, one client", unit="runs/s", bound=5.0, more_is_better=True, digits=0),
)

_WARM = 50


@contextmanager
def opened(bench: Bench) -> Iterator[Measure]:
    """A new server for each measurement, so that each begins with an empty one."""

    def measure(number: int) -> Measured:
        bench.say("submits")
        submits = {"ours": partial(_ours, bench.count(2000)), "base": partial(_bare, bench.count(2000))}
        one = turns(number, submits)
        bench.say("maps")
        many = turns(number, {"ours": partial(_mapped, bench.count(5000)), "base": partial(_bare, bench.count(5000))})
        return {FIGURES[0].name: Pair(**one), FIGURES[1].name: Pair(**many)}

    yield measure


def _ours(count: int) -> float:
    with server() as socket, ours.client(socket) as client:
        return _rate(lambda: client.submit(ours.noop, environment=ours.HERE), count)


def _bare(count: int) -> float:
    with server() as socket:
        noop = bare.application(str(socket)).tasks["bare.noop"]
        kept: list[object] = []  # as a program does that wants the results
        rate = _rate(lambda: kept.append(noop.apply_async()), count)
        kept.clear()  # while there is a server to tell
        return rate


def _mapped(count: int) -> float:
    with server() as socket, ours.client(socket) as client, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nobody serves the runs, and the client says so
        client.map(ours.noop, [{}] * _WARM, environment=ours.HERE)
        begin = time.perf_counter()
        client.map(ours.noop, [{}] * count, environment=ours.HERE)
        return count / (time.perf_counter() - begin)


def _rate(submit: Callable[[], object], count: int) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(_WARM):
            submit()
        begin = time.perf_counter()
        for _ in range(count):
            submit()
        return count / (time.perf_counter() - begin)


PART = Part(name="accepting", figures=FIGURES, opened=opened)
