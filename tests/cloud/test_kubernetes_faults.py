"""Failures around runs on a real cluster: workers, Redis, API server, kubelet and nodes; quotas and Pod Security."""

from __future__ import annotations

import json
import os
import time
from typing import Any, cast

import pytest

from dispatcher import Cause, Run, RunCrashed, State
from tests.cloud import flows, k8s
from tests.cloud.sandbox import Sandbox
from tests.integration.workers import Worker
from tests.waiting import wait_until

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(900)]

BREAKS_THE_CLUSTER = True

#: Minimum seconds of the API server's outage; row 25 names five minutes, as the long form takes.
OUTAGE = 300.0 if os.environ.get("CHAOS") == "long" else 0.0

#: Seconds without a heartbeat after which a runner may be lost. It sends one every 10 s, later on a busy machine.
NODE_LOST = 30.0


def quota(namespace: str, **hard: str) -> dict[str, Any]:
    """Return a quota of a namespace."""
    metadata = {"name": "few", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": hard}}


def limits(namespace: str) -> dict[str, Any]:
    """Return default limits of containers."""
    spec = {"limits": [{"type": "Container", "default": {"memory": "512Mi", "cpu": "1"}, "max": {"memory": "1Gi"}}]}
    metadata = {"name": "bounds", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "LimitRange", "metadata": metadata, "spec": spec}


@pytest.fixture(scope="module")
def worker(sandbox: Sandbox) -> Worker:
    """Worker of four namespaces."""
    strict, no_pods, no_jobs = (f"{sandbox.name}-{suffix}" for suffix in ("strict", "no-pods", "no-jobs"))
    sandbox.add_namespace(strict, limits(strict), labels={"pod-security.kubernetes.io/enforce": "restricted"})
    sandbox.add_namespace(no_pods, quota(no_pods, pods="0"))
    sandbox.add_namespace(no_jobs, quota(no_jobs, **{"count/jobs.batch": "0"}))
    return sandbox.start_worker(node_lost=NODE_LOST)


#: A Job that the worker's settings allow, and that lacks what Pod Security's ``restricted`` demands.
UNRESTRICTED = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "spec": {"template": {"spec": {"containers": [{"name": "flow"}]}}},
}


@pytest.fixture(scope="module")
def forbidden(sandbox: Sandbox, worker: Worker) -> dict[str, Run[Any]]:
    """Runs whose namespaces forbid them, submitted while others run."""
    two = {"a": 1, "b": 2}

    def submit(suffix: str, **arguments: Any) -> Run[Any]:
        options = {name: arguments.pop(name) for name in ("start_within",) if name in arguments}
        return sandbox.submit(
            flows.add, two, environment={"namespace": f"{sandbox.name}-{suffix}", **arguments}, **options
        )

    return {
        "strict": submit("strict"),
        "unrestricted": submit("strict", job_spec=UNRESTRICTED),
        "no-pods": submit("no-pods", start_within=40),
        "no-jobs": submit("no-jobs", start_within=8),
    }


def test_a_map_of_fifty(sandbox: Sandbox, worker: Worker, forbidden: dict[str, Run[Any]]) -> None:
    runs = sandbox.client.map(flows.add, [{"a": n, "b": 1} for n in range(50)], environment=sandbox.environment())
    assert [run.result(timeout=150) for run in runs] == [n + 1 for n in range(50)]
    assert {sandbox.server.count_of(run, "ran") for run in runs} == {1}
    for run in runs:
        assert [str(event.kind) for event in run.events()].count("exited") == 1
    sandbox.wait_until(lambda: not leftovers(sandbox), "an empty namespace")


def leftovers(sandbox: Sandbox) -> list[str]:
    return [item["metadata"]["name"] for item in k8s.items("jobs,pods,secrets", sandbox.name, "instance")]


def test_a_namespace_that_enforces_restricted(sandbox: Sandbox, forbidden: dict[str, Run[Any]]) -> None:
    sandbox.expect_end(forbidden["strict"], State.SUCCEEDED, namespace=f"{sandbox.name}-strict")


def test_an_exhausted_quota_of_jobs(sandbox: Sandbox, forbidden: dict[str, Run[Any]]) -> None:
    error = sandbox.expect_end(forbidden["no-jobs"], State.CRASHED, Cause.QUOTA, namespace=f"{sandbox.name}-no-jobs")
    assert "exceeded quota" in str(error)


def test_an_exhausted_quota_of_pods(sandbox: Sandbox, forbidden: dict[str, Run[Any]]) -> None:
    error = sandbox.expect_end(forbidden["no-pods"], State.CRASHED, Cause.QUOTA, namespace=f"{sandbox.name}-no-pods")
    assert "exceeded quota" in str(error)


def test_a_pod_that_restricted_forbids(sandbox: Sandbox, forbidden: dict[str, Run[Any]]) -> None:
    run = forbidden["unrestricted"]
    error = sandbox.expect_end(run, State.CRASHED, Cause.CONFIG_ERROR, namespace=f"{sandbox.name}-strict", timeout=120)
    assert "violates PodSecurity" in str(error)


@pytest.mark.row(27)
def test_a_second_pod_of_an_attempt_runs_nothing(sandbox: Sandbox, worker: Worker) -> None:
    run = sandbox.submit(flows.sleep, {"seconds": 8})
    sandbox.wait_until_started(run)
    (first,) = sandbox.pods(run)
    spec = {name: value for name, value in first["spec"].items() if name != "nodeName"}
    metadata = {"name": "second", "namespace": sandbox.name, "labels": {"flow_run_id": run.id}}
    k8s.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})

    def phase() -> str:
        return k8s.kubectl("get", "pod", "second", "-n", sandbox.name, "-o", "jsonpath={.status.phase}")

    sandbox.wait_until(lambda: phase() == "Running", "the second pod")
    assert run.result(timeout=60) == "held"
    sandbox.wait_until(lambda: phase() == "Succeeded", "the end of the second pod")
    k8s.kubectl("delete", "pod", "second", "-n", sandbox.name)
    sandbox.expect_end(run, State.SUCCEEDED)
    assert (sandbox.server.count_of(run, "ran"), sandbox.server.count_of(run, "held")) == (1, 1)


def test_a_worker_that_is_killed_is_replaced(sandbox: Sandbox, worker: Worker) -> None:
    runs = [sandbox.submit(flows.sleep, {"seconds": 12}) for _ in range(5)]
    for run in runs:
        sandbox.wait_until_started(run)
    cancelled = sandbox.submit(flows.sleep, {"seconds": 300})
    sandbox.wait_until_started(cancelled)
    for pid in worker.children:
        os.kill(pid, 9)
    worker.process.kill()
    sandbox.start_worker(node_lost=NODE_LOST)
    assert cancelled.cancel()
    for run in runs:
        sandbox.expect_end(run, State.SUCCEEDED)
        assert (sandbox.server.count_of(run, "ran"), sandbox.server.count_of(run, "held")) == (1, 1)
    sandbox.expect_end(cancelled, State.CANCELLED)


def test_redis_restarts_while_pods_run(sandbox: Sandbox, worker: Worker) -> None:
    runs = [sandbox.submit(flows.add, {"a": 1, "b": n}) for n in range(3)]
    runs += [sandbox.submit(flows.sleep, {"seconds": 6}) for _ in range(3)]
    for run in runs[3:]:
        sandbox.wait_until_started(run)
    sandbox.server.kill()
    sandbox.server.start()
    for run in runs:
        sandbox.expect_end(run, State.SUCCEEDED)
        assert sandbox.server.count_of(run, "ran") == 1


@pytest.mark.row(25)
@pytest.mark.skipif(not os.environ.get("DISPATCHER_TEST_BREAKER"), reason="DISPATCHER_TEST_BREAKER names no command")
def test_the_api_server_is_killed_and_restarted(sandbox: Sandbox, worker: Worker) -> None:
    short = sandbox.submit(flows.sleep, {"seconds": 5})
    timed_out = sandbox.submit(flows.sleep, {"seconds": 300}, timeout=4)
    long = sandbox.submit(flows.sleep, {"seconds": OUTAGE + 25})
    for run in (short, timed_out, long):
        sandbox.wait_until_started(run)
    k8s.break_cluster("kill", "kube-apiserver")
    killed_at = time.monotonic()
    try:
        late = [sandbox.submit(flows.add, {"a": number, "b": 2}) for number in range(5)]
        assert short.result(timeout=60) == "held"
        assert timed_out.wait(timeout=60)
        wait_until(
            lambda: time.monotonic() - killed_at >= OUTAGE, "the end of the outage", timeout=OUTAGE + 60, every=1.0
        )
        assert long.state in {State.RUNNING, State.SUCCEEDED}, "no run is declared lost meanwhile"
    finally:
        k8s.break_cluster("start", "kube-apiserver")
    sandbox.wait_until(lambda: k8s.kubectl("get", "nodes", check=False), "the API server")
    restarted_at = time.monotonic()
    # Kubernetes itself may then take one or two minutes to schedule a pod, and to collect garbage.
    assert [run.wait(timeout=180 + OUTAGE) for run in (long, *late)] == [True] * 6
    print(f"down for {restarted_at - killed_at:.0f} s, all have ended {time.monotonic() - restarted_at:.0f} s later")  # noqa: T201
    sandbox.wait_until(lambda: not leftovers(sandbox), "an empty namespace", timeout=90 + OUTAGE)
    print(f"nothing is left {time.monotonic() - restarted_at:.0f} s later")  # noqa: T201
    sandbox.expect_end(short, State.SUCCEEDED)
    sandbox.expect_end(timed_out, State.TIMED_OUT)
    sandbox.expect_end(long, State.SUCCEEDED)
    for run in late:  # also where a starting server denied what its rules allow
        sandbox.expect_end(run, State.SUCCEEDED)
    assert {sandbox.server.count_of(run, "ran") for run in (short, timed_out, long, *late)} == {1}


@pytest.mark.skipif(not os.environ.get("DISPATCHER_TEST_BREAKER"), reason="DISPATCHER_TEST_BREAKER names no command")
def test_the_kubelet_is_killed_and_restarted(sandbox: Sandbox, worker: Worker) -> None:
    short = sandbox.submit(flows.sleep, {"seconds": 5})
    cancelled = sandbox.submit(flows.sleep, {"seconds": 300})
    for run in (short, cancelled):
        sandbox.wait_until_started(run)
    k8s.break_cluster("kill", "kubelet")
    try:
        assert short.result(timeout=60) == "held"
        assert cancelled.cancel()
    finally:
        k8s.break_cluster("start", "kubelet")
    sandbox.expect_end(cancelled, State.CANCELLED, timeout=120)
    sandbox.expect_end(short, State.SUCCEEDED)
    assert sandbox.server.count_of(cancelled, "on_exit CANCELLED") == 1


def ready(item: dict[str, Any]) -> bool:
    """Return True if a pod or node is ready."""
    conditions = item["status"].get("conditions", ())
    return "True" in [condition["status"] for condition in conditions if condition["type"] == "Ready"]


def reachable(node: str) -> bool:
    """Return True if a node takes pods: it is ready, without a taint of an outage."""
    item = json.loads(k8s.kubectl("get", "node", node, "-o", "json"))
    return ready(item) and not any("node.kubernetes.io/" in taint["key"] for taint in item["spec"].get("taints", ()))


@pytest.mark.row(27)
@pytest.mark.skipif(not os.environ.get("DISPATCHER_TEST_BREAKER"), reason="DISPATCHER_TEST_BREAKER names no command")
def test_the_kubelet_is_gone_for_good(sandbox: Sandbox, worker: Worker) -> None:
    """A run ends once control plane and missing heartbeats agree. Its teardown stays pending with the reason, and is
    confirmed when a kubelet is back. Later runs just wait for it."""
    run = sandbox.submit(flows.sleep, {"seconds": 300})
    sandbox.wait_until_started(run)
    (pod,) = sandbox.wait_until(lambda: [pod for pod in sandbox.pods(run) if ready(pod)], "a ready pod")
    node = pod["spec"]["nodeName"]
    killed_at = time.monotonic()
    k8s.break_cluster("kill", "kubelet")
    try:
        assert k8s.kill_container(run.id) > 0
        error = run.exception(timeout=180)
        print(f"node_lost after {time.monotonic() - killed_at:.0f} s: {error}")  # noqa: T201
        assert (run.state, getattr(error, "cause", None)) == (State.CRASHED, Cause.NODE_LOST)
        pending = f"teardown pending: node {node}"
        sandbox.wait_until(lambda: pending in "\n".join(sandbox.client.explain(run)), pending)
        assert sandbox.pods(run)
        late = sandbox.submit(flows.add, {"a": 1, "b": 2})
    finally:
        k8s.break_cluster("start", "kubelet")
        sandbox.wait_until(lambda: reachable(node), "the node", timeout=180)
    sandbox.wait_until(lambda: not sandbox.pods(run), "the end of the lost pod", timeout=120)
    sandbox.expect_end(run, State.CRASHED, Cause.NODE_LOST)
    sandbox.expect_end(late, State.SUCCEEDED)
    assert [sandbox.server.count_of(run, event) for event in ("ran", "held")] == [1, 0]


def test_a_node_is_drained(sandbox: Sandbox, worker: Worker) -> None:
    run = sandbox.submit(flows.sleep, {"seconds": 300})
    sandbox.wait_until_started(run)
    (pod,) = sandbox.pods(run)
    node = pod["spec"]["nodeName"]
    selector = f"flow_run_id={run.id}"
    try:
        k8s.kubectl("drain", node, "--pod-selector", selector, "--ignore-daemonsets", "--force",
                      "--delete-emptydir-data", "--timeout=60s")  # fmt: skip
    finally:
        k8s.kubectl("uncordon", node)
    error = cast("RunCrashed", sandbox.expect_end(run, State.CRASHED, Cause.EVICTED))
    assert "EvictionByEvictionAPI" in (error.reason, str(error)) or "evict" in str(error).lower()
    assert sandbox.server.count_of(run, "on_exit CRASHED") == 1
