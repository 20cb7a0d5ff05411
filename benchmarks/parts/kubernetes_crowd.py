"""Five thousand live runs on one worker: what they cost it, what it asks of the API server, how soon it tells, and how
soon another worker has taken them over. Kwok plays the pods, :mod:`benchmarks.stand_in` their runners.
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
from benchmarks.bench import Bench, Measure, Part
from benchmarks.cluster import PODS, Access, Bare, Json
from benchmarks.request_counter import counting, counts
from benchmarks.figures import By, Figure, Measured, Pair
from benchmarks.machine import memory, pids, processor_time, until
from benchmarks.stand_in import StoodIn, end, stood_in
from dispatcher import Dispatcher, KubernetesJobEnvironment, Run
from dispatcher.runs import indexes

COUNT = 5000
FAILED = 250  #: pods that end with an exit code while their runners say nothing
ALONE = 50  #: of those, while no worker lives
PAUSE = 0.05  #: seconds between two such ends
QUIET = 15.0  #: seconds of nothing but signs of life

FIGURES = (
    Figure(name="5,000 live runs: memory of the worker", unit="MB PSS", bound=300, by=By.OURS, base=""),
    Figure(name="5,000 live runs: requests per run", unit="", bound=3, by=By.OURS, base="", digits=3),
    Figure(name="5,000 live runs: log reads per failed run", unit="", bound=1, by=By.OURS, base="", digits=3),
    Figure(
        name="5,000 live runs: event after a bare watch saw the change, p99",
        unit="s",
        bound=1,
        by=By.OURS,
        base="",
        digits=2,
    ),
    Figure(name="5,000 live runs: adopted, from process start", unit="s", bound=10, by=By.OURS, base="", digits=1),
    Figure(name="5,000 live runs: provisioned", unit="runs/s", by=By.OURS, base="", digits=0),
    Figure(name="5,000 live runs: cores of the worker, nothing happens", unit="", by=By.OURS, base="", digits=2),
)

#: Fake nodes alone.
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
def opened(bench: Bench) -> Iterator[Measure]:
    """A namespace, a server, a proxy that counts, runners that stand in; workers come and go in a round."""
    with (
        tempfile.TemporaryDirectory() as folder,
        cluster.namespace() as name,
        cluster.server() as url,
        counting(Path(folder)) as (proxy, config),
        ours.client(url) as client,
    ):
        environ = cluster.offered(name, KUBECONFIG=str(config))

        @contextmanager
        def worker() -> Iterator[subprocess.Popen[bytes]]:
            with ours.worker(url, log=cluster.log(), environ=environ, backends=["kubernetes"], concurrency=2) as one:
                yield one

        def measure(number: int) -> Measured:
            crowd = _Crowd(bench, client, name, proxy, number)
            with stood_in(name) as runners:
                return crowd.measure(worker, runners)

        yield measure


class _Crowd:
    """One round."""

    def __init__(self, bench: Bench, client: Dispatcher, namespace: str, proxy: str, number: int) -> None:
        self._bench = bench
        self._client = client
        self._namespace = namespace
        self._proxy = proxy
        self._number = number
        self._access = Access.read()
        self._count = bench.count(COUNT)
        self._runs: list[Run[Any]] = []
        self._pods: dict[str, str] = {}  # run → its pod
        self._failed: list[str] = []  # runs whose pods were ended

    def measure(
        self, worker: Callable[[], AbstractContextManager[subprocess.Popen[bytes]]], runners: StoodIn
    ) -> Measured:
        """All of it."""
        before = counts(self._proxy)
        with worker() as one:
            rate = self._begin(runners)
            self._bench.say("all live")
            used = processor_time(one.pid)
            time.sleep(QUIET)
            cores = (processor_time(one.pid) - used) / QUIET
            size = sum(memory(pid) for pid in pids(one.pid))
            self._bench.say("pods end")
            told, seen = self._end_some(self._bench.count(FAILED) - self._bench.count(ALONE))
            self._wait_for_teardowns()
        self._bench.say("no worker lives")
        alone = self._choose(self._bench.count(ALONE))
        end(self._access, self._namespace, [self._pods[run] for run in alone], 1)
        born = time.time()
        with worker():
            adopted = max(self._ended(alone).values()) - born
            self._bench.say("all end")
            runners.finish()
            self._wait_for_nothing()
            asked = counts(self._proxy) - before
        return self._figures(asked, told=told, seen=seen, rest=(size, adopted, rate, cores))

    def _begin(self, runners: StoodIn) -> float:
        """Submit all, and wait until all run; how many were provisioned per second."""
        self._bench.say("they begin")
        environment = KubernetesJobEnvironment(job_spec=FAKE)
        begin = time.time()
        self._runs = self._client.map(ours.noop, [{}] * self._count, environment=environment)
        runners.all_of(self._count)
        rate = self._count / (time.time() - begin)
        page = json.loads(cluster.kubectl("get", "pods", "-n", self._namespace, "-o", "json"))["items"]
        self._pods = {pod["metadata"]["labels"]["flow_run_id"]: pod["metadata"]["name"] for pod in page}
        return rate

    def _choose(self, count: int) -> list[str]:
        """Runs of all shards whose pods are to end."""
        left = [run.id for run in self._runs if run.id not in set(self._failed)]
        chosen = left[:: max(1, len(left) // count)][:count]
        self._failed += chosen
        return chosen

    def _end_some(self, count: int) -> tuple[dict[str, float], dict[str, float]]:
        """Let pods end one by one: when each run's last event came, and when a bare watch had seen its pod's end."""
        chosen = self._choose(count)
        names = {self._pods[run]: run for run in chosen}
        seen: dict[str, float] = {}
        client = Bare(self._access)
        place = PODS.format(self._namespace)
        events = client.watch(place, client.version(place))

        def listen() -> None:
            for at, line in events:
                thing = json.loads(line)["object"]
                run = names.get(thing["metadata"]["name"])
                if run is not None and thing["status"].get("phase") == "Failed":
                    seen.setdefault(run, at)
                if len(seen) == len(chosen):
                    return

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        end(self._access, self._namespace, list(names), 1, every=PAUSE)
        listener.join(60)
        client.close()
        return self._ended(chosen), seen

    def _ended(self, runs: Sequence[str]) -> dict[str, float]:
        """When runs ended, all of them, by the server's clock, which is this machine's."""

        def times() -> dict[str, float]:
            found = self._client.records.runs.get_many(runs)
            return {one.id: one.ended_at for one in found if one is not None and one.ended_at is not None}

        until(lambda: len(times()) == len(runs), "the ends of runs", timeout=120)
        return times()

    def _wait_for_nothing(self) -> None:
        """Until nothing is left of them."""
        self._client.wait(self._runs, timeout=600)
        self._wait_for_teardowns()

    def _wait_for_teardowns(self) -> None:
        left = indexes.teardown("kubernetes")
        until(lambda: not self._client.records.runs.count(left), "all teardowns", timeout=900)

    def _figures(
        self,
        asked: Counter[str],
        *,
        told: dict[str, float],
        seen: dict[str, float],
        rest: tuple[float, float, float, float],
    ) -> Measured:
        shared = {"watch jobs", "watch pods", "watch events", "list jobs", "list pods", "list events"}
        logs = asked["get pods/log"]
        single = sum(number for what, number in asked.items() if what not in shared) - logs
        names = [figure.name for figure in FIGURES]
        size, adopted, rate, cores = rest
        late = sorted(told[run] - seen[run] for run in seen)
        self._bench.keep("event after a bare watch (s)", late)
        self._bench.notes[f"requests of {self._count} runs, {len(self._failed)} failed, round {self._number + 1}"] = (
            dict(sorted(asked.items()))
        )
        values = [
            Pair(size),
            Pair(single / self._count),
            Pair(logs / len(self._failed)),
            Pair(late[math.ceil(0.99 * len(late)) - 1]),
            Pair(adopted),
            Pair(rate),
            Pair(cores),
        ]
        return dict(zip(names, values, strict=True))


def _lacks() -> str:
    return cluster.missing(fake=COUNT)


PART = Part(name="kubernetes-crowd", figures=FIGURES, opened=opened, lacks=_lacks)
