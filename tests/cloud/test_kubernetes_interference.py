"""Interference of others with the objects of runs on a real cluster: Jobs deleted without their pods, labels taken off,
finalizers, forced deletions."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import pytest

from dispatcher import Cause, Run, Settings, State
from dispatcher.inspection.orphans import OrphanCleanup
from tests.cloud import flows, k8s
from tests.cloud.sandbox import Sandbox
from tests.cloud.test_kubernetes_orphans import create_orphan
from tests.integration.workers import KEYS, Worker

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(400)]

HOLD = "example.com/hold"


@pytest.fixture(scope="module")
def worker(sandbox: Sandbox) -> Worker:
    return sandbox.start_worker()


def started(sandbox: Sandbox, seconds: float, **options: Any) -> Run[Any]:
    run = sandbox.submit(flows.sleep, {"seconds": seconds}, **options)
    sandbox.wait_until_started(run)
    return run


def name_of(sandbox: Sandbox, kind: str, run: Run[Any]) -> str:
    (item,) = k8s.items(kind, sandbox.name, f"flow_run_id={run.id}")
    return str(item["metadata"]["name"])


def delete_plainly(sandbox: Sandbox, run: Run[Any]) -> None:
    """Delete a run's Job as a plain API call does, which leaves its pod and its Secret."""
    path = f"/apis/batch/v1/namespaces/{sandbox.name}/jobs"
    k8s.kubectl("delete", "--raw", f"{path}/{name_of(sandbox, 'jobs', run)}")
    sandbox.wait_until(lambda: not k8s.items("jobs", sandbox.name, f"flow_run_id={run.id}"), "the Job's end")


def set_finalizers(sandbox: Sandbox, kind: str, name: str, *finalizers: str) -> None:
    """Set the finalizers of an object that others have set; Kubernetes' own stay."""
    item = json.loads(k8s.kubectl("get", kind, name, "-n", sandbox.name, "-o", "json"))
    own = [present for present in item["metadata"].get("finalizers", ()) if present != HOLD]
    patch = {"metadata": {"finalizers": [*own, *finalizers]}}
    k8s.kubectl("patch", kind, name, "-n", sandbox.name, "--type=merge", "-p", json.dumps(patch))


def test_a_pod_without_its_job_survives_a_new_worker(sandbox: Sandbox, worker: Worker) -> None:
    """It runs to its end, or to a cancel, and nothing of it is left."""
    ends, later, early = (started(sandbox, seconds) for seconds in (30, 300, 300))
    for run in (ends, later, early):
        delete_plainly(sandbox, run)
    assert early.cancel()
    sandbox.expect_end(early, State.CANCELLED)
    worker.end()
    sandbox.start_worker()
    sandbox.expect_end(ends, State.SUCCEEDED)
    assert later.state is State.RUNNING
    assert later.cancel()
    sandbox.expect_end(later, State.CANCELLED)
    assert sandbox.server.count_of(later, "on_exit CANCELLED") == 1


def test_a_secret_deleted_before_its_pod_has_mounted_it_is_created_again(sandbox: Sandbox, worker: Worker) -> None:
    gate = "example.com/later"
    pod = {"schedulingGates": [{"name": gate}], "containers": [{"name": "flow"}]}
    spec = {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": {"spec": pod}}}
    run = sandbox.submit(flows.add, {"a": 1, "b": 2}, environment={"job_spec": spec})
    [held] = sandbox.wait_until(lambda: sandbox.pods(run), "its pod")
    secret = name_of(sandbox, "secrets", run)
    k8s.kubectl("delete", "secret", secret, "-n", sandbox.name)
    patch = json.dumps({"spec": {"schedulingGates": None}})
    k8s.kubectl("patch", "pod", held["metadata"]["name"], "-n", sandbox.name, "--type=merge", "-p", patch)
    sandbox.wait_until(
        lambda: "Secret with its runner's credentials is missing" in "\n".join(sandbox.client.explain(run)),
        "the reason in the output of explain",
    )
    sandbox.expect_end(run, State.SUCCEEDED, timeout=240)


@pytest.mark.parametrize("target", ["job", "pod", "parallelism"])
def test_who_ended_a_pod_is_told_apart(target: str, sandbox: Sandbox, worker: Worker) -> None:
    run = started(sandbox, 300)
    job = name_of(sandbox, "jobs", run)
    [pod] = sandbox.pods(run)
    if target == "parallelism":
        k8s.kubectl("patch", "job", job, "-n", sandbox.name, "--type=merge", "-p", '{"spec":{"parallelism":0}}')
    else:
        name = job if target == "job" else pod["metadata"]["name"]
        k8s.kubectl("delete", target, name, "-n", sandbox.name, "--wait=false")
    error = sandbox.expect_end(run, State.CRASHED, Cause.KILLED)
    words = {"job": "its Job was deleted", "pod": "its pod was deleted", "parallelism": "spec.parallelism was set to 0"}
    assert words[target] in str(error)


def test_a_pod_without_its_job_and_without_a_run_is_listed_and_ended(
    sandbox: Sandbox, worker: Worker, image: str
) -> None:
    kubernetes = {"namespaces": [sandbox.name], "image": image}
    settings = Settings.load(url=sandbox.server.url, signing_keys=json.dumps(KEYS), kubernetes=kubernetes)
    run_id = create_orphan(sandbox, settings)
    selector = f"flow_run_id={run_id}"
    sandbox.wait_until(lambda: k8s.items("pods", sandbox.name, selector), "its pod")
    k8s.kubectl("delete", "job", "-n", sandbox.name, "-l", selector, "--cascade=orphan")
    with closing(OrphanCleanup(sandbox.client.records, settings, ["kubernetes"])) as sweep:
        assert run_id in {orphan.infrastructure.run_id for orphan in sweep.orphans(older=0.0)}
    sandbox.wait_until(lambda: not k8s.items("jobs,pods,secrets", sandbox.name, selector), "its end", timeout=120)


@pytest.mark.parametrize("label", ["instance", "batch.kubernetes.io/controller-uid"])
def test_labels_taken_off_end_nothing(sandbox: Sandbox, worker: Worker, label: str) -> None:
    ends, cancelled = started(sandbox, 20), started(sandbox, 300)
    for run in (ends, cancelled):
        k8s.kubectl("label", "pod", name_of(sandbox, "pods", run), f"{label}-", "-n", sandbox.name)
        if label == "instance":
            k8s.kubectl("label", "job", name_of(sandbox, "jobs", run), f"{label}-", "-n", sandbox.name)
    sandbox.expect_end(ends, State.SUCCEEDED)
    assert cancelled.state is State.RUNNING
    assert cancelled.cancel()
    sandbox.expect_end(cancelled, State.CANCELLED)


@pytest.mark.parametrize("kind", ["job", "pod"])
def test_a_finalizer_of_others_is_named(sandbox: Sandbox, worker: Worker, kind: str) -> None:
    """It keeps the object, not the flow."""
    run = started(sandbox, 300)
    name = name_of(sandbox, f"{kind}s", run)
    set_finalizers(sandbox, kind, name, HOLD)
    try:
        assert run.cancel()
        assert run.wait(timeout=60)
        assert run.state is State.CANCELLED
        reason = f"waits for finalizer {HOLD} on {'Job' if kind == 'job' else kind} {sandbox.name}/{name}"
        sandbox.wait_until(lambda: reason in "\n".join(sandbox.client.explain(run)), reason, timeout=90)
    finally:
        set_finalizers(sandbox, kind, name)
    sandbox.expect_end(run, State.CANCELLED)


def test_a_pod_deleted_by_force(sandbox: Sandbox, worker: Worker) -> None:
    run = started(sandbox, 300)
    k8s.kubectl("delete", "pod", name_of(sandbox, "pods", run), "-n", sandbox.name, "--force", "--grace-period=0")
    sandbox.expect_end(run, State.CRASHED, Cause.KILLED)


def test_a_job_deleted_in_the_foreground_waits_for_others(sandbox: Sandbox, worker: Worker) -> None:
    """An object of somebody else that the Job owns blocks its deletion. A cancel frees it."""
    run = started(sandbox, 300)
    (job,) = k8s.items("jobs", sandbox.name, f"flow_run_id={run.id}")
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"],
             "blockOwnerDeletion": True}  # fmt: skip
    blocker = {"name": "blocker", "namespace": sandbox.name, "ownerReferences": [owner], "finalizers": [HOLD]}
    k8s.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": blocker})
    try:
        k8s.kubectl("delete", "job", owner["name"], "-n", sandbox.name, "--cascade=foreground", "--wait=false")
        sandbox.expect_end(run, State.CRASHED, Cause.KILLED)
    finally:
        set_finalizers(sandbox, "configmap", "blocker")
