"""From a submit to the flow's first line in a real pod, beside a bare Job of the same image; and where it goes."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from statistics import median

from benchmarks import cluster, ours
from benchmarks.bench import Bench, Measure, Part
from benchmarks.cluster import JOBS, PODS, Access, Bare, Json
from benchmarks.figures import By, Figure, Measured, Pair
from benchmarks.machine import until
from dispatcher import Dispatcher, KubernetesJobEnvironment, flow

FIGURES = (
    Figure(
        name="Kubernetes: submit to the flow's first line, p50",
        unit="s",
        bound=0.5,
        by=By.DIFFERENCE,
        base="the same image, by a bare Job",
        digits=2,
    ),
)

SMALL = {"requests": {"cpu": "10m", "memory": "32Mi"}}

#: When this container's first process began, by the clock of its node: hundredths of a second since the node's boot.
_BEGAN = """
import json, time
ticks = int(open("/proc/1/stat").read().rpartition(")")[2].split()[19])
began = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / 100
"""

_BARE = (
    f'line = __import__("time").time()\n{_BEGAN}\nopen("/dev/termination-log", "w").write(json.dumps([line, began]))'
)


@flow
def first_line() -> list[float]:
    """When the flow's first line was printed, and when its container's process began."""
    line = time.time()
    print("first line")  # noqa: T201
    found: Json = {}
    exec(_BEGAN, found)
    return [line, found["began"]]


@contextmanager
def opened(bench: Bench) -> Iterator[Measure]:
    """The image in the cluster, a namespace, a server, our worker."""
    bench.say("building and loading the runner image")
    image = cluster.runner_image()
    with cluster.namespace() as name, cluster.server() as url:
        environ = cluster.offered(name, DISPATCHER__KUBERNETES__IMAGE=image)
        with (
            ours.worker(url, log=cluster.log(), environ=environ, backends=["kubernetes"], concurrency=2),
            ours.client(url) as client,
        ):
            job = _ours(client)[1]  # warm, and what the bare Job is made of
            _bare(name, job)
            found: dict[str, list[Mapping[str, float]]] = {"ours": [], "base": []}

            def measure(number: int) -> Measured:
                both = {"ours": lambda: _ours(client)[0], "base": lambda: _bare(name, job)}
                names = list(both)[:: 1 if number % 2 == 0 else -1]
                mine: dict[str, list[float]] = {"ours": [], "base": []}
                for turn in range(bench.count(6)):
                    bench.say(f"turn {turn + 1}")
                    for side in names:
                        marks = both[side]()
                        found[side].append(marks)
                        mine[side].append(sum(marks.values()))
                return {FIGURES[0].name: Pair(median(mine["ours"]), median(mine["base"]))}

            yield measure
            for side, marks in (("ours", found["ours"]), ("a bare Job", found["base"])):
                if marks:
                    bench.notes[f"first line in a pod, {side}"] = {
                        step: round(median(one[step] for one in marks) * 1000) for step in marks[0]
                    }


def _ours(client: Dispatcher) -> tuple[Mapping[str, float], Json]:
    """Seconds of each step, and the Job that was sent."""
    begin = time.time()
    run = client.submit(first_line, environment=KubernetesJobEnvironment(resources=SMALL))
    submitted = time.time()
    line, began = run.result(timeout=120)
    events = {str(event.kind): event.time for event in run.events()}
    marks = {
        "submit": submitted - begin,
        "until the worker has it": events["claimed"] - submitted,
        "request made and stored": events["provisioning"] - events["claimed"],
        "Job and Secret created": events["pending"] - events["provisioning"],
        "the cluster: until the container's process begins": began - events["pending"],
        "the runner: until it has claimed": events["started"] - began,
        "the runner: until the flow's first line": line - events["started"],
    }
    job = (client.records.runs.get(run.id)[0].request or {})["body"]["job"]
    until(lambda: not client.records.runs.get(run.id)[0].leftovers, "the teardown")
    return marks, job


def _bare(namespace: str, ours: Json) -> Mapping[str, float]:
    """The same pod but for our variables and volume, running a Python that says when it began."""
    name = f"bare-{secrets.token_hex(4)}"
    pod = json.loads(json.dumps(ours["spec"]["template"]["spec"]))
    (container,) = pod["containers"]
    container["command"] = ["python3", "-c", _BARE]
    container["volumeMounts"], pod["volumes"] = container["volumeMounts"][:-1], pod["volumes"][:-1]
    container["env"] = container["env"][:1]
    job = {"metadata": {"name": name}, "spec": {"backoffLimit": 0, "template": {"spec": pod}}}
    client = Bare(Access.read())
    begin = time.time()
    client.ask("POST", JOBS.format(namespace), job)
    sent = time.time()
    place = f"{PODS.format(namespace)}?labelSelector=job-name%3D{name}"

    def said() -> str:
        pods = client.ask("GET", place)["items"]
        states = [one["state"] for pod in pods for one in pod["status"].get("containerStatuses", ())]
        return next((one["terminated"]["message"] for one in states if "terminated" in one), "")

    until(said, "the bare Job", timeout=120)
    line, began = json.loads(said())
    client.ask("DELETE", f"{JOBS.format(namespace)}/{name}?propagationPolicy=Background")
    until(lambda: not client.ask("GET", place)["items"], "its end")
    client.close()
    return {
        "Job created": sent - begin,
        "the cluster: until the container's process begins": began - sent,
        "Python: until the first line": line - began,
    }


PART = Part(name="kubernetes-start", figures=FIGURES, opened=opened, lacks=lambda: cluster.missing(images=True))
