"""Direct execution: the Job and the workers that it starts with, without queue or record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backends.dask_kubernetes import backend as backends
from dispatcher import DaskKubernetesEnvironment, InvalidInput, ModuleStorage
from tests.kubernetes_api import FakeApiServer, FakeCluster, StatusError, kubeconfig
from tests.unit.dask_kubernetes.clusters import ADDRESS, names_of


@pytest.fixture
def cluster(serving: FakeApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    """Cluster of a process that finds its kubeconfig as a user's program does."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, serving.port)))
    monkeypatch.delenv("DISPATCHER__URL", raising=False)
    return serving.cluster


def execute(minimum: int) -> dict[str, Any]:
    environment = DaskKubernetesEnvironment(min_workers=minimum, max_workers=3, image="flows:1")
    handle: dict[str, Any] = environment.execute(ModuleStorage(), "m:f")
    return handle


@pytest.mark.parametrize("minimum", [1, 2])
def test_execute_creates_the_workers_that_it_starts_with(minimum: int, cluster: FakeCluster) -> None:
    cluster.on_job = lambda job: cluster.add_pod(job, phase="Running", podIP=ADDRESS)
    handle = execute(minimum)
    name = handle["name"]
    assert names_of(cluster, "pods")[1:] == [f"{name}-w{number}" for number in range(1, minimum + 1)]
    assert sorted(names_of(cluster, "secrets")) == [name, f"{name}-tls"]


def test_execute_waits_for_no_address_if_it_starts_with_no_worker(cluster: FakeCluster) -> None:
    handle = execute(0)
    assert names_of(cluster, "jobs") == [handle["name"]]
    assert names_of(cluster, "pods") == []


def test_execute_waits_for_the_address(cluster: FakeCluster) -> None:
    def start(job: Any) -> None:
        pod = cluster.add_pod(job, phase="Pending")
        listed = cluster.list

        def list_later(kind: str, *rest: Any) -> Any:  # the pod has an address from its second look on
            if kind == "pods" and any(request.path.endswith("/pods") for request in cluster.requests[:-1]):
                cluster.change("pods", pod["metadata"]["name"], status={"phase": "Running", "podIP": ADDRESS})
            return listed(kind, *rest)

        cluster.list = list_later  # type: ignore[assignment, method-assign]

    cluster.on_job = start
    name = execute(1)["name"]
    assert names_of(cluster, "pods") == [f"{name}-pod", f"{name}-w1"]


def test_execute_deletes_its_job_if_there_is_no_address_in_time(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "ADDRESS_TIMEOUT", 0.0)
    cluster.on_job = lambda job: cluster.add_pod(job, phase="Pending")
    with pytest.raises(InvalidInput, match=r"DaskKubernetesEnvironment: .*its Job was deleted: .*no address"):
        execute(1)
    assert not cluster.objects


def test_execute_deletes_its_job_if_its_workers_are_refused(cluster: FakeCluster) -> None:
    cluster.on_job = lambda job: cluster.add_pod(job, phase="Running", podIP=ADDRESS)
    cluster.errors["POST", "pods"] = StatusError(403, "Forbidden", 'violates PodSecurity "restricted:latest"')
    with pytest.raises(InvalidInput, match=r"its Job was deleted: worker w1: violates PodSecurity"):
        execute(1)
    assert not cluster.objects
