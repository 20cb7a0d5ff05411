"""The identity of a cluster: another one with the same name or address is never taken for the run's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from backends.base import Phase
from backends.kubernetes.backend import KubernetesBackend
from dispatcher import Cause
from dispatcher.errors import Transient
from dispatcher.inspection.finding import Level
from tests.kubernetes_api import FakeApiServer, FakeCluster, StatusError
from tests.kubernetes_proxy import FaultProxy
from tests.unit.kubernetes.backends import NAME, SECRETS, eventually, running, settings, until
from tests.unit.kubernetes.jobs import attempt

SYSTEM, ROOT_CA = "kube-system", "kube-root-ca.crt/default"


def deny(cluster: FakeCluster, *kinds: str) -> None:
    """Deny the worker these kinds of objects by RBAC."""
    for kind in kinds:
        cluster.errors["GET", kind] = StatusError(403, "Forbidden", f"cannot get {kind}")


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Job that no watch has shown is looked up at once."""
    monkeypatch.setattr("backends.kubernetes.observer.LOOKUP_AFTER", 0.0)


@pytest.fixture
def other() -> Iterator[FakeApiServer]:
    """Another cluster."""
    with FakeApiServer() as other:
        yield other


@pytest.fixture
def elsewhere(other: FakeApiServer, tmp_path: Path) -> Iterator[KubernetesBackend]:
    """A backend with the same settings, whose kubeconfig names the other cluster."""
    folder = tmp_path / "other"
    folder.mkdir()
    backend = KubernetesBackend(settings(folder, other.port))
    yield backend
    backend.close()


def identified(backend: KubernetesBackend) -> Any:
    """Return a request with the identity of the backend's cluster."""
    backend.identify()
    return backend.prepare(attempt())


def test_requests_and_handles_carry_the_identity(backend: KubernetesBackend, cluster: FakeCluster) -> None:
    assert "identity" not in backend.prepare(attempt()), "preparing does no I/O"
    request = identified(backend)
    assert request["identity"] == {SYSTEM: cluster.uid, ROOT_CA: f"{cluster.uid}-default"} == backend.identity
    handle = backend.submit(request, SECRETS)
    assert handle["identity"] == request["identity"]
    (orphan,) = backend.orphans("inst")
    assert orphan.handle == handle


def test_it_is_read_once_per_socket_and_not_per_run(
    backend: KubernetesBackend, cluster: FakeCluster, proxy: FaultProxy
) -> None:
    for n in range(5):
        backend.identify()
        backend.submit(backend.prepare(attempt(name=f"flow-{n}", run_id=f"run{n}")), SECRETS)
    before = len(cluster.requests)
    for n in range(5, 10):
        backend.identify()
        backend.submit(backend.prepare(attempt(name=f"flow-{n}", run_id=f"run{n}")), SECRETS)
    assert [request.method for request in cluster.requests[before:]] == ["POST", "POST"] * 5
    proxy.inject("cut", "POST", "/jobs")  # the socket is lost
    backend.submit(backend.prepare(attempt(name="flow-x", run_id="runx")), SECRETS)
    reads = cluster.count("GET", "kube-system")
    backend.identify()
    assert cluster.count("GET", "kube-system") == reads + 1


def test_a_run_that_is_watched_costs_no_request_more(backend: KubernetesBackend, cluster: FakeCluster) -> None:
    """Three requests, from its creation to the confirmation that it is gone; whoever lists reads the identity."""
    first = backend.submit(identified(backend), SECRETS)
    until(backend, first, Phase.WAITING)
    eventually(lambda: sum("watch" in request.query for request in cluster.requests) == 3, "three watches")
    backend.identify()
    before = len(cluster.requests)
    handle = backend.submit(backend.prepare(attempt(name="flow-x", run_id="runx")), SECRETS)
    until(backend, handle, Phase.WAITING)
    assert not backend.cancel(handle, None)
    eventually(lambda: backend.cancel(handle, None), "the confirmation")
    assert [request.method for request in cluster.requests[before:]] == ["POST", "POST", "DELETE"]


def test_it_is_read_again_with_a_new_credential(backend: KubernetesBackend, cluster: FakeCluster) -> None:
    backend.identify()
    reads = cluster.count("GET", "kube-system")
    backend._api._connect(replacing=backend._api._connection)  # as after 401
    backend.identify()
    assert cluster.count("GET", "kube-system") > reads


@pytest.mark.parametrize("denied", ["", "namespaces", "configmaps"])
def test_another_cluster_under_the_same_name(
    denied: str,
    backend: KubernetesBackend,
    cluster: FakeCluster,
    elsewhere: KubernetesBackend,
    other: FakeApiServer,
    at_once: None,
) -> None:
    """A worker with another kubeconfig concludes nothing, creates nothing and confirms nothing."""
    for each in (cluster, other.cluster):
        deny(each, denied)
    request = identified(backend)
    handle = backend.submit(request, SECRETS)
    observation = until(elsewhere, handle, Phase.UNKNOWN)
    for uid in (cluster.uid, other.cluster.uid):
        assert uid in observation.message
    with pytest.raises(Transient, match=cluster.uid):
        elsewhere.cancel(handle, None)
    with pytest.raises(Transient, match=cluster.uid):
        elsewhere.cancel(None, request)
    with pytest.raises(Transient, match="nothing is created"):
        elsewhere.submit(request, SECRETS)
    assert not other.cluster.objects
    assert elsewhere.orphans("inst") == []
    (orphan,) = backend.orphans("inst")
    with pytest.raises(Transient):
        elsewhere.cancel(orphan.handle, None)
    assert cluster.get("jobs", NAME)
    assert until(elsewhere, handle, Phase.UNKNOWN)


def test_a_worker_that_can_read_neither_object_concludes_nothing_from_absence(
    backend: KubernetesBackend,
    cluster: FakeCluster,
    elsewhere: KubernetesBackend,
    other: FakeApiServer,
    at_once: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    handle = backend.submit(identified(backend), SECRETS)
    deny(other.cluster, "namespaces", "configmaps")
    message = until(elsewhere, handle, Phase.UNKNOWN).message
    assert cluster.uid in message
    assert "it lacks `get` of ConfigMap kube-root-ca.crt in its namespaces, or of namespace kube-system" in message
    with pytest.raises(Transient, match="it lacks"):
        elsewhere.cancel(handle, None)
    assert "it can't be told which cluster it is on" in caplog.text
    findings = {finding.subject: finding for finding in elsewhere.examine(within=0.1)}
    assert findings["cluster"].level is Level.WARNING
    assert "missing `get` of ConfigMap" in findings["cluster"].text


def test_a_job_that_is_seen_is_on_this_cluster_whoever_may_read_what(
    backend: KubernetesBackend, cluster: FakeCluster
) -> None:
    """A UID is that of one object in the world: with it, no identity is needed."""
    handle = backend.submit(identified(backend), SECRETS)
    deny(cluster, "namespaces", "configmaps")
    foreign = {**handle, "identity": {SYSTEM: "another"}}
    cluster.add_pod(cluster.get("jobs", NAME), **running())
    until(backend, foreign, Phase.RUNNING)
    assert not backend.cancel(foreign, None)
    until(backend, foreign, Phase.GONE, Cause.KILLED)
    eventually(lambda: backend.cancel(foreign, None), "the confirmation")


def test_without_a_watch_too(backend: KubernetesBackend, cluster: FakeCluster) -> None:
    handle = backend.submit(identified(backend), SECRETS)
    deny(cluster, "namespaces", "configmaps")
    assert backend.cancel({**handle, "identity": {SYSTEM: "another"}}, None)
    assert ("jobs", "default", NAME) not in cluster.objects


def test_a_run_of_an_earlier_release_is_judged_as_by_that_release(
    backend: KubernetesBackend, cluster: FakeCluster, at_once: None
) -> None:
    handle = dict(backend.submit(backend.prepare(attempt()), SECRETS))
    del handle["identity"]
    cluster.delete("jobs", NAME)
    until(backend, handle, Phase.GONE, Cause.UNKNOWN)
    assert backend.cancel(handle, None)


def test_two_workers_that_know_the_cluster_by_different_objects(
    backend: KubernetesBackend, cluster: FakeCluster, tmp_path: Path, serving: FakeApiServer, at_once: None
) -> None:
    """The one that may read both stores both, so that the other can compare what it may read."""
    handle = backend.submit(identified(backend), SECRETS)
    deny(cluster, "namespaces")
    second = KubernetesBackend(settings(tmp_path, serving.port))
    cluster.delete("jobs", NAME)
    until(second, handle, Phase.GONE, Cause.UNKNOWN)
    only_system = {**handle, "uid": "other", "identity": {SYSTEM: cluster.uid}}
    assert "only by kube-root-ca.crt/default" in until(second, only_system, Phase.UNKNOWN).message
    second.close()


@pytest.mark.row(24)
def test_a_cluster_rebuilt_under_the_same_address(
    backend: KubernetesBackend, cluster: FakeCluster, at_once: None, caplog: pytest.LogCaptureFixture
) -> None:
    """The list after the watches broke off lacks the Job; but it is another cluster's list."""
    handle = backend.submit(identified(backend), SECRETS)
    cluster.add_pod(cluster.get("jobs", NAME), **running())
    until(backend, handle, Phase.RUNNING)
    old = cluster.uid
    cluster.rebuild()
    phases = set()

    def moved() -> bool:
        (observation,) = backend.poll([handle])
        phases.add(observation.phase)
        return cluster.uid in observation.message

    eventually(moved, "the other cluster")
    assert not phases & {Phase.GONE, Phase.ENDED}
    with pytest.raises(Transient, match=cluster.uid):
        backend.cancel(handle, None)
    assert f"the cluster with kube-system {old} has become the one with kube-system {cluster.uid}" in caplog.text
    backend.identify()
    fresh = backend.submit(backend.prepare(attempt(name="flow-x", run_id="runx")), SECRETS)
    assert fresh["identity"][SYSTEM] == cluster.uid
    until(backend, fresh, Phase.WAITING)
    cluster.delete("jobs", "flow-x")
    until(backend, fresh, Phase.GONE, Cause.KILLED)


def test_an_unreachable_server_leaves_a_request_without_identity(
    backend: KubernetesBackend, cluster: FakeCluster
) -> None:
    cluster.tokens = set()
    request = identified(backend)
    assert "identity" not in request
    asked = len(cluster.requests)
    backend.identify()
    assert len(cluster.requests) == asked, "it was asked a moment ago"
    cluster.tokens = {"token-1"}
    assert backend.submit(request, SECRETS)["identity"][SYSTEM] == cluster.uid


def test_a_request_of_an_outage_is_created_on_the_cluster_that_comes_back(
    backend: KubernetesBackend, cluster: FakeCluster, proxy: FaultProxy
) -> None:
    """The earlier identity isn't stored: nothing was sent, so nothing ties the run to that cluster."""
    backend.identify()
    proxy.inject("cut", "POST", "/jobs")  # the socket is lost
    with suppress(Transient):
        backend.submit(backend.prepare(attempt(name="flow-x", run_id="runx")), SECRETS)
    cluster.tokens = set()
    request = identified(backend)
    cluster.tokens = {"token-1"}
    cluster.rebuild()
    assert backend.submit(request, SECRETS)["identity"][SYSTEM] == cluster.uid


def test_the_doctor_names_the_cluster(backend: KubernetesBackend, cluster: FakeCluster) -> None:
    cluster.on_job = lambda job: cluster.add_pod(job, **running())
    findings = {finding.subject: finding for finding in backend.examine(within=5)}
    assert findings["cluster"].level is Level.OK
    assert findings["cluster"].text == f"namespace default is on the one with kube-system {cluster.uid}"
