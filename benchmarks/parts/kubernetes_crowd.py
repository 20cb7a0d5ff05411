"""Five thousand live runs on one worker: its memory, its API requests, the delay of its events, and the time until
another worker has adopted the runs. Kwok simulates the pods, :mod:`benchmarks.stand_in` their runners.
"""

from __future__ import annotations

import json
import math
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from benchmarks import cluster, ours
from benchmarks.bench import Benchmark, Measure, Part
from benchmarks.cluster import PODS, BareClient, ClusterAccess, Json
from benchmarks.figures import Comparison, Figure, Measured, Pair
from benchmarks.machine import memory, pids, processor_time, until
from benchmarks.request_counter import counting, counts
from benchmarks.stand_in import StandInProcess, end_pods, stand_in_runners
from dispatcher import Dispatcher, KubernetesJobEnvironment, Run
from dispatcher.runs import indexes

COUNT = 5000
FAILED = 250  #: pods that end with an exit code, without a report of their runners
UNATTENDED = 50  #: those of them that end while no worker lives
PAUSE = 0.05  #: seconds between two such ends
QUIET = 15.0  #: seconds with heartbeats only

#: The cluster's identity: read once per connection and list, not per run.
IDENTITY = frozenset({"GET /api/v1/namespaces/kube-system", "get configmaps"})

FIGURES = (
    Figure(name="5,000 live runs: memory of the worker", unit="MB PSS", bound=300, by=Comparison.OURS, base=""),
    Figure(name="5,000 live runs: requests per run", unit="", bound=3, by=Comparison.OURS, base="", digits=3),
    Figure(name="5,000 live runs: log reads per failed run", unit="", bound=1, by=Comparison.OURS, base="", digits=3),
    Figure(
        name="5,000 live runs: event after a bare watch saw the change, p99",
        unit="s",
        bound=1,
        by=Comparison.OURS,
        base="",
        digits=2,
    ),
    Figure(
        name="5,000 live runs: adopted, from process start", unit="s", bound=10, by=Comparison.OURS, base="", digits=1
    ),
    Figure(name="5,000 live runs: provisioned", unit="runs/s", by=Comparison.OURS, base="", digits=0),
    Figure(
        name="5,000 live runs: cores of the worker, nothing happens", unit="", by=Comparison.OURS, base="", digits=2
    ),
)

#: A Job for fake nodes only.
FAKE: Json = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "spec": {
        "template": {
            "spec": {
                "nodeSelector": {"pool": "fake"},
                "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
                "restartPolicy": "Never",
                "containers": [{"name": "flow", "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}}}],
            }
        }
    },
}


@contextmanager
def opened(bench: Benchmark) -> Iterator[Measure]:
    """Prepare a namespace, a server, a counting proxy and simulated runners. Each round starts its own workers."""
    with (
        tempfile.TemporaryDirectory() as folder,
        cluster.namespace() as name,
        cluster.server() as url,
        counting(Path(folder)) as (proxy, config),
        ours.client(url) as client,
    ):
        environ = cluster.worker_variables(name, KUBECONFIG=str(config))

        @contextmanager
        def worker() -> Iterator[subprocess.Popen[bytes]]:
            with ours.worker(
                url, log=cluster.log(), environ=environ, backends=["kubernetes"], concurrency=2
            ) as process:
                yield process

        def measure(number: int) -> Measured:
            crowd = _LiveRuns(bench, client, name, proxy, number)
            with stand_in_runners(name) as runners:
                return crowd.measure(worker, runners)

        yield measure


class _LiveRuns:
    """The live runs of one round."""

    def __init__(self, bench: Benchmark, client: Dispatcher, namespace: str, proxy: str, number: int) -> None:
        self._bench = bench
        self._client = client
        self._namespace = namespace
        self._proxy = proxy
        self._number = number
        self._access = ClusterAccess.read()
        self._count = bench.count(COUNT)
        self._runs: list[Run[Any]] = []
        self._pods: dict[str, str] = {}  # run id → name of its pod
        self._failed: list[str] = []  # runs whose pods were ended

    def measure(
        self, worker: Callable[[], AbstractContextManager[subprocess.Popen[bytes]]], runners: StandInProcess
    ) -> Measured:
        """Measure the round."""
        before = counts(self._proxy)
        with worker() as process:
            rate = self._start(runners)
            self._bench.say("all live")
            used = processor_time(process.pid)
            time.sleep(QUIET)
            cores = (processor_time(process.pid) - used) / QUIET
            size = sum(memory(pid) for pid in pids(process.pid))
            self._bench.say("pods end")
            delays = self._end_some(self._bench.count(FAILED) - self._bench.count(UNATTENDED))
            self._wait_for_teardowns()
        self._bench.say("no worker lives")
        unattended = self._choose(self._bench.count(UNATTENDED))
        end_pods(self._access, self._namespace, [self._pods[run] for run in unattended], 1)
        worker_start = time.time()
        with worker():
            adopted = max(self._end_times(unattended).values()) - worker_start
            self._bench.say("all end")
            runners.finish()
            self._wait_for_removal()
            requests = counts(self._proxy) - before
        return self._figures(requests, delays, rest=(size, adopted, rate, cores))

    def _start(self, runners: StandInProcess) -> float:
        """Submit all runs and wait until all have started. Return the runs provisioned per second."""
        self._bench.say("they begin")
        environment = KubernetesJobEnvironment(job_spec=FAKE)
        begin = time.time()
        self._runs = self._client.map(ours.noop, [{}] * self._count, environment=environment)
        runners.wait_for(self._count)
        rate = self._count / (time.time() - begin)
        page = json.loads(cluster.kubectl("get", "pods", "-n", self._namespace, "-o", "json"))["items"]
        self._pods = {pod["metadata"]["labels"]["flow_run_id"]: pod["metadata"]["name"] for pod in page}
        return rate

    def _choose(self, count: int) -> list[str]:
        """Choose runs of all shards whose pods are to end; return their ids."""
        remaining = [run.id for run in self._runs if run.id not in set(self._failed)]
        chosen = remaining[:: max(1, len(remaining) // count)][:count]
        self._failed += chosen
        return chosen

    def _end_some(self, count: int) -> list[float]:
        """End pods one by one. Return the sorted delays from a bare watch's event of a pod's end to the run's end."""
        chosen = self._choose(count)
        run_ids = {self._pods[run_id]: run_id for run_id in chosen}
        observed: dict[str, float] = {}
        client = BareClient(self._access)
        path = PODS.format(self._namespace)
        events = client.watch(path, client.version(path))

        def watch() -> None:
            for at, line in events:
                pod = json.loads(line)["object"]
                run_id = run_ids.get(pod["metadata"]["name"])
                if run_id is not None and pod["status"].get("phase") == "Failed":
                    observed.setdefault(run_id, at)
                if len(observed) == len(chosen):
                    return

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        end_pods(self._access, self._namespace, list(run_ids), 1, pause=PAUSE)
        watcher.join(60)
        client.close()
        ended = self._end_times(chosen)
        return sorted(ended[run_id] - at for run_id, at in observed.items())

    def _end_times(self, run_ids: Sequence[str]) -> dict[str, float]:
        """Wait for the ends of runs. Return their times by the server's clock, which is this machine's."""

        def times() -> dict[str, float]:
            records = self._client.records.runs.get_many(run_ids)
            return {record.id: record.ended_at for record in records if record is not None and record.ended_at}

        until(lambda: len(times()) == len(run_ids), "the ends of runs", timeout=120)
        return times()

    def _wait_for_removal(self) -> None:
        """Wait until nothing is left of the runs."""
        self._client.wait(self._runs, timeout=600)
        self._wait_for_teardowns()

    def _wait_for_teardowns(self) -> None:
        index = indexes.teardown("kubernetes")
        until(lambda: not self._client.records.runs.count(index), "all teardowns", timeout=900)

    def _figures(
        self, requests: Counter[str], delays: list[float], *, rest: tuple[float, float, float, float]
    ) -> Measured:
        shared = {"watch jobs", "watch pods", "watch events", "list jobs", "list pods", "list events", *IDENTITY}
        logs = requests["get pods/log"]
        single = sum(number for request, number in requests.items() if request not in shared) - logs
        names = [figure.name for figure in FIGURES]
        size, adopted, rate, cores = rest
        self._bench.keep("event after a bare watch (s)", delays)
        self._bench.notes[f"requests of {self._count} runs, {len(self._failed)} failed, round {self._number + 1}"] = (
            dict(sorted(requests.items()))
        )
        values = [
            Pair(size),
            Pair(single / self._count),
            Pair(logs / len(self._failed)),
            Pair(delays[math.ceil(0.99 * len(delays)) - 1]),
            Pair(adopted),
            Pair(rate),
            Pair(cores),
        ]
        return dict(zip(names, values, strict=True))


def _lacks() -> str:
    return cluster.missing(fake=COUNT)


PART = Part(name="kubernetes-crowd", figures=FIGURES, opened=opened, lacks=_lacks)
