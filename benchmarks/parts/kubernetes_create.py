"""From a submit to a Job with its Secret, beside the same two calls of a bare client. No pod is ever scheduled."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

from benchmarks import cluster, ours
from benchmarks.bench import Bench, Measure, Part, turns
from benchmarks.cluster import JOBS, SECRETS, Access, Bare, Json
from benchmarks.cores import apart
from benchmarks.figures import By, Figure, Measured, Pair
from benchmarks.machine import processor_time, until
from dispatcher import Dispatcher, KubernetesJobEnvironment, Run
from dispatcher.runs.events import EventKind

AT_ONCE = 2  #: pool processes of our worker, threads of the bare client

FIGURES = (
    Figure(
        name="Kubernetes: submit to Job and Secret, p50",
        unit="ms",
        bound=15,
        by=By.DIFFERENCE,
        base="the same two calls, bare",
    ),
    Figure(
        name="Kubernetes: provisioned",
        unit="runs/s",
        bound=0.8,
        more_is_better=True,
        base="the same two calls, bare, by two threads; the cluster has all cores but one, either side that one",
        digits=0,
    ),
    Figure(
        name="Kubernetes: provisioned, on shared cores",
        unit="runs/s",
        more_is_better=True,
        base="the same two calls, bare, by two threads",
        digits=0,
    ),
    Figure(name="Kubernetes: worker's processor time per run", unit="ms", by=By.OURS, base="", digits=1),
)

#: Nobody schedules its pod: what is measured ends with the two calls.
UNSCHEDULED: Json = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "spec": {
        "template": {
            "spec": {
                "schedulerName": "nobody",
                "restartPolicy": "Never",
                "containers": [{"name": "flow", "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}}}],
            }
        }
    },
}


@contextmanager
def opened(bench: Bench) -> Iterator[Measure]:
    """A namespace, a server, our worker, and a bare client that sends what ours sent."""
    with cluster.namespace() as name, cluster.server() as url, ours.client(url) as client:
        environ = cluster.offered(name)
        with ours.worker(
            url, log=cluster.log(), environ=environ, backends=["kubernetes"], concurrency=AT_ONCE
        ) as worker:
            sides = _Sides(client, name)
            sides.ours(5)  # warm
            sides.bare(5)
            sides.clear()

            def measure(number: int) -> Measured:
                bench.say("one at a time")
                few, many = bench.count(50), bench.count(1000)
                idle = turns(number, {"ours": lambda: sides.ours(few), "base": lambda: sides.bare(few)})
                sides.clear()
                both = {"ours": lambda: sides.many(many), "base": lambda: sides.many_bare(many)}
                bench.say("as quickly as it goes")
                with apart() as kept:
                    crowd = turns(number, both)
                bench.notes["the cluster was kept to cores of its own"] = kept
                sides.clear()
                bench.say("as quickly as it goes, on shared cores")
                before = processor_time(worker.pid)
                shared = turns(number, both)
                used = (processor_time(worker.pid) - before) / many * 1000
                sides.clear()
                pairs = (Pair(**idle), Pair(**crowd), Pair(**shared), Pair(used))
                return {figure.name: pair for figure, pair in zip(FIGURES, pairs, strict=True)}

            yield measure


class _Sides:
    """Both sides, in one namespace."""

    def __init__(self, client: Dispatcher, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self._access = Access.read()
        self._environment = KubernetesJobEnvironment(job_spec=UNSCHEDULED)
        self._made = 0
        self._runs: list[Run[Any]] = []
        self._sent: Json = {}

    def ours(self, count: int) -> float:
        """Milliseconds, p50, from a submit until the worker knows that both were created."""
        found = []
        for _ in range(count):
            begin = time.time()
            run = self._client.submit(ours.noop, environment=self._environment)
            until(lambda run=run: created(run), "a Job and its Secret")  # type: ignore[misc]
            found.append((created(run) or 0.0) - begin)
            self._runs.append(run)
        if not self._sent:
            self._sent = dict((self._client.records.runs.get(self._runs[0].id)[0].request or {})["body"]["job"])
        return median(found) * 1000

    def bare(self, count: int) -> float:
        """Milliseconds, p50, of the two calls; as much time between two of them as on our side."""
        client, found = Bare(self._access), []
        for job in self._jobs(count):
            begin = time.perf_counter()
            self._create(client, job)
            found.append(time.perf_counter() - begin)
            time.sleep(0.02)
        client.close()
        return median(found) * 1000

    def many(self, count: int) -> float:
        """Runs per second, from the submit of all until the last one's Job and Secret are created."""
        begin = time.time()
        runs = self._client.map(ours.noop, [{}] * count, environment=self._environment)
        self._runs += runs
        until(lambda: created(runs[-1]) and all(map(created, runs)), "all Jobs", timeout=300, every=0.2)
        return count / (max(created(run) or 0.0 for run in runs) - begin)

    def many_bare(self, count: int) -> float:
        """The same by threads, each with a connection of its own."""
        jobs = list(self._jobs(count))
        threads = [threading.Thread(target=self._create_all, args=(jobs[one::AT_ONCE],)) for one in range(AT_ONCE)]
        begin = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return count / (time.perf_counter() - begin)

    def clear(self) -> None:
        """Nothing is left of what was created."""
        for run in self._runs:
            run.cancel()
        self._client.wait(self._runs, timeout=ours.WITHIN)
        self._runs.clear()
        client = Bare(self._access)
        client.ask("DELETE", f"{JOBS.format(self._namespace)}?labelSelector=bare&propagationPolicy=Background")
        for path in (JOBS, SECRETS):
            place = f"{path.format(self._namespace)}?limit=1"
            until(lambda place=place: not client.ask("GET", place)["items"], "an end", timeout=300)  # type: ignore[misc]
        client.close()

    def _jobs(self, count: int) -> Iterator[Json]:
        """What our side sends, under names that nobody of ours listens to."""
        for _ in range(count):
            self._made += 1
            job = copy.deepcopy(self._sent)
            job["metadata"]["name"] = f"bare-{self._made}"
            for metadata in (job["metadata"], job["spec"]["template"]["metadata"]):
                metadata["labels"] = {"bare": "", "attempt": "1"}
            yield job

    def _create_all(self, jobs: Sequence[Json]) -> None:
        client = Bare(self._access)
        for job in jobs:
            self._create(client, job)
        client.close()

    def _create(self, client: Bare, job: Json) -> None:
        """The Job, then a Secret as long as ours that belongs to it."""
        metadata = client.ask("POST", JOBS.format(self._namespace), job)["metadata"]
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"]}
        secret = {
            "metadata": {"name": metadata["name"], "labels": {"bare": ""}, "ownerReferences": [owner]},
            "immutable": True,
            "stringData": {"variables.json": "x" * 250},
        }
        client.ask("POST", SECRETS.format(self._namespace), secret)


def created(run: Run[Any]) -> float | None:
    """When the worker knew that Job and Secret of a run were created."""
    return next((event.time for event in run.events() if event.kind is EventKind.PENDING), None)


PART = Part(name="kubernetes-create", figures=FIGURES, opened=opened, lacks=cluster.missing)
