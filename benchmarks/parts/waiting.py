"""The time of a submit and of a claim while 100,000 runs wait, compared with an empty queue."""

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
from benchmarks.bench import Benchmark, Measure, Part
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
class _WaitingQueue:
    """A server with runs waiting in one queue."""

    client: Dispatcher
    server: Any
    list_key: str

    def submit(self) -> float:
        begin = time.perf_counter()
        self.client.submit(ours.noop, environment=_HERE)
        return (time.perf_counter() - begin) * 1000

    def claim(self) -> float:
        """Take a message as kombu does, read the run, and claim it; then end the run, which isn't timed."""
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


def _open_queue(stack: ExitStack) -> _WaitingQueue:
    """Start a server, and a worker that takes none of the runs but whose reconciler sweeps them, as in production."""
    socket: Path = stack.enter_context(server())
    client = stack.enter_context(ours.client(socket))
    stack.enter_context(ours.worker(socket, labels=["elsewhere"]))
    return _WaitingQueue(client, stack.enter_context(redis(socket)), f"{client.records.instance}:local:crowd")


@contextmanager
def opened(bench: Benchmark) -> Iterator[Measure]:
    """Start two servers, and fill one of them in steps, each of which is measured for the plot."""
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the client warns that no worker serves the runs
        empty, full = (_open_queue(stack) for _ in range(2))
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
                queues = [("full", full), ("empty", empty)]
                for name, queue in queues if (turn + number) % 2 == 0 else reversed(queues):
                    submits, claims = _round(queue, 1)
                    times[f"{name} s"] += submits
                    times[f"{name} c"] += claims
            return {
                figure.name: Pair(median(times[f"full {step}"]), median(times[f"empty {step}"]))
                for figure, step in zip(FIGURES, "sc", strict=True)
            }

        yield measure


def _round(queue: _WaitingQueue, turns: int) -> tuple[list[float], list[float]]:
    submits: list[float] = []
    claims: list[float] = []
    for _ in range(turns):
        submits += [queue.submit() for _ in range(_EACH)]
        claims += [queue.claim() for _ in range(_EACH)]
    return submits, claims


PART = Part(name="waiting", figures=FIGURES, opened=opened)
