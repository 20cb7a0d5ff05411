"""Many label sets, each a queue: workers with 50 of 1,000 each, a worker with all 1,000, and a new label set.

Each of twenty workers sleeps longer between two runs than a single one, and finds the processor's caches filled by
others. So workers of many queues are compared with as many workers of one queue, and that difference is a row of its
own.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from statistics import median

from benchmarks import ours
from benchmarks.bench import Benchmark, Measure, Part
from benchmarks.figures import Comparison, Figure, Measured, Pair
from benchmarks.machine import server, until
from dispatcher import Dispatcher, LocalEnvironment

BASE = "a worker of one queue"
FIGURES = (
    Figure(
        name="1,000 label sets, 50 per worker: start, p50",
        unit="ms",
        bound=1.2,
        base="as many workers of one queue",
        digits=2,
    ),
    Figure(name="one queue, 20 workers: start, p50", unit="ms", base=BASE, digits=2),
    Figure(name="1,000 label sets, one worker: start, p50", unit="ms", bound=4.0, base=BASE, digits=2),
    Figure(name="a label set never seen: start", unit="ms", bound=2000, by=Comparison.OURS, base=""),
)

_SETS = 1000
_EACH = 50
_SLICE = 5


@contextmanager
def opened(bench: Benchmark) -> Iterator[Measure]:
    """Start four servers: a worker of one queue, 20 workers of one, 20 of 50 queues each, a worker of 1,000 queues."""
    names = [f"l{number:04}" for number in range(_SETS if not bench.quick else _SETS // 10)]
    groups = [names[start : start + _EACH] for start in range(0, len(names), _EACH)]
    with ExitStack() as stack:
        bench.say("starting the workers")
        sets: dict[str, list[list[str]]] = {
            "one": [[]],
            "twenty": [[]],
            "some": [[name] for name in names],
            "all": [[name] for name in names],
        }
        workers: dict[str, list[Sequence[str]]] = {
            "one": [()],
            "twenty": [()] * len(groups),
            "some": [*groups],
            "all": [names],
        }
        clients = {kind: _start_workers(stack, bench, of, sets[kind]) for kind, of in workers.items()}
        fresh = itertools.combinations(names, 2)

        def measure(number: int) -> Measured:
            times: dict[str, list[float]] = {kind: [] for kind in clients}
            for turn in range(bench.count(20)):
                for kind in list(clients)[:: 1 if (turn + number) % 2 == 0 else -1]:
                    for place in range(_SLICE):
                        labels = sets[kind][(turn * _SLICE + place) * 7 % len(sets[kind])]
                        times[kind].append(_time_to_start(clients[kind], labels))
            for kind, durations in times.items():
                bench.keep(f"label sets: {kind} (ms)", durations)
            new_sets = [_time_to_first_start(clients["all"], next(fresh)) for _ in range(3)]
            single = median(times["one"])
            values = (
                Pair(median(times["some"]), median(times["twenty"])),
                Pair(median(times["twenty"]), single),
                Pair(median(times["all"]), single),
                Pair(max(new_sets)),
            )
            return {figure.name: value for figure, value in zip(FIGURES, values, strict=True)}

        yield measure


def _start_workers(
    stack: ExitStack, bench: Benchmark, workers: Sequence[Sequence[str]], sets: Sequence[Sequence[str]]
) -> Dispatcher:
    """Start a server and workers, use each label set once, and return a client."""
    socket = stack.enter_context(server())
    client = stack.enter_context(ours.client(socket))
    for labels in workers:
        stack.enter_context(ours.worker(socket, labels=list(labels), concurrency=1))
        bench.say(f"{len(client.workers())} of {len(workers)} workers, {len(sets)} label sets")
    runs = [client.submit(ours.noop, environment=LocalEnvironment(labels=labels)) for labels in sets]
    client.wait(runs, timeout=ours.TIMEOUT)
    each = len(sets) // len(workers)
    until(
        lambda: all(len(worker.queues) >= each for worker in client.workers()),
        "the workers' queues",
        timeout=120,
    )
    return client


def _time_to_start(client: Dispatcher, labels: Sequence[str]) -> float:
    """Return the milliseconds from submit to start."""
    return ours.idle(client, 1, LocalEnvironment(labels=list(labels)))[0].start * 1000


def _time_to_first_start(client: Dispatcher, labels: Sequence[str]) -> float:
    time.sleep(0.1)
    return _time_to_start(client, labels)


PART = Part(name="labels", figures=FIGURES, opened=opened)
