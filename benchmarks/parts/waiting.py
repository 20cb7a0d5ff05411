"""100,000 runs waiting: whether a submit and a claim take longer than on an empty queue."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import ours
from benchmarks.bench import Bench, Measure, Part
from benchmarks.figures import Figure, Measured, Pair
from benchmarks.machine import redis, server
from dispatcher import Dispatcher, LocalEnvironment
from dispatcher.runs import transitions

BASE = "an empty queue"
FIGURES = (
    Figure(name="100,000 waiting: submit", unit="ms", bound=1.1, base=BASE, digits=3),
    Figure(name="100,000 waiting: claim", unit="ms", bound=1.1, base=BASE, digits=3),
)

_EACH = 20  # submits, then as many claims, before it is the other server's turn
_HERE = LocalEnvironment(labels=["crowd"])
_PORTION = 5000


@dataclass
class _Place:
    """A server with runs waiting in one queue."""

    client: Dispatcher
    server: Any
    list_key: str

    def submit(self) -> float:
        begin = time.perf_counter()
        self.client.submit(ours.noop, environment=_HERE)
        return (time.perf_counter() - begin) * 1000

    def claim(self) -> float:
        """Take a message as kombu does, read the run, and write that it has begun; the run is then ended, untimed."""
        runs = self.client.records.runs
        begin = time.perf_counter()
        _, message = self.server.brpop(self.list_key, 10)
        run_id = json.loads(message)["headers"]["id"].partition("-")[0]
        record, now = runs.get(run_id)
        step = partial(transitions.start_here, owner="bench", holder=f"bench:1:{run_id}")
        record = runs.update(run_id, step, record=record, now=now)
        seconds = time.perf_counter() - begin
        runs.update(run_id, partial(transitions.finish, epoch=record.epoch))
        return seconds * 1000


def _place(stack: ExitStack) -> _Place:
    """With a worker that takes none of the runs: its reconciler watches over them, as it does everywhere."""
    socket: Path = stack.enter_context(server())
    client = stack.enter_context(ours.client(socket))
    stack.enter_context(ours.worker(socket, labels=["elsewhere"]))
    return _Place(client, stack.enter_context(redis(socket)), f"{client.records.instance}:local:crowd")


@contextmanager
def opened(bench: Bench) -> Iterator[Measure]:
    """Two servers, one of them filled in steps; what each step costs goes into the plot."""
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nobody serves the runs, and the client says so
        empty, full = (_place(stack) for _ in range(2))
        depth = 0
        for level in (0, 100, 1000, 10_000, 30_000, bench.count(100_000)):
            while depth < level:
                portion = min(_PORTION, level - depth)
                bench.say(f"{depth:,} runs wait")
                full.client.map(ours.noop, [{}] * portion, environment=_HERE)
                depth += portion
            submits, claims = _round(full, 5)
            bench.keep("depth", [depth])
            bench.keep("submit at depth (ms)", [median(submits)])
            bench.keep("claim at depth (ms)", [median(claims)])

        def measure(number: int) -> Measured:
            times: dict[str, list[float]] = {"full s": [], "full c": [], "empty s": [], "empty c": []}
            for turn in range(bench.count(10)):
                places = [("full", full), ("empty", empty)]
                for name, place in places if (turn + number) % 2 == 0 else reversed(places):
                    submits, claims = _round(place, 1)
                    times[f"{name} s"] += submits
                    times[f"{name} c"] += claims
            return {
                figure.name: Pair(median(times[f"full {what}"]), median(times[f"empty {what}"]))
                for figure, what in zip(FIGURES, "sc", strict=True)
            }

        yield measure


def _round(place: _Place, turns: int) -> tuple[list[float], list[float]]:
    submits: list[float] = []
    claims: list[float] = []
    for _ in range(turns):
        submits += [place.submit() for _ in range(_EACH)]
        claims += [place.claim() for _ in range(_EACH)]
    return submits, claims


PART = Part(name="waiting", figures=FIGURES, opened=opened)
