"""The time from a submit to the flow's first line in a real pod, step by step, beside a bare Job of the same image."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from statistics import median

from benchmarks import cluster, ours
from benchmarks.bench import Benchmark, Measure, Part
from benchmarks.cluster import JOBS, PODS, BareClient, ClusterAccess, Json
from benchmarks.figures import Comparison, Figure, Measured, Pair
from benchmarks.machine import until
from dispatcher import Dispatcher, KubernetesJobEnvironment, flow

FIGURES = (
    Figure(
        name="Kubernetes: submit to the flow's first line, p50",
        unit="s",
        bound=0.5,
        by=Comparison.DIFFERENCE,
        base="the same image, by a bare Job",
        digits=2,
    ),
)

SMALL = {"requests": {"cpu": "10m", "memory": "32Mi"}}

#: Computes the start of this container's first process, from the hundredths of a second since the node's boot.
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
    """Return the times of the flow's first line and of the start of its container's process."""
    line = time.time()
    print("first line")  # noqa: T201
    variables: Json = {}
    exec(_BEGAN, variables)
    return [line, variables["began"]]


@contextmanager
def opened(bench: Benchmark) -> Iterator[Measure]:
    """Prepare the image in the cluster, a namespace, a server and our worker."""
    bench.say("building and loading the runner image")
    image = cluster.runner_image()
    with cluster.namespace() as name, cluster.server() as url:
        environ = cluster.worker_variables(name, DISPATCHER__KUBERNETES__IMAGE=image)
        with (
            ours.worker(url, log=cluster.log(), environ=environ, backends=["kubernetes"], concurrency=2),
            ours.client(url) as client,
        ):
            job = _run_flow(client)[1]  # warms up, and is the template of the bare Job
            _run_bare_job(name, job)
            all_steps: dict[str, list[Mapping[str, float]]] = {"ours": [], "base": []}

            def measure(number: int) -> Measured:
                both = {"ours": lambda: _run_flow(client)[0], "base": lambda: _run_bare_job(name, job)}
                names = list(both)[:: 1 if number % 2 == 0 else -1]
                totals: dict[str, list[float]] = {"ours": [], "base": []}
                for turn in range(bench.count(6)):
                    bench.say(f"turn {turn + 1}")
                    for side in names:
                        steps = both[side]()
                        all_steps[side].append(steps)
                        totals[side].append(sum(steps.values()))
                return {FIGURES[0].name: Pair(median(totals["ours"]), median(totals["base"]))}

            yield measure
            for side, measurements in (("ours", all_steps["ours"]), ("a bare Job", all_steps["base"])):
                if measurements:
                    bench.notes[f"first line in a pod, {side}"] = {
                        step: round(median(steps[step] for steps in measurements) * 1000) for step in measurements[0]
                    }


def _run_flow(client: Dispatcher) -> tuple[Mapping[str, float], Json]:
    """Run our flow; return the seconds of each step, and the Job that was sent."""
    begin = time.time()
    run = client.submit(first_line, environment=KubernetesJobEnvironment(resources=SMALL))
    submitted = time.time()
    line, began = run.result(timeout=120)
    events = {str(event.kind): event.time for event in run.events()}
    steps = {
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
    return steps, job


def _run_bare_job(namespace: str, ours: Json) -> Mapping[str, float]:
    """Run the same pod without our variables and volume, with a Python that reports when it began; return the seconds
    of each step."""
    name = f"bare-{secrets.token_hex(4)}"
    pod = json.loads(json.dumps(ours["spec"]["template"]["spec"]))
    (container,) = pod["containers"]
    container["command"] = ["python3", "-c", _BARE]
    container["volumeMounts"], pod["volumes"] = container["volumeMounts"][:-1], pod["volumes"][:-1]
    container["env"] = container["env"][:1]
    job = {"metadata": {"name": name}, "spec": {"backoffLimit": 0, "template": {"spec": pod}}}
    client = BareClient(ClusterAccess.read())
    begin = time.time()
    client.request("POST", JOBS.format(namespace), job)
    sent = time.time()
    path = f"{PODS.format(namespace)}?labelSelector=job-name%3D{name}"

    def message() -> str:
        pods = client.request("GET", path)["items"]
        states = [status["state"] for pod in pods for status in pod["status"].get("containerStatuses", ())]
        return next((state["terminated"]["message"] for state in states if "terminated" in state), "")

    until(message, "the bare Job", timeout=120)
    line, began = json.loads(message())
    client.request("DELETE", f"{JOBS.format(namespace)}/{name}?propagationPolicy=Background")
    until(lambda: not client.request("GET", path)["items"], "the bare Job's deletion")
    client.close()
    return {
        "Job created": sent - begin,
        "the cluster: until the container's process begins": began - sent,
        "Python: until the first line": line - began,
    }


PART = Part(name="kubernetes-start", figures=FIGURES, opened=opened, lacks=lambda: cluster.missing(images=True))
