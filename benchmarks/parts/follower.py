"""Log lines: how many reach a follower per second, and how much a flow that logs is slowed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from benchmarks import ours
from benchmarks.bench import Bench, Measure, Part, turns
from benchmarks.figures import By, Figure, Measured, Pair
from benchmarks.machine import server
from dispatcher import Dispatcher, Run, flow

FIGURES = (
    Figure(name="log lines to a follower", unit="lines/s", bound=20_000, more_is_better=True, by=By.OURS, base=""),
    Figure(name="a flow that logs 1,000 lines/s", unit="ms", bound=1.05, base="the same flow, silent", digits=0),
)

_PER_SECOND = 1000


@flow
def talks(lines: int) -> None:
    """Prints, at once."""
    for number in range(lines):
        print(f"line {number} of a flow that has much to say")  # noqa: T201


@flow
def step(seconds: float) -> int:
    """How far ``sum(range(n))`` gets in so many seconds on this machine, at its best of several tries."""
    best, size = float("inf"), 10_000
    for _ in range(200):
        begin = time.perf_counter()
        sum(range(size))
        best = min(best, time.perf_counter() - begin)
    return round(size * seconds / best)


@flow
def works(steps: int, size: int, talking: bool) -> float:
    """Does a fixed amount of work in steps, and may print a line after each; how long it took."""
    begin = time.perf_counter()
    for number in range(steps):
        sum(range(size))
        if talking:
            print(f"line {number} of a flow that does something")  # noqa: T201
    return time.perf_counter() - begin


@contextmanager
def opened(bench: Bench) -> Iterator[Measure]:
    """Our worker."""
    with server() as socket, ours.worker(socket), ours.client(socket) as client:
        lines = bench.count(40_000)  # within what a flow may be ahead of the server
        size = client.submit(step, {"seconds": 1 / _PER_SECOND}, environment=ours.HERE).result(timeout=ours.WITHIN)

        def measure(number: int) -> Measured:
            bench.say("lines to a follower")
            rate = _followed(client, lines)
            bench.say("a flow that logs")
            pairs = [
                turns(
                    turn, {"ours": partial(_worked, client, size, True), "base": partial(_worked, client, size, False)}
                )
                for turn in range(4)
            ]
            # The best of each: whatever else goes on, on this machine, makes a flow slower and never quicker.
            both = {side: min(pair[side] for pair in pairs) * 1000 for side in ("ours", "base")}
            return {FIGURES[0].name: Pair(rate), FIGURES[1].name: Pair(**both)}

        yield measure


def _followed(client: Dispatcher, lines: int) -> float:
    """Lines per second, from when the flow printed the first to when the last is here."""
    run = client.submit(talks, {"lines": lines}, environment=ours.HERE)
    begin, seen = 0.0, 0
    for line in run.logs(follow=True):
        begin = begin or line.time
        seen += 1
        if line.stream == "gap":
            raise RuntimeError(f"after {seen} lines: {line.text}")
        if seen == lines:
            break
    return seen / (time.time() - begin)


def _worked(client: Dispatcher, size: int, talking: bool) -> float:
    """Seconds of a flow that works for two seconds, followed while it does."""
    parameters = {"steps": 2 * _PER_SECOND, "size": size, "talking": talking}
    run: Run[Any] = client.submit(works, parameters, environment=ours.HERE)
    follower = threading.Thread(target=lambda: [None for _ in run.logs(follow=True)])
    follower.start()
    seconds: float = run.result(timeout=ours.WITHIN)
    follower.join()
    return seconds


PART = Part(name="follower", figures=FIGURES, opened=opened)
