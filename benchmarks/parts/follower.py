"""Log lines: how many reach a follower per second, and how much a flow that logs is slowed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median

from benchmarks import ours
from benchmarks.bench import Bench, Measure, Part, turns
from benchmarks.figures import By, Figure, Measured, Pair
from benchmarks.machine import server
from dispatcher import Dispatcher, flow

FIGURES = (
    Figure(name="log lines to a follower", unit="lines/s", bound=20_000, more_is_better=True, by=By.OURS, base=""),
    Figure(name="a flow that logs 1,000 lines/s", unit="ms", bound=1.05, base="the same flow, silent", digits=0),
)


@flow
def talks(lines: int) -> float:
    """Prints, at once; how long that took."""
    begin = time.perf_counter()
    for number in range(lines):
        print(f"line {number} of a flow that has much to say")  # noqa: T201
    return time.perf_counter() - begin


@flow
def works(seconds: float, talking: bool) -> float:
    """Does a fixed amount of work in steps of about a millisecond, and may print a line in each; how long it took."""
    steps = round(seconds * 1000)
    begin = time.perf_counter()
    for number in range(steps):
        sum(range(28_000))
        if talking:
            print(f"line {number} of a flow that does something")  # noqa: T201
    return time.perf_counter() - begin


@contextmanager
def opened(bench: Bench) -> Iterator[Measure]:
    """Our worker."""
    with server() as socket, ours.worker(socket), ours.client(socket) as client:
        lines = bench.count(40_000)

        def work(talking: bool) -> float:
            parameters = {"seconds": 1.0, "talking": talking}
            return client.submit(works, parameters, environment=ours.HERE).result(timeout=ours.WITHIN)

        def measure(number: int) -> Measured:
            bench.say("lines to a follower")
            rate = _followed(client, lines)
            bench.say("a flow that logs")
            pairs = [
                turns(turn, {"ours": partial(work, True), "base": partial(work, False)})
                for turn in range(bench.count(6))
            ]
            best = {side: median(pair[side] for pair in pairs) * 1000 for side in ("ours", "base")}
            return {FIGURES[0].name: Pair(rate), FIGURES[1].name: Pair(**best)}

        yield measure


def _followed(client: Dispatcher, lines: int) -> float:
    run = client.submit(talks, {"lines": lines}, environment=ours.HERE)
    begin, seen = 0.0, 0
    for line in run.logs(follow=True):
        begin = begin or time.perf_counter()
        seen += 1
        if line.stream == "gap":
            raise RuntimeError(f"after {seen} lines: {line.text}")
        if seen == lines:
            break
    return seen / (time.perf_counter() - begin)


PART = Part(name="follower", figures=FIGURES, opened=opened)
