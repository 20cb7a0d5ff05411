"""The time from a submit to a Job with its Secret, beside the same two calls of a bare client. No pod is scheduled."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

from benchmarks import cluster, ours
from benchmarks.bench import Benchmark, Measure, Part, turns
from benchmarks.cluster import JOBS, SECRETS, BareClient, ClusterAccess, Json
from benchmarks.cores import apart
from benchmarks.figures import Comparison, Figure, Measured, Pair
from benchmarks.machine import processor_time, until
from dispatcher import Dispatcher, KubernetesJobEnvironment, Run
from dispatcher.runs.events import EventKind

CONCURRENCY = 2  #: pool processes of our worker, threads of the bare client

FIGURES = (
    Figure(
        name="Kubernetes: submit to Job and Secret, p50",
        unit="ms",
        bound=15,
        by=Comparison.DIFFERENCE,
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
    Figure(name="Kubernetes: worker's processor time per run", unit="ms", by=Comparison.OURS, base="", digits=1),
)

#: A Job whose pod no scheduler takes, because the measurement ends with the two calls.
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
def opened(bench: Benchmark) -> Iterator[Measure]:
    """Prepare a namespace, a server, our worker, and a bare client that sends the same Jobs."""
    with cluster.namespace() as name, cluster.server() as url, ours.client(url) as client:
        environ = cluster.worker_variables(name)
        with ours.worker(
            url, log=cluster.log(), environ=environ, backends=["kubernetes"], concurrency=CONCURRENCY
        ) as worker:
            sides = _CreateCalls(client, name)
            sides.ours(5)  # warm up
            sides.bare(5)
            sides.clear()

            def measure(number: int) -> Measured:
                bench.say("one at a time")
                few, many = bench.count(50), bench.count(1000)
                idle = turns(number, {"ours": lambda: sides.ours(few), "base": lambda: sides.bare(few)})
                sides.clear()
                both = {"ours": lambda: sides.many(many), "base": lambda: sides.many_bare(many)}
                bench.say("as quickly as it goes")
                with apart() as separated:
                    crowd = turns(number, both)
                bench.notes["the cluster was kept to cores of its own"] = separated
                sides.clear()
                bench.say("as quickly as it goes, on shared cores")
                before = processor_time(worker.pid)
                shared = turns(number, both)
                used = (processor_time(worker.pid) - before) / many * 1000
                sides.clear()
                pairs = (Pair(**idle), Pair(**crowd), Pair(**shared), Pair(used))
                return {figure.name: pair for figure, pair in zip(FIGURES, pairs, strict=True)}

            yield measure


class _CreateCalls:
    """The calls of both sides, in one namespace."""

    def __init__(self, client: Dispatcher, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self._access = ClusterAccess.read()
        self._environment = KubernetesJobEnvironment(job_spec=UNSCHEDULED)
        self._made = 0
        self._runs: list[Run[Any]] = []
        self._sent: Json = {}

    def ours(self, count: int) -> float:
        """Return the median milliseconds from a submit until the worker knows that both were created."""
        durations = []
        for _ in range(count):
            begin = time.time()
            run = self._client.submit(ours.noop, environment=self._environment)
            until(lambda run=run: created(run), "a Job and its Secret")  # type: ignore[misc]
            durations.append((created(run) or 0.0) - begin)
            self._runs.append(run)
        if not self._sent:
            self._sent = dict((self._client.records.runs.get(self._runs[0].id)[0].request or {})["body"]["job"])
        return median(durations) * 1000

    def bare(self, count: int) -> float:
        """Return the median milliseconds of the two calls, with the same pauses as on our side."""
        client, durations = BareClient(self._access), []
        for job in self._jobs(count):
            begin = time.perf_counter()
            self._create(client, job)
            durations.append(time.perf_counter() - begin)
            time.sleep(0.02)
        client.close()
        return median(durations) * 1000

    def many(self, count: int) -> float:
        """Return the runs per second from the submit of all until the last Job and its Secret are created."""
        begin = time.time()
        runs = self._client.map(ours.noop, [{}] * count, environment=self._environment)
        self._runs += runs
        until(lambda: created(runs[-1]) and all(map(created, runs)), "all Jobs", timeout=300, interval=0.2)
        return count / (max(created(run) or 0.0 for run in runs) - begin)

    def many_bare(self, count: int) -> float:
        """Return the same for the bare client's threads, each with its own connection."""
        jobs = list(self._jobs(count))
        threads = [
            threading.Thread(target=self._create_all, args=(jobs[number::CONCURRENCY],))
            for number in range(CONCURRENCY)
        ]
        begin = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return count / (time.perf_counter() - begin)

    def clear(self) -> None:
        """Remove all objects that were created."""
        for run in self._runs:
            run.cancel()
        self._client.wait(self._runs, timeout=ours.TIMEOUT)
        self._runs.clear()
        client = BareClient(self._access)
        client.request("DELETE", f"{JOBS.format(self._namespace)}?labelSelector=bare&propagationPolicy=Background")
        for path in (JOBS, SECRETS):
            query = f"{path.format(self._namespace)}?limit=1"
            until(lambda query=query: not client.request("GET", query)["items"], "the deletion", timeout=300)  # type: ignore[misc]
        client.close()

    def _jobs(self, count: int) -> Iterator[Json]:
        """Yield the Jobs that our side sends, under names and labels that our worker ignores."""
        for _ in range(count):
            self._made += 1
            job = copy.deepcopy(self._sent)
            job["metadata"]["name"] = f"bare-{self._made}"
            for metadata in (job["metadata"], job["spec"]["template"]["metadata"]):
                metadata["labels"] = {"bare": "", "attempt": "1"}
            yield job

    def _create_all(self, jobs: Sequence[Json]) -> None:
        client = BareClient(self._access)
        for job in jobs:
            self._create(client, job)
        client.close()

    def _create(self, client: BareClient, job: Json) -> None:
        """Create the Job, then a Secret of the same size as ours that the Job owns."""
        metadata = client.request("POST", JOBS.format(self._namespace), job)["metadata"]
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"]}
        secret = {
            "metadata": {"name": metadata["name"], "labels": {"bare": ""}, "ownerReferences": [owner]},
            "immutable": True,
            "stringData": {"variables.json": "x" * 250},
        }
        client.request("POST", SECRETS.format(self._namespace), secret)


def created(run: Run[Any]) -> float | None:
    """Return the time at which the worker knew that a run's Job and Secret were created; None if it doesn't yet."""
    return next((event.time for event in run.events() if event.kind is EventKind.PENDING), None)


PART = Part(name="kubernetes-create", figures=FIGURES, opened=opened, lacks=cluster.missing)
