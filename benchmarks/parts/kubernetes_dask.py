"""The time from a submit to the first task on two Dask workers, beside ``KubeCluster`` by hand in a pod."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from typing import Any

from benchmarks import cluster, ours
from benchmarks.bench import Benchmark, Measure, Part
from benchmarks.dask_operator import ByHand, TimedOut, by_hand
from benchmarks.figures import Figure, Measured, Pair
from benchmarks.machine import until
from dispatcher import DaskKubernetesEnvironment, Dispatcher, flow, task

FIGURES = (
    Figure(
        name="Dask on Kubernetes: submit to the first task, two workers",
        unit="s",
        bound=1.0,
        base="KubeCluster by hand in a pod",
        digits=1,
    ),
)

WORKERS = 2
TRIES = 10
SMALL = {"requests": {"cpu": "10m", "memory": "64Mi"}}


@task
def now() -> float:
    """Return the time."""
    return time.time()


@flow
def first_task() -> list[float]:
    """Return the times of the flow's first line and of its first task."""
    line = time.time()
    return [line, now.submit().result()]


@contextmanager
def opened(bench: Benchmark) -> Iterator[Measure]:
    """Prepare the image in the cluster, a namespace with the Dask operator, a server and our worker."""
    bench.say("building and loading the image")
    image = cluster.dask_image()
    timeouts: list[str] = []
    steps: dict[str, list[Mapping[str, float]]] = {"ours": [], "by hand": []}
    with cluster.namespace() as name, by_hand(name, image, SMALL) as hand, cluster.server() as url:
        environ = cluster.worker_variables(name, DISPATCHER__KUBERNETES__IMAGE=image)
        with (
            ours.worker(url, log=cluster.log(), environ=environ, backends=["dask-kubernetes"], concurrency=2),
            ours.client(url) as client,
        ):
            sides: dict[str, Callable[[], Mapping[str, float]]] = {
                "ours": lambda: _ours(client),
                "by hand": lambda: _by_hand(hand, timeouts),
            }
            for measure_once in sides.values():
                measure_once()  # warms up

            def measure(number: int) -> Measured:
                totals = {}
                for side in list(sides)[:: 1 if number % 2 == 0 else -1]:
                    bench.say(side)
                    steps[side].append(sides[side]())
                    totals[side] = sum(steps[side][-1].values())
                return {FIGURES[0].name: Pair(totals["ours"], totals["by hand"])}

            yield measure
    for side, measurements in steps.items():
        if measurements:
            bench.notes[f"first task on two Dask workers, {side}"] = {
                step: round(median(measured[step] for measured in measurements) * 1000) for step in measurements[0]
            }
    bench.notes["KubeClusters that were not ready in time and repeated"] = len(timeouts)


def _ours(client: Dispatcher) -> Mapping[str, float]:
    """Run our flow; return the seconds of each step."""
    environment = DaskKubernetesEnvironment(
        min_workers=WORKERS, max_workers=WORKERS, resources=SMALL, worker_resources=SMALL
    )
    begin = time.time()
    run = client.submit(first_task, environment=environment)
    line, computed = run.result(timeout=180)
    events: dict[str, float] = {}
    for event in run.events():
        events.setdefault(str(event.kind), event.time)
    until(lambda: not client.records.runs.get(run.id)[0].leftovers, "the teardown", timeout=120)
    return {
        "until the Job is created": events["pending"] - begin,
        "until the runner has claimed": events["started"] - events["pending"],
        "until both workers are there": line - events["started"],
        "until the first task runs": computed - line,
    }


def _by_hand(hand: ByHand, timeouts: list[str]) -> Mapping[str, float]:
    """Make a cluster by hand, again if it isn't ready in time; return the seconds of each step of the last."""
    for _ in range(TRIES):
        begin = time.time()
        try:
            times: Mapping[str, Any] = hand.first_task(workers=WORKERS)
        except TimedOut as error:
            timeouts.append(str(error))
            continue
        return {
            "until the pod's process begins": times["process"] - begin,
            "until the scheduler is there": times["scheduler"] - times["process"],
            "until both workers are there": times["workers"] - times["scheduler"],
            "until the first task runs": times["task"] - times["workers"],
        }
    raise TimedOut(f"{TRIES} times in a row: {timeouts[-1]}")


PART = Part(
    name="kubernetes-dask", figures=FIGURES, opened=opened, lacks=lambda: cluster.missing(images=True, builds=True)
)
