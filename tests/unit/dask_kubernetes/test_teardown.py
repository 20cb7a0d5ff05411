"""The end of an attempt takes its workers along, whoever interfered; what is left is listed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from backends.base import Phase
from backends.dask_kubernetes.backend import DaskKubernetesBackend
from backends.kubernetes.backend import KubernetesBackend
from dispatcher.errors import Transient
from dispatcher.runs.attempt import object_name
from tests.kubernetes_api import FakeApiServer, FakeCluster
from tests.kubernetes_proxy import FaultProxy
from tests.unit.dask_kubernetes.clusters import attempt, names_of, start_flow, until_names
from tests.unit.kubernetes.backends import NAME, SECRETS, eventually, settings
from tests.unit.kubernetes.jobs import RUN_ID

W1, W2 = f"{NAME}-w1", f"{NAME}-w2"
FLOW = f"{NAME}-pod"


@pytest.fixture
def workers(backend: DaskKubernetesBackend, request_: Any, handle: Any) -> list[str]:
    """Two workers of the attempt."""
    backend.create_workers(handle, request_, ["w1", "w2"])
    until_names(backend, handle, ["w1", "w2"])
    return [W1, W2]


def emptied(cluster: FakeCluster) -> bool:
    return not cluster.objects


@pytest.mark.parametrize("by", ["cancel", "discard"])
def test_the_end_of_an_attempt_leaves_nothing(
    by: str, workers: list[str], backend: DaskKubernetesBackend, handle: Any, cluster: FakeCluster
) -> None:
    ends: dict[str, Callable[[], bool]] = {
        "cancel": lambda: backend.cancel(handle, None),
        "discard": lambda: backend.discard(handle, None, claimed=True),
    }
    eventually(ends[by], "the end")
    assert emptied(cluster)


def test_the_end_is_confirmed_only_once_no_worker_is_left(
    workers: list[str], backend: DaskKubernetesBackend, handle: Any, cluster: FakeCluster
) -> None:
    cluster.keep_pods = True
    assert not backend.cancel(handle, None)
    cluster.drop("pods", FLOW)
    cluster.drop("pods", W1)
    eventually(lambda: backend.poll([handle])[0].phase is Phase.GONE, "the end of the Job")
    until_names(backend, handle, ["w2"])
    assert not backend.cancel(handle, None)
    cluster.drop("pods", W2)
    eventually(lambda: backend.cancel(handle, None), "the end")


@pytest.mark.parametrize("watching", [True, False])
def test_a_job_that_let_its_workers_go_takes_them_along(
    watching: bool,
    workers: list[str],
    backend: DaskKubernetesBackend,
    make_backend: Callable[[], DaskKubernetesBackend],
    handle: Any,
    cluster: FakeCluster,
) -> None:
    cluster.orphan("jobs", NAME)
    assert set(names_of(cluster, "pods")) == {FLOW, W1, W2}
    chosen = backend if watching else make_backend()
    eventually(lambda: chosen.cancel(handle, None), "the end")
    assert emptied(cluster), list(cluster.objects)


def test_a_cancel_by_the_request_alone_ends_workers_too(
    workers: list[str], backend: DaskKubernetesBackend, request_: Any, cluster: FakeCluster
) -> None:
    cluster.orphan("jobs", NAME)
    eventually(lambda: backend.cancel(None, request_), "the end")
    assert emptied(cluster), list(cluster.objects)


def test_workers_end_though_the_garbage_collector_does_not_come(
    workers: list[str], backend: DaskKubernetesBackend, handle: Any, cluster: FakeCluster
) -> None:
    cluster.drop("jobs", NAME)  # what it owned stays
    cluster.drop("pods", FLOW)
    eventually(lambda: backend.cancel(handle, None), "the end")
    assert names_of(cluster, "pods") == []


def test_workers_of_a_job_that_others_keep_end(
    workers: list[str], backend: DaskKubernetesBackend, handle: Any, cluster: FakeCluster
) -> None:
    metadata = cluster.get("jobs", NAME)["metadata"]
    cluster.change("jobs", NAME, metadata={**metadata, "finalizers": ["example.org/keep"]})
    with pytest.raises(Transient, match=r"it waits for finalizer example[.]org/keep on Job"):
        eventually(lambda: backend.cancel(handle, None), "the end")
    assert names_of(cluster, "pods") == []


def test_workers_end_where_the_flows_node_does_not_answer(
    workers: list[str], backend: DaskKubernetesBackend, handle: Any, cluster: FakeCluster
) -> None:
    cluster.keep_pods = True
    lost = [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]
    cluster.change("pods", FLOW, status={"phase": "Running", "conditions": lost, "podIP": "10.0.0.7"})
    assert not backend.cancel(handle, None)
    for name in workers:
        assert cluster.get("pods", name)["metadata"]["deletionTimestamp"]
        cluster.drop("pods", name)
    with pytest.raises(Transient, match="teardown pending: node node-1"):
        eventually(lambda: backend.cancel(handle, None), "the end")


def test_a_finalizer_on_a_worker_is_named(
    workers: list[str], backend: DaskKubernetesBackend, handle: Any, cluster: FakeCluster
) -> None:
    metadata = cluster.get("pods", W2)["metadata"]
    cluster.change("pods", W2, metadata={**metadata, "finalizers": ["example.org/keep"]})
    with pytest.raises(Transient, match=f"finalizer example.org/keep on pod default/{W2}"):
        eventually(lambda: backend.cancel(handle, None), "the end")


def test_a_pod_that_only_claims_to_be_a_worker_is_left_alone(
    workers: list[str], backend: DaskKubernetesBackend, handle: Any, cluster: FakeCluster
) -> None:
    copied = cluster.get("pods", W1)
    cluster.create("pods", {"metadata": {**copied["metadata"], "name": "mine-w1", "ownerReferences": []}, "spec": {}})
    until_names(backend, handle, ["w1", "w2"])
    eventually(lambda: backend.cancel(handle, None), "the end")
    assert names_of(cluster, "pods") == ["mine-w1"]
    assert backend.orphans("inst") == []


def test_an_attempt_with_workers_is_listed_once(
    workers: list[str], backend: DaskKubernetesBackend, handle: Any
) -> None:
    (orphan,) = backend.orphans("inst")
    assert (orphan.run_id, orphan.attempt, orphan.handle) == (RUN_ID, 2, handle)


@pytest.mark.parametrize("flow", ["gone", "left"])
def test_workers_without_a_job_are_listed_as_their_attempt(
    flow: str, workers: list[str], backend: DaskKubernetesBackend, handle: Any, cluster: FakeCluster
) -> None:
    cluster.orphan("jobs", NAME)
    if flow == "gone":
        cluster.drop("pods", FLOW)

    def listed() -> bool:
        orphans = backend.orphans("inst")
        return [(each.run_id, each.attempt, each.handle["uid"]) for each in orphans] == [(RUN_ID, 2, handle["uid"])]

    eventually(lambda: not names_of(cluster, "jobs") and listed(), "the list")
    (orphan,) = backend.orphans("inst")
    eventually(lambda: backend.cancel(orphan.handle, None), "the end")
    assert names_of(cluster, "pods") == []


def test_a_backend_lists_and_watches_only_its_own_jobs(
    workers: list[str],
    backend: DaskKubernetesBackend,
    request_: Any,
    handle: Any,
    serving: FakeApiServer,
    proxy: FaultProxy,
    tmp_path: Any,
) -> None:
    other = KubernetesBackend(settings(tmp_path, proxy.port))
    try:
        assert other.orphans("inst") == []
        assert len(backend.orphans("inst")) == 1
        other.watch(lambda uid, run_id: None, "inst")
        eventually(lambda: other.poll([handle])[0].phase is not Phase.UNSEEN, "the first lists")
        assert other.orphans("inst") == []
    finally:
        other.close()


def test_two_attempts_do_not_share_workers(
    workers: list[str], backend: DaskKubernetesBackend, handle: Any, cluster: FakeCluster
) -> None:
    name = object_name("another", 1)
    request = backend.prepare(attempt(run_id="another", number=1, name=name))
    other = backend.submit(request, SECRETS)
    start_flow(cluster, name)
    backend.create_workers(other, request, ["w1"])
    until_names(backend, other, ["w1"])
    eventually(lambda: backend.cancel(other, None), "the end of the other attempt")
    assert names_of(cluster, "pods") == [FLOW, W1, W2]
    until_names(backend, handle, ["w1", "w2"])
