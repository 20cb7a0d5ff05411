"""Log lines: their rate to a follower, and the slowdown of a flow that logs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from benchmarks import ours
from benchmarks.bench import Benchmark, Measure, Part, turns
from benchmarks.figures import Comparison, Figure, Measured, Pair
from benchmarks.machine import server
from dispatcher import Dispatcher, Run, flow

FIGURES = (
    Figure(
        name="log lines to a follower", unit="lines/s", bound=20_000, more_is_better=True, by=Comparison.OURS, base=""
    ),
    Figure(name="a flow that logs 1,000 lines/s", unit="ms", bound=1.05, base="the same flow, silent", digits=0),
)

_PER_SECOND = 1000


@flow
def talks(lines: int) -> None:
    """Print many lines at once."""
    for number in range(lines):
        print(f"line {number} of a flow that has much to say")  # noqa: T201


@flow
def step(seconds: float) -> int:
    """Return the ``n`` for which ``sum(range(n))`` takes so many seconds on this machine, by the best of many tries."""
    best, size = float("inf"), 10_000
    for _ in range(200):
        begin = time.perf_counter()
        sum(range(size))
        best = min(best, time.perf_counter() - begin)
    return round(size * seconds / best)


@flow
def works(steps: int, size: int, talking: bool) -> float:
    """Do a fixed amount of work in steps, and print a line after each if ``talking``; return the seconds."""
    begin = time.perf_counter()
    for number in range(steps):
        sum(range(size))
        if talking:
            print(f"line {number} of a flow that does something")  # noqa: T201
    return time.perf_counter() - begin


@contextmanager
def opened(bench: Benchmark) -> Iterator[Measure]:
    """Start our worker, and measure the machine's speed."""
    with server() as socket, ours.worker(socket), ours.client(socket) as client:
        lines = bench.count(40_000)  # fewer than a runner buffers
        size = client.submit(step, {"seconds": 1 / _PER_SECOND}, environment=ours.HERE).result(timeout=ours.TIMEOUT)

        def measure(number: int) -> Measured:
            bench.say("lines to a follower")
            rate = _lines_per_second(client, lines)
            bench.say("a flow that logs")
            pairs = [
                turns(
                    turn,
                    {"ours": partial(_seconds, client, size, True), "base": partial(_seconds, client, size, False)},
                )
                for turn in range(4)
            ]
            # The best of each, because other load on this machine only makes a flow slower.
            both = {side: min(pair[side] for pair in pairs) * 1000 for side in ("ours", "base")}
            return {FIGURES[0].name: Pair(rate), FIGURES[1].name: Pair(**both)}

        yield measure


def _lines_per_second(client: Dispatcher, lines: int) -> float:
    """Return the rate from the time at which the flow printed the first line until the last one has arrived."""
    run = client.submit(talks, {"lines": lines}, environment=ours.HERE)
    begin, received = 0.0, 0
    for line in run.logs(follow=True):
        begin = begin or line.time
        received += 1
        if line.stream == "gap":
            raise RuntimeError(f"after {received} lines: {line.text}")
        if received == lines:
            break
    return received / (time.time() - begin)


def _seconds(client: Dispatcher, size: int, talking: bool) -> float:
    """Return the seconds of a flow that works for about two seconds while its log is followed."""
    parameters = {"steps": 2 * _PER_SECOND, "size": size, "talking": talking}
    run: Run[Any] = client.submit(works, parameters, environment=ours.HERE)
    follower = threading.Thread(target=lambda: [None for _ in run.logs(follow=True)])
    follower.start()
    seconds: float = run.result(timeout=ours.TIMEOUT)
    follower.join()
    return seconds


PART = Part(name="follower", figures=FIGURES, opened=opened)
