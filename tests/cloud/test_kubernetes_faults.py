"""What breaks around runs on a real cluster, and what a namespace forbids: issue 5, "Real parts and tests"."""

from __future__ import annotations

import json
import os
import time
from typing import Any, cast

import pytest

from dispatcher import Cause, Run, RunCrashed, State
from tests.cloud import flows, k8s
from tests.cloud.sandbox import Estate
from tests.integration.workers import Worker
from tests.waiting import wait_until

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(900)]

BREAKS_THE_CLUSTER = True

#: Seconds for which the API server is away, at least; row 25 says five minutes, and so does the long form.
AWAY = 300.0 if os.environ.get("CHAOS") == "long" else 0.0

#: Seconds of a runner's silence after which it may be lost; it gives a sign of life every 10 s, late on a busy machine.
NODE_LOST = 30.0


def quota(namespace: str, **hard: str) -> dict[str, Any]:
    """No more than that."""
    metadata = {"name": "few", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": hard}}


def limits(namespace: str) -> dict[str, Any]:
    """Defaults for containers that say nothing."""
    spec = {"limits": [{"type": "Container", "default": {"memory": "512Mi", "cpu": "1"}, "max": {"memory": "1Gi"}}]}
    metadata = {"name": "bounds", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "LimitRange", "metadata": metadata, "spec": spec}


@pytest.fixture(scope="module")
def worker(estate: Estate) -> Worker:
    """The first worker; it serves four namespaces."""
    strict, no_pods, no_jobs = (f"{estate.name}-{one}" for one in ("strict", "no-pods", "no-jobs"))
    estate.namespace(strict, limits(strict), labels={"pod-security.kubernetes.io/enforce": "restricted"})
    estate.namespace(no_pods, quota(no_pods, pods="0"))
    estate.namespace(no_jobs, quota(no_jobs, **{"count/jobs.batch": "0"}))
    return estate.worker(node_lost=NODE_LOST)


PRIVILEGED = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "spec": {"template": {"spec": {"containers": [{"name": "flow", "securityContext": {"privileged": True}}]}}},
}


@pytest.fixture(scope="module")
def forbidden(estate: Estate, worker: Worker) -> dict[str, Run[Any]]:
    """Runs that wait for what never comes, while others run."""
    two = {"a": 1, "b": 2}

    def submit(where: str, **given: Any) -> Run[Any]:
        options = {name: given.pop(name) for name in ("start_within",) if name in given}
        return estate.submit(flows.add, two, environment={"namespace": f"{estate.name}-{where}", **given}, **options)

    return {
        "strict": submit("strict"),
        "privileged": submit("strict", job_spec=PRIVILEGED),
        "no-pods": submit("no-pods", start_within=40),
        "no-jobs": submit("no-jobs", start_within=8),
    }


def test_a_map_of_fifty(estate: Estate, worker: Worker, forbidden: dict[str, Run[Any]]) -> None:
    runs = estate.client.map(flows.add, [{"a": n, "b": 1} for n in range(50)], environment=estate.environment())
    assert [run.result(timeout=150) for run in runs] == [n + 1 for n in range(50)]
    assert {estate.server.noted(run, "ran") for run in runs} == {1}
    for run in runs:
        assert [str(event.kind) for event in run.events()].count("exited") == 1
    estate.until(lambda: not left(estate), "an empty namespace")


def left(estate: Estate) -> list[str]:
    return [one["metadata"]["name"] for one in k8s.items("jobs,pods,secrets", estate.name, "instance")]


def test_a_namespace_that_enforces_restricted(estate: Estate, forbidden: dict[str, Run[Any]]) -> None:
    estate.ended(forbidden["strict"], State.SUCCEEDED, namespace=f"{estate.name}-strict")


def test_an_exhausted_quota_of_jobs(estate: Estate, forbidden: dict[str, Run[Any]]) -> None:
    error = estate.ended(forbidden["no-jobs"], State.CRASHED, Cause.QUOTA, namespace=f"{estate.name}-no-jobs")
    assert "exceeded quota" in str(error)


def test_an_exhausted_quota_of_pods(estate: Estate, forbidden: dict[str, Run[Any]]) -> None:
    error = estate.ended(forbidden["no-pods"], State.CRASHED, Cause.QUOTA, namespace=f"{estate.name}-no-pods")
    assert "exceeded quota" in str(error)


def test_a_pod_that_restricted_forbids(estate: Estate, forbidden: dict[str, Run[Any]]) -> None:
    run = forbidden["privileged"]
    error = estate.ended(run, State.CRASHED, Cause.CONFIG_ERROR, namespace=f"{estate.name}-strict", timeout=120)
    assert "violates PodSecurity" in str(error)


@pytest.mark.row(27)
def test_a_second_pod_of_an_attempt_runs_nothing(estate: Estate, worker: Worker) -> None:
    run = estate.submit(flows.hold, {"seconds": 8})
    estate.begun(run)
    (first,) = estate.pods(run)
    spec = {name: value for name, value in first["spec"].items() if name != "nodeName"}
    metadata = {"name": "second", "namespace": estate.name, "labels": {"flow_run_id": run.id}}
    k8s.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})

    def phase() -> str:
        return k8s.kubectl("get", "pod", "second", "-n", estate.name, "-o", "jsonpath={.status.phase}")

    estate.until(lambda: phase() == "Running", "the second pod")
    assert run.result(timeout=60) == "held"
    estate.until(lambda: phase() == "Succeeded", "the end of the second pod")
    k8s.kubectl("delete", "pod", "second", "-n", estate.name)
    estate.ended(run, State.SUCCEEDED)
    assert (estate.server.noted(run, "ran"), estate.server.noted(run, "held")) == (1, 1)


def test_a_worker_that_is_killed_is_replaced(estate: Estate, worker: Worker) -> None:
    runs = [estate.submit(flows.hold, {"seconds": 12}) for _ in range(5)]
    for run in runs:
        estate.begun(run)
    doomed = estate.submit(flows.hold, {"seconds": 300})
    estate.begun(doomed)
    for pid in worker.children:
        os.kill(pid, 9)
    worker.process.kill()
    estate.worker(node_lost=NODE_LOST)
    assert doomed.cancel()
    for run in runs:
        estate.ended(run, State.SUCCEEDED)
        assert (estate.server.noted(run, "ran"), estate.server.noted(run, "held")) == (1, 1)
    estate.ended(doomed, State.CANCELLED)


def test_redis_restarts_while_pods_run(estate: Estate, worker: Worker) -> None:
    runs = [estate.submit(flows.add, {"a": 1, "b": n}) for n in range(3)]
    runs += [estate.submit(flows.hold, {"seconds": 6}) for _ in range(3)]
    for run in runs[3:]:
        estate.begun(run)
    estate.server.kill()
    estate.server.start()
    for run in runs:
        estate.ended(run, State.SUCCEEDED)
        assert estate.server.noted(run, "ran") == 1


@pytest.mark.row(25)
@pytest.mark.skipif(not os.environ.get("DISPATCHER_TEST_BREAKER"), reason="DISPATCHER_TEST_BREAKER names no command")
def test_the_api_server_is_killed_and_restarted(estate: Estate, worker: Worker) -> None:
    ends = estate.submit(flows.hold, {"seconds": 5})
    dies = estate.submit(flows.hold, {"seconds": 300}, timeout=4)
    stays = estate.submit(flows.hold, {"seconds": AWAY + 25})
    for run in (ends, dies, stays):
        estate.begun(run)
    k8s.break_cluster("kill", "kube-apiserver")
    down = time.monotonic()
    try:
        late = [estate.submit(flows.add, {"a": number, "b": 2}) for number in range(5)]
        assert ends.result(timeout=60) == "held"
        assert dies.wait(timeout=60)
        wait_until(lambda: time.monotonic() - down >= AWAY, "the end of the outage", timeout=AWAY + 60, every=1.0)
        assert stays.state in {State.RUNNING, State.SUCCEEDED}, "nobody is declared lost meanwhile"
    finally:
        k8s.break_cluster("start", "kube-apiserver")
    estate.until(lambda: k8s.kubectl("get", "nodes", check=False), "the API server")
    back = time.monotonic()
    # Kubernetes itself may take one or two minutes then to schedule a pod, and to collect what is left.
    assert [run.wait(timeout=180 + AWAY) for run in (stays, *late)] == [True] * 6
    print(f"away for {back - down:.0f} s, all have ended {time.monotonic() - back:.0f} s later")  # noqa: T201
    estate.until(lambda: not left(estate), "an empty namespace", timeout=90 + AWAY)
    print(f"nothing is left {time.monotonic() - back:.0f} s later")  # noqa: T201
    estate.ended(ends, State.SUCCEEDED)
    estate.ended(dies, State.TIMED_OUT)
    estate.ended(stays, State.SUCCEEDED)
    for run in late:  # also where a server that had only just begun refused what its rules allow
        estate.ended(run, State.SUCCEEDED)
    assert {estate.server.noted(run, "ran") for run in (ends, dies, stays, *late)} == {1}


@pytest.mark.skipif(not os.environ.get("DISPATCHER_TEST_BREAKER"), reason="DISPATCHER_TEST_BREAKER names no command")
def test_the_kubelet_is_killed_and_restarted(estate: Estate, worker: Worker) -> None:
    ends = estate.submit(flows.hold, {"seconds": 5})
    goes = estate.submit(flows.hold, {"seconds": 300})
    for run in (ends, goes):
        estate.begun(run)
    k8s.break_cluster("kill", "kubelet")
    try:
        assert ends.result(timeout=60) == "held"
        assert goes.cancel()
    finally:
        k8s.break_cluster("start", "kubelet")
    estate.ended(goes, State.CANCELLED, timeout=120)
    estate.ended(ends, State.SUCCEEDED)
    assert estate.server.noted(goes, "on_exit CANCELLED") == 1


def ready(thing: dict[str, Any]) -> bool:
    """Return True if a pod or node says so."""
    return "True" in [one["status"] for one in thing["status"].get("conditions", ()) if one["type"] == "Ready"]


def reachable(node: str) -> bool:
    """Return True if a node takes pods: it is ready, and no taint of an outage is left on it."""
    found = json.loads(k8s.kubectl("get", "node", node, "-o", "json"))
    return ready(found) and not any("node.kubernetes.io/" in one["key"] for one in found["spec"].get("taints", ()))


@pytest.mark.row(27)
@pytest.mark.skipif(not os.environ.get("DISPATCHER_TEST_BREAKER"), reason="DISPATCHER_TEST_BREAKER names no command")
def test_the_kubelet_is_gone_for_good(estate: Estate, worker: Worker) -> None:
    """Its run ends once the control plane and the runner's silence agree; the teardown stays open and says why, and
    is confirmed when there is a kubelet again, for which later runs just wait."""
    run = estate.submit(flows.hold, {"seconds": 300})
    estate.begun(run)
    (pod,) = estate.until(lambda: [one for one in estate.pods(run) if ready(one)], "its kubelet's word that it runs")
    node = pod["spec"]["nodeName"]
    began = time.monotonic()
    k8s.break_cluster("kill", "kubelet")
    try:
        assert k8s.kill_container(run.id) > 0
        error = run.exception(timeout=180)
        print(f"node_lost after {time.monotonic() - began:.0f} s: {error}")  # noqa: T201
        assert (run.state, getattr(error, "cause", None)) == (State.CRASHED, Cause.NODE_LOST)
        pending = f"teardown pending: node {node}"
        estate.until(lambda: pending in "\n".join(estate.client.explain(run)), pending)
        assert estate.pods(run)
        late = estate.submit(flows.add, {"a": 1, "b": 2})
    finally:
        k8s.break_cluster("start", "kubelet")
        estate.until(lambda: reachable(node), "the node", timeout=180)
    estate.until(lambda: not estate.pods(run), "the end of the lost pod", timeout=120)
    estate.ended(run, State.CRASHED, Cause.NODE_LOST)
    estate.ended(late, State.SUCCEEDED)
    assert [estate.server.noted(run, what) for what in ("ran", "held")] == [1, 0]


def test_a_node_is_drained(estate: Estate, worker: Worker) -> None:
    run = estate.submit(flows.hold, {"seconds": 300})
    estate.begun(run)
    (pod,) = estate.pods(run)
    node = pod["spec"]["nodeName"]
    selector = f"flow_run_id={run.id}"
    try:
        k8s.kubectl("drain", node, "--pod-selector", selector, "--ignore-daemonsets", "--force",
                      "--delete-emptydir-data", "--timeout=60s")  # fmt: skip
    finally:
        k8s.kubectl("uncordon", node)
    error = cast("RunCrashed", estate.ended(run, State.CRASHED, Cause.EVICTED))
    assert "EvictionByEvictionAPI" in (error.reason, str(error)) or "evict" in str(error).lower()
    assert estate.server.noted(run, "on_exit CRASHED") == 1
