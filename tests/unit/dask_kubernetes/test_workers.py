"""Worker pods: created under the names given, adopted, deleted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from backends.base import Phase, Scaled
from backends.dask_kubernetes.backend import DaskKubernetesBackend
from backends.kubernetes.backend import KubernetesBackend
from dispatcher import Cause
from dispatcher.errors import Permanent, Transient
from tests.kubernetes_api import FakeCluster, StatusError
from tests.kubernetes_proxy import FaultProxy
from tests.unit.dask_kubernetes.clusters import (
    ADDRESS,
    attempt,
    made,
    names_of,
    start_flow,
    states,
    until_names,
    worker_status,
)
from tests.unit.kubernetes.backends import NAME, SECRETS, eventually

W1, W2, W3 = (f"{NAME}-w{number}" for number in (1, 2, 3))


def test_only_this_backend_has_workers(backend: DaskKubernetesBackend, request_: Any) -> None:
    assert isinstance(backend, Scaled)
    assert not isinstance(KubernetesBackend(), Scaled)
    assert backend.first_workers(request_) == ("w1", "w2")
    assert backend.max_workers(request_) == 4


def test_a_worker_is_owned_by_the_job_and_not_controlled(
    backend: DaskKubernetesBackend, request_: Any, handle: Any, cluster: FakeCluster
) -> None:
    backend.create_workers(handle, request_, ["w1"])
    pod = cluster.get("pods", W1)
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": NAME, "uid": handle["uid"]}
    assert pod["metadata"]["ownerReferences"] == [owner]
    assert pod["metadata"]["labels"]["dask-worker"] == "w1"
    container = pod["spec"]["containers"][0]
    assert {"name": "DASK_SCHEDULER_ADDRESS", "value": f"tls://{ADDRESS}:8786"} in container["env"]
    assert "secretKeyRef" not in str(container)
    assert backend.poll([handle])[0].phase is not Phase.GONE


@pytest.mark.parametrize("status", [{}, {"podIP": "10.0.0.7", "phase": "Succeeded"}, None])
def test_no_worker_is_created_before_the_flow_has_an_address(
    status: dict[str, Any] | None, backend: DaskKubernetesBackend, request_: Any, cluster: FakeCluster
) -> None:
    handle = backend.submit(request_, SECRETS)
    if status is not None:
        cluster.add_pod(cluster.get("jobs", NAME), **{"phase": "Pending", **status})
    with pytest.raises(Transient, match="no address yet"):
        backend.create_workers(handle, request_, ["w1"])
    assert W1 not in names_of(cluster, "pods")


@pytest.mark.parametrize("watching", [True, False])
def test_workers_that_exist_are_adopted(
    watching: bool,
    backend: DaskKubernetesBackend,
    make_backend: Callable[[], DaskKubernetesBackend],
    request_: Any,
    handle: Any,
    cluster: FakeCluster,
) -> None:
    if watching:
        states(backend, handle)
    backend.create_workers(handle, request_, ["w1", "w2"])
    backend.create_workers(handle, request_, ["w1", "w2", "w3"])
    make_backend().create_workers(handle, request_, ["w1", "w2", "w3"])
    assert made(cluster, "pods")[1:] == [W1, W2, W3]
    assert [state.name for state in until_names(backend, handle, ["w1", "w2", "w3"])] == ["w1", "w2", "w3"]


def test_the_watch_saves_requests(
    backend: DaskKubernetesBackend, request_: Any, handle: Any, cluster: FakeCluster
) -> None:
    states(backend, handle)
    backend.create_workers(handle, request_, ["w1"])
    until_names(backend, handle, ["w1"])
    cluster.requests.clear()
    backend.create_workers(handle, request_, ["w1"])
    unwatched = [request for request in cluster.requests if "watch" not in request.query]
    assert [request.path for request in unwatched if request.path.endswith("/pods") or W1 in request.path] == []


def test_workers_are_sorted_by_their_numbers(
    backend: DaskKubernetesBackend, request_: Any, handle: Any, cluster: FakeCluster
) -> None:
    backend.create_workers(handle, request_, ["w10", "w9", "w2"])
    until_names(backend, handle, ["w2", "w9", "w10"])


@pytest.mark.parametrize("kind", ["lost_reply", "cut", "truncate"])
def test_a_reply_that_was_lost_makes_no_second_worker(
    kind: str, backend: DaskKubernetesBackend, request_: Any, handle: Any, cluster: FakeCluster, proxy: FaultProxy
) -> None:
    proxy.inject(kind, "POST", "/pods")
    backend.create_workers(handle, request_, ["w1", "w2"])
    assert len(proxy.triggered) == 1
    assert made(cluster, "pods")[1:] == [W1, W2]


def test_a_quota_is_the_cause_of_a_worker_that_waits(
    backend: DaskKubernetesBackend, request_: Any, handle: Any, cluster: FakeCluster
) -> None:
    message = f'pods "{W1}" is forbidden: exceeded quota: pods, requested: pods=1, used: pods=3, limited: pods=3'
    cluster.errors["POST", "pods"] = StatusError(403, "Forbidden", message)
    with pytest.raises(Transient, match=r"worker w1: .*exceeded quota: pods") as raised:
        backend.create_workers(handle, request_, ["w1"])
    assert raised.value.cause is Cause.QUOTA
    cluster.errors.clear()
    backend.create_workers(handle, request_, ["w1"])
    assert W1 in names_of(cluster, "pods")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (StatusError(403, "Forbidden", 'violates PodSecurity "restricted:latest"'), "AdmissionRefused"),
        (StatusError(422, "Invalid", "spec.containers[0].image: Required value"), "Invalid"),
    ],
)
def test_a_refused_worker_is_named(
    error: StatusError,
    reason: str,
    backend: DaskKubernetesBackend,
    request_: Any,
    handle: Any,
    cluster: FakeCluster,
) -> None:
    cluster.errors["POST", "pods"] = error
    with pytest.raises(Permanent, match=r"^worker w2: ") as raised:
        backend.create_workers(handle, request_, ["w2"])
    assert (raised.value.cause, raised.value.reason) == (Cause.CONFIG_ERROR, reason)


def test_a_missing_right_is_named(
    backend: DaskKubernetesBackend, request_: Any, handle: Any, cluster: FakeCluster
) -> None:
    denial = 'pods is forbidden: User "system:serviceaccount:w:w" cannot create resource "pods" in API group ""'
    cluster.errors["POST", "pods"] = StatusError(403, "Forbidden", denial)
    cluster.denied.add(("pods", "create"))
    with pytest.raises(Permanent, match="may not create pods in namespace default"):
        backend.create_workers(handle, request_, ["w1"])


def test_somebody_elses_pod_of_that_name_is_left_alone(
    backend: DaskKubernetesBackend, request_: Any, handle: Any, cluster: FakeCluster
) -> None:
    labels = {"instance": "inst", "dask-worker": "w1", "flow-dispatcher/backend": "dask-kubernetes"}
    cluster.create("pods", {"metadata": {"name": W1, "labels": labels}, "spec": {}})
    with pytest.raises(Permanent, match=f"worker w1: pod default/{W1} was created by somebody else") as raised:
        backend.create_workers(handle, request_, ["w1"])
    assert raised.value.cause is Cause.START_FAILED
    assert backend.delete_workers(handle, ["w1"])
    assert W1 in names_of(cluster, "pods")


def test_a_name_is_used_again_only_once_its_pod_is_gone(
    backend: DaskKubernetesBackend, request_: Any, handle: Any, cluster: FakeCluster
) -> None:
    cluster.keep_pods = True
    backend.create_workers(handle, request_, ["w1", "w2"])
    until_names(backend, handle, ["w1", "w2"])
    assert not backend.delete_workers(handle, ["w1"])
    with pytest.raises(Transient, match="worker w1: its former pod is being deleted"):
        backend.create_workers(handle, request_, ["w1", "w3"])
    assert W3 in names_of(cluster, "pods"), "those after it don't wait for it"
    cluster.drop("pods", W1)
    eventually(lambda: backend.delete_workers(handle, ["w1"]), "the end of w1")
    backend.create_workers(handle, request_, ["w1"])
    until_names(backend, handle, ["w1", "w2", "w3"])


def test_only_the_workers_named_are_deleted(
    backend: DaskKubernetesBackend, request_: Any, handle: Any, cluster: FakeCluster
) -> None:
    backend.create_workers(handle, request_, ["w1", "w2", "w3"])
    until_names(backend, handle, ["w1", "w2", "w3"])
    eventually(lambda: backend.delete_workers(handle, ["w1", "w3", "w9"]), "their end")
    assert names_of(cluster, "pods") == [f"{NAME}-pod", W2]


def test_a_worker_that_no_watch_has_shown_yet_is_deleted(
    backend: DaskKubernetesBackend, request_: Any, handle: Any, cluster: FakeCluster, proxy: FaultProxy
) -> None:
    states(backend, handle)
    proxy.inject("cut", "GET", "/pods?watch", times=10**6)
    backend.create_workers(handle, request_, ["w1"])
    backend.delete_workers(handle, ["w1"])
    assert W1 not in names_of(cluster, "pods")


def test_a_finalizer_on_a_worker_is_named(
    backend: DaskKubernetesBackend, request_: Any, handle: Any, cluster: FakeCluster
) -> None:
    backend.create_workers(handle, request_, ["w1"])
    metadata = cluster.get("pods", W1)["metadata"]
    cluster.change("pods", W1, metadata={**metadata, "finalizers": ["example.org/keep"]})
    until_names(backend, handle, ["w1"])
    with pytest.raises(Transient, match=f"it waits for finalizer example.org/keep on pod default/{W1}, set by others"):
        eventually(lambda: backend.delete_workers(handle, ["w1"]), "its end")


def test_a_worker_on_a_lost_node_is_named(
    backend: DaskKubernetesBackend, request_: Any, handle: Any, cluster: FakeCluster
) -> None:
    cluster.keep_pods = True
    backend.create_workers(handle, request_, ["w1"])
    unready = {"conditions": [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]}
    cluster.change("pods", W1, spec={"nodeName": "node-2"}, status={"phase": "Running", **unready})
    until_names(backend, handle, ["w1"])
    with pytest.raises(Transient, match="teardown pending: node node-2"):
        eventually(lambda: backend.delete_workers(handle, ["w1"]), "its end")


def test_workers_of_another_request_are_not_created(
    backend: DaskKubernetesBackend, handle: Any, cluster: FakeCluster
) -> None:
    other = backend.prepare(attempt(run_id="another", name="flow-another-1"))
    with pytest.raises(Permanent, match="is of another request"):
        backend.create_workers(handle, other, ["w1"])


def test_nothing_is_said_of_workers_out_of_sight(
    backend: DaskKubernetesBackend, handle: Any, proxy: FaultProxy
) -> None:
    proxy.inject("cut", "GET", "", times=10**6)
    with pytest.raises(Transient, match="its workers aren't in sight"):
        backend.workers(handle)


def test_the_last_lines_of_a_worker_are_read(
    backend: DaskKubernetesBackend, request_: Any, handle: Any, cluster: FakeCluster
) -> None:
    backend.create_workers(handle, request_, ["w1"])
    until_names(backend, handle, ["w1"])
    assert backend.worker_logs(handle, "w1") == (), "it hasn't started"
    cluster.logs["dask-worker"] = b"MemoryError\n"
    cluster.change("pods", W1, status=worker_status(running={}))
    eventually(lambda: backend.worker_logs(handle, "w1") == ("MemoryError",), "its lines")
    assert backend.worker_logs(handle, "w2") == ()


def test_a_worker_outside_of_the_scope_is_left_alone(
    backend: DaskKubernetesBackend, request_: Any, handle: Any
) -> None:
    elsewhere = {**handle, "namespace": "team"}
    calls: list[Callable[[], object]] = [
        lambda: backend.workers(elsewhere),
        lambda: backend.create_workers(elsewhere, request_, ["w1"]),
        lambda: backend.delete_workers(elsewhere, ["w1"]),
        lambda: backend.worker_logs(elsewhere, "w1"),
    ]
    for call in calls:
        with pytest.raises(Transient, match="this worker serves default"):
            call()


def test_a_flow_pod_with_a_workers_label_is_the_flows(
    backend: DaskKubernetesBackend, request_: Any, cluster: FakeCluster
) -> None:
    handle = backend.submit(request_, SECRETS)
    start_flow(cluster)
    cluster.relabel("pods", f"{NAME}-pod", **{"dask-worker": "w1"})
    backend.create_workers(handle, request_, ["w2"])
    until_names(backend, handle, ["w2"])
