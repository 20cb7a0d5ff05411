"""DaskClusters are created once, and deleted in the foreground; what the operator holds is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from backends.dask_kubernetes.operator_backend import DaskOperatorBackend
from backends.dask_kubernetes.operator_doctor import PACKAGES
from dispatcher import DaskKubernetesEnvironment
from dispatcher.errors import Permanent, Transient
from dispatcher.inspection.finding import Finding, Level
from dispatcher.runs.states import Cause
from dispatcher.support.failpoints import FailpointError, arm
from tests.kubernetes_api import FakeCluster, StatusError
from tests.unit.dask_kubernetes.clusters import names_of
from tests.unit.kubernetes import jobs
from tests.unit.kubernetes.backends import NAME, eventually
from tests.unit.kubernetes.test_doctor import FOUND, ended, with_pod

KINDS = ("daskclusters", "daskautoscalers")
KOPF = "kopf.zalando.org/KopfFinalizerMarker"


@pytest.fixture
def backend_class() -> type[DaskOperatorBackend]:
    return DaskOperatorBackend


@pytest.fixture
def request_(backend: DaskOperatorBackend) -> Any:
    backend.identify()
    environment = DaskKubernetesEnvironment(min_workers=0, max_workers=4, image="i:1", operator=True)
    return backend.prepare(jobs.attempt(environment))


def hold(cluster: FakeCluster, kind: str) -> None:
    """Have the operator's finalizer keep an object whose deletion in the foreground has begun."""
    metadata = cluster.get(kind, NAME)["metadata"]
    held = {"finalizers": [KOPF, "foregroundDeletion"], "deletionTimestamp": "2026-01-01T00:00:00Z"}
    cluster.change(kind, NAME, metadata={**metadata, **held, "ownerReferences": []})


def policies(cluster: FakeCluster, kind: str) -> list[str]:
    """Return how the deletions of objects of a kind were requested."""
    return [
        (request.body or {})["propagationPolicy"]
        for request in cluster.requests
        if request.method == "DELETE" and f"/{kind}/" in request.path
    ]


def test_a_job_that_waits_holds_no_cluster(handle: Any, cluster: FakeCluster) -> None:
    assert names_of(cluster, "daskclusters") == []
    assert names_of(cluster, "networkpolicies") == []


def test_a_cluster_from_nothing_is_created_all_the_same(
    backend: DaskOperatorBackend, request_: Any, handle: Any, cluster: FakeCluster
) -> None:
    first = backend.first_workers(request_)
    assert first == ("w1",)
    for _ in range(2):
        backend.create_workers(handle, request_, first)
    assert names_of(cluster, "daskclusters") == names_of(cluster, "daskautoscalers") == [NAME]
    assert [state.name for state in backend.workers(handle)] == ["w1"]
    assert backend.delete_workers(handle, ["w1"])
    assert backend.workers(handle) == []


@pytest.mark.parametrize("end", [FailpointError, Transient])
@pytest.mark.parametrize("number", [1, 2])
def test_a_worker_of_ours_that_dies_after_an_object_is_followed_by_one_that_goes_on(
    number: int,
    end: type[Exception],
    request_: Any,
    handle: Any,
    cluster: FakeCluster,
    backend: DaskOperatorBackend,
    make_backend: Callable[[], DaskOperatorBackend],
) -> None:
    arm(f"cluster.operator_made={'raise' if end is FailpointError else 'reply_lost'}@{number}")
    with pytest.raises(end):
        backend.create_workers(handle, request_, ["w1"])
    assert len(names_of(cluster, "daskautoscalers")) == number - 1
    make_backend().create_workers(handle, request_, ["w1"])
    assert names_of(cluster, "daskclusters") == names_of(cluster, "daskautoscalers") == [NAME]
    assert {cluster.get(kind, NAME)["metadata"]["ownerReferences"][0]["uid"] for kind in KINDS} == {handle["uid"]}


def test_the_object_of_somebody_else_ends_the_attempt(
    backend: DaskOperatorBackend, request_: Any, handle: Any, cluster: FakeCluster
) -> None:
    cluster.create("daskclusters", {"metadata": {"name": NAME}})
    with pytest.raises(Permanent, match=f"DaskCluster default/{NAME} was created by somebody else"):
        backend.create_workers(handle, request_, ["w1"])
    assert backend.cancel(handle, None) or eventually(lambda: backend.cancel(handle, None), "the end")
    assert names_of(cluster, "daskclusters") == [NAME]


def test_a_cluster_without_the_operators_resources_is_a_configuration_error(
    backend: DaskOperatorBackend, request_: Any, handle: Any, cluster: FakeCluster
) -> None:
    cluster.errors["POST", "daskclusters"] = StatusError(404, "", "404 page not found")
    with pytest.raises(Permanent, match=r"knows no daskclusters[.]kubernetes[.]dask[.]org: install") as raised:
        backend.create_workers(handle, request_, ["w1"])
    assert raised.value.cause is Cause.CONFIG_ERROR


def test_the_end_is_requested_in_the_foreground_and_leaves_nothing(
    backend: DaskOperatorBackend, request_: Any, handle: Any, cluster: FakeCluster
) -> None:
    backend.create_workers(handle, request_, ["w1"])
    eventually(lambda: backend.cancel(handle, None), "the end")
    assert not cluster.objects
    assert set(policies(cluster, "jobs")) == {"Foreground"}


@pytest.mark.parametrize("by_request", [False, True])
@pytest.mark.parametrize("kind", ["daskclusters", "daskautoscalers"])
def test_what_the_operators_finalizer_holds_is_said(
    kind: str, by_request: bool, backend: DaskOperatorBackend, request_: Any, handle: Any, cluster: FakeCluster
) -> None:
    backend.create_workers(handle, request_, ["w1"])
    hold(cluster, kind)
    arguments = (None, request_) if by_request else (handle, None)
    with pytest.raises(Transient, match=f"teardown pending: it waits for finalizer {KOPF} on Dask.* default/{NAME}"):
        eventually(lambda: backend.cancel(*arguments), "the end")
    cluster.drop(kind, NAME)
    eventually(lambda: backend.cancel(*arguments), "the end")


def test_a_cluster_whose_job_is_gone_is_deleted_in_the_foreground(
    backend: DaskOperatorBackend, request_: Any, handle: Any, cluster: FakeCluster
) -> None:
    backend.create_workers(handle, request_, ["w1"])
    cluster.drop("jobs", NAME)
    cluster.drop("pods", f"{NAME}-pod")
    eventually(lambda: backend.cancel(handle, None), "the end")
    assert policies(cluster, "daskclusters") == ["Foreground"]
    assert names_of(cluster, "daskclusters") == names_of(cluster, "daskautoscalers") == []


def test_the_end_waits_for_the_operators_pods(
    backend: DaskOperatorBackend, request_: Any, handle: Any, cluster: FakeCluster
) -> None:
    backend.create_workers(handle, request_, ["w1"])
    labels = {**cluster.get("daskclusters", NAME)["metadata"]["labels"], "dask.org/cluster-name": NAME}
    cluster.create("pods", {"metadata": {"name": "of-the-operator", "labels": labels}, "spec": {}, "status": {}})
    eventually(lambda: not backend.cancel(handle, None) and not names_of(cluster, "jobs"), "the end of the Job")
    assert not backend.cancel(handle, None)
    cluster.drop("pods", "of-the-operator")
    eventually(lambda: backend.cancel(handle, None), "the end")


@pytest.fixture
def examine(backend: DaskOperatorBackend, cluster: FakeCluster) -> Callable[[], dict[str, Finding]]:
    cluster.on_job = with_pod(cluster, ended(FOUND.to_json()))
    return lambda: {finding.subject: finding for finding in backend.examine(within=5)}


def test_the_doctor_names_what_is_missing(examine: Callable[[], dict[str, Finding]], cluster: FakeCluster) -> None:
    cluster.errors["GET", "daskautoscalers"] = StatusError(404, "", "404 page not found")
    cluster.denied.add(("daskclusters", "create"))
    findings = examine()
    assert findings["operator"].level is Level.PROBLEM
    assert "knows no daskautoscalers.kubernetes.dask.org" in findings["operator"].text
    assert findings["rights"].text == "namespace default: missing create daskclusters"
    assert "cryptography" not in PACKAGES


def test_the_doctor_finds_nothing_wrong(examine: Callable[[], dict[str, Finding]]) -> None:
    findings = examine()
    for subject in ("dask", "rights", "operator", "start"):
        assert findings[subject].level is Level.OK, findings[subject]
