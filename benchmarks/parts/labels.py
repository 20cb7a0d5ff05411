"""Many label sets, each a queue: what a worker of 50 of 1,000, and a worker of all 1,000, pay; and a set never seen."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from statistics import median

from benchmarks import ours
from benchmarks.bench import Bench, Measure, Part
from benchmarks.figures import By, Figure, Measured, Pair
from benchmarks.machine import server, until
from dispatcher import Dispatcher, LocalEnvironment

BASE = "a worker of one queue"
FIGURES = (
    Figure(name="1,000 label sets, 50 per worker: start, p50", unit="ms", bound=1.2, base=BASE, digits=2),
    Figure(name="1,000 label sets, one worker: start, p50", unit="ms", bound=4.0, base=BASE, digits=2),
    Figure(name="a label set never seen: start", unit="ms", bound=2000, by=By.OURS, base=""),
)

_SETS = 1000
_MINE = 50
_SLICE = 5


@contextmanager
def opened(bench: Bench) -> Iterator[Measure]:
    """Three workers on one server that knows 1,000 queues: of no label, of 50, of all 1,000."""
    names = [f"l{number:04}" for number in range(_SETS)]
    some, others = names[:_MINE], names[_MINE:]
    with ExitStack() as stack:
        socket = stack.enter_context(server())
        client = stack.enter_context(ours.client(socket))
        bench.say("starting three workers")
        stack.enter_context(ours.worker(socket))
        stack.enter_context(ours.worker(socket, labels=some))
        stack.enter_context(ours.worker(socket, labels=["x", *others]))
        bench.say("1,000 label sets")
        runs = [client.submit(ours.noop, environment=LocalEnvironment(labels=[name])) for name in names]
        client.wait(runs, timeout=ours.WITHIN)
        until(lambda: _joined(client), "the workers' queues", timeout=120)
        fresh = itertools.combinations(others, 2)

        def measure(number: int) -> Measured:
            kinds: dict[str, list[list[str]]] = {
                "one": [[]],
                "some": [[name] for name in some],
                "all": [[name] for name in others],
            }
            times: dict[str, list[float]] = {name: [] for name in kinds}
            for turn in range(bench.count(20)):
                for name in list(kinds)[:: 1 if (turn + number) % 2 == 0 else -1]:
                    sets = kinds[name]
                    for place in range(_SLICE):
                        environment = LocalEnvironment(labels=sets[(turn * _SLICE + place) * 7 % len(sets)])
                        times[name].append(ours.idle(client, 1, environment)[0].start * 1000)
            for name, found in times.items():
                bench.keep(f"label sets: {name} (ms)", found)
            unseen = [_first(client, next(fresh)) for _ in range(3)]
            one = median(times["one"])
            values = (Pair(median(times["some"]), one), Pair(median(times["all"]), one), Pair(max(unseen)))
            return {figure.name: value for figure, value in zip(FIGURES, values, strict=True)}

        yield measure


def _joined(client: Dispatcher) -> bool:
    """Whether the workers present themselves with all queues that they are to consume."""
    counts = sorted(len(worker.queues) for worker in client.workers())
    return counts[-2:] >= [_MINE, _SETS - _MINE]


def _first(client: Dispatcher, labels: tuple[str, str]) -> float:
    time.sleep(0.1)
    return ours.idle(client, 1, LocalEnvironment(labels=labels))[0].start * 1000


PART = Part(name="labels", figures=FIGURES, opened=opened)
