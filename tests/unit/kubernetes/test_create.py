"""Creation and adoption of Jobs, also through a fault proxy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backends.kubernetes.backend import KubernetesBackend
from backends.kubernetes.settings import ClusterSettings, KubernetesSettings
from dispatcher import Cause, Settings
from dispatcher.errors import Permanent, Transient
from tests.kubernetes_api import FakeCluster, StatusError
from tests.kubernetes_proxy import FaultProxy
from tests.unit.kubernetes.backends import NAME, SECRETS, settings
from tests.unit.kubernetes.jobs import attempt


def test_job_then_secret_in_two_requests(backend: KubernetesBackend, cluster: FakeCluster) -> None:
    backend.identify()
    cluster.requests.clear()
    request = backend.prepare(attempt())
    handle = backend.submit(request, SECRETS)
    assert [(request.method, request.path.rpartition("/")[2]) for request in cluster.requests] == [
        ("POST", "jobs"),
        ("POST", "secrets"),
    ]
    job, secret = cluster.get("jobs", NAME), cluster.get("secrets", NAME)
    assert handle == {
        "cluster": "it",
        "namespace": "default",
        "name": NAME,
        "uid": job["metadata"]["uid"],
        "container": "flow",
        "instance": "inst",
        "identity": request["identity"],
    }
    assert json.loads(json.dumps(handle)) == handle
    assert secret["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]
    variables = json.loads(secret["stringData"]["variables.json"])
    assert variables == {"DISPATCHER__URL": "redis://records.svc/0", "DISPATCHER__RUN__TOKEN": "token-of-the-attempt"}
    assert "token-of-the-attempt" not in json.dumps([job, request, handle])


def test_the_prepared_job_is_sent(backend: KubernetesBackend, cluster: FakeCluster) -> None:
    backend.identify()
    cluster.requests.clear()
    request = backend.prepare(attempt())
    backend.submit(request, SECRETS)
    assert cluster.requests[0].body == request["job"]
    assert cluster.requests[0].query["fieldValidation"] == "Strict"


@pytest.mark.row(22)
@pytest.mark.parametrize("kind", ["lost_reply", "truncate", "cut"])
@pytest.mark.parametrize("path", ["/jobs", "/secrets"])
def test_a_reply_that_was_lost_is_looked_up(
    kind: str, path: str, backend: KubernetesBackend, cluster: FakeCluster, proxy: FaultProxy
) -> None:
    proxy.inject(kind, "POST", path)
    handle = backend.submit(backend.prepare(attempt()), SECRETS)
    assert len(proxy.triggered) == 1
    assert handle["uid"] == cluster.get("jobs", NAME)["metadata"]["uid"]
    assert sorted(key[0] for key in cluster.objects) == ["jobs", "secrets"]


@pytest.mark.row(22)
def test_a_server_that_stays_silent_after_the_commit(tmp_path: Path, proxy: FaultProxy, cluster: FakeCluster) -> None:
    backend = KubernetesBackend(settings(tmp_path, proxy.port, request_timeout=0.5))
    proxy.inject("silent", "POST", "/jobs")
    handle = backend.submit(backend.prepare(attempt()), SECRETS)
    assert handle["uid"] == cluster.get("jobs", NAME)["metadata"]["uid"]
    assert cluster.count("POST", "jobs") == 1
    backend.close()


def test_the_same_request_again_adopts(backend: KubernetesBackend, cluster: FakeCluster) -> None:
    request = backend.prepare(attempt())
    first = backend.submit(request, SECRETS)
    labels = {**cluster.get("jobs", NAME)["metadata"], "labels": {**request["job"]["metadata"]["labels"], "added": "x"}}
    cluster.change("jobs", NAME, metadata=labels, spec={"suspend": True})  # webhooks and controllers change objects
    assert backend.submit(request, SECRETS) == first
    assert sorted(key[0] for key in cluster.objects) == ["jobs", "secrets"]


@pytest.mark.row(23)
@pytest.mark.parametrize("other", [{"number": 3}, {"run_id": "another"}, {"flow": "another"}])
def test_a_job_of_another_request_is_not_adopted(
    other: dict[str, Any], backend: KubernetesBackend, cluster: FakeCluster
) -> None:
    backend.submit(backend.prepare(attempt(**other)), SECRETS)
    before = cluster.get("secrets", NAME)
    with pytest.raises(Permanent, match="created by somebody else") as raised:
        backend.submit(backend.prepare(attempt()), SECRETS)
    assert (raised.value.cause, raised.value.reason) == (Cause.START_FAILED, "AlreadyExists")
    assert cluster.get("secrets", NAME) == before


@pytest.mark.row(23)
def test_a_job_that_is_being_deleted_is_not_adopted(backend: KubernetesBackend, cluster: FakeCluster) -> None:
    request = backend.prepare(attempt())
    backend.submit(request, SECRETS)
    metadata = cluster.get("jobs", NAME)["metadata"]
    cluster.change("jobs", NAME, metadata={**metadata, "deletionTimestamp": "2026-01-01T00:00:00Z"})
    with pytest.raises(Permanent, match="is being deleted") as raised:
        backend.submit(request, SECRETS)
    assert raised.value.cause is Cause.KILLED


def test_an_existing_secret_is_replaced(backend: KubernetesBackend, cluster: FakeCluster) -> None:
    cluster.create("secrets", {"metadata": {"name": NAME}, "stringData": {"variables.json": "old"}})
    backend.submit(backend.prepare(attempt()), SECRETS)
    assert "token-of-the-attempt" in cluster.get("secrets", NAME)["stringData"]["variables.json"]


@pytest.mark.row(23)
def test_a_secret_that_was_deleted_is_created_again(backend: KubernetesBackend, cluster: FakeCluster) -> None:
    handle = backend.submit(backend.prepare(attempt()), SECRETS)
    before = cluster.get("secrets", NAME)
    cluster.delete("secrets", NAME)
    backend.restore(handle, SECRETS)
    after = cluster.get("secrets", NAME)
    for field in ("stringData", "immutable", "type"):
        assert after[field] == before[field]
    for field in ("labels", "ownerReferences"):
        assert after["metadata"][field] == before["metadata"][field]
    backend.restore(handle, SECRETS)
    cluster.delete("jobs", NAME)
    with pytest.raises(Permanent, match="not found"):
        backend.restore(handle, SECRETS)
    backend.submit(backend.prepare(attempt()), SECRETS)
    with pytest.raises(Permanent, match="is gone"):
        backend.restore(handle, SECRETS)


def test_a_conflict_is_retried(backend: KubernetesBackend, cluster: FakeCluster, proxy: FaultProxy) -> None:
    proxy.inject("status", "POST", "/jobs", status=409, reason="Conflict", times=2)
    assert backend.submit(backend.prepare(attempt()), SECRETS)["name"] == NAME
    cluster.objects.clear()
    proxy.inject("status", "POST", "/jobs", status=409, reason="Conflict", times=3)
    with pytest.raises(Transient, match="after 3 tries"):
        backend.submit(backend.prepare(attempt()), SECRETS)


@pytest.mark.row(23)
@pytest.mark.parametrize(
    ("status", "headers", "wait"),
    [(429, {"Retry-After": "2"}, 2.0), (500, {}, 1.0), (503, {"Retry-After": "7"}, 7.0), (504, {}, 1.0)],
)
def test_a_busy_server_is_transient(
    status: int, headers: dict[str, str], wait: float, backend: KubernetesBackend, proxy: FaultProxy
) -> None:
    proxy.inject("status", "POST", "/jobs", status=status, reason="Busy", headers=headers)
    with pytest.raises(Transient, match="Busy: injected") as raised:
        backend.submit(backend.prepare(attempt()), SECRETS)
    assert raised.value.retry_in == wait


@pytest.mark.parametrize(("status", "reason"), [(400, "BadRequest"), (404, "NotFound"), (422, "Invalid")])
def test_an_invalid_request_is_a_config_error(
    status: int, reason: str, backend: KubernetesBackend, proxy: FaultProxy
) -> None:
    proxy.inject("status", "POST", "/jobs", status=status, reason=reason, message='unknown field "spec.nope"')
    with pytest.raises(Permanent, match=r'unknown field "spec\.nope"') as raised:
        backend.submit(backend.prepare(attempt()), SECRETS)
    assert (raised.value.cause, raised.value.reason) == (Cause.CONFIG_ERROR, reason)


UNAUTHORIZED = 'jobs.batch is forbidden: User "worker" cannot create resource "jobs" in API group "batch"'


def test_403_is_told_apart_as_rbac_or_admission(backend: KubernetesBackend, cluster: FakeCluster) -> None:
    request = backend.prepare(attempt())
    cluster.errors["POST", "jobs"] = StatusError(403, "Forbidden", "denied by policy/require-team-label")
    with pytest.raises(Permanent, match="denied by policy") as raised:
        backend.submit(request, SECRETS)
    assert (raised.value.cause, raised.value.reason) == (Cause.CONFIG_ERROR, "AdmissionRefused")
    assert raised.value.nothing_created
    cluster.allowed = False
    cluster.errors["POST", "jobs"] = StatusError(403, "Forbidden", UNAUTHORIZED)
    with pytest.raises(Permanent, match=r"may not create jobs in namespace default .*RBAC") as raised:
        backend.submit(request, SECRETS)
    assert (raised.value.cause, raised.value.reason) == (Cause.CONFIG_ERROR, "Forbidden")
    del cluster.errors["POST", "jobs"]
    cluster.errors["POST", "secrets"] = StatusError(403, "Forbidden", UNAUTHORIZED.replace("jobs", "secrets"))
    with pytest.raises(Permanent, match="may not create secrets in namespace default") as raised:
        backend.submit(request, SECRETS)
    assert not raised.value.nothing_created, "its Job exists"


def test_a_refusal_after_a_lost_reply_does_not_tell_that_nothing_was_created(
    backend: KubernetesBackend, cluster: FakeCluster, proxy: FaultProxy
) -> None:
    """A read that follows a write may be answered by a server that hasn't seen it yet."""
    request = backend.prepare(attempt())
    cluster.errors["GET", "jobs"] = StatusError(404, "NotFound", "not found")
    cluster.errors["POST", "jobs"] = StatusError(403, "Forbidden", "denied by policy")
    proxy.inject("lost_reply", "POST", "/jobs")
    with pytest.raises(Permanent, match="denied by policy") as raised:
        backend.submit(request, SECRETS)
    assert not raised.value.nothing_created


@pytest.mark.row(25)
def test_403_of_a_starting_server_is_transient(backend: KubernetesBackend, cluster: FakeCluster) -> None:
    """A starting server answers before it knows its rules: it denies what they allow."""
    request = backend.prepare(attempt())
    cluster.errors["POST", "jobs"] = StatusError(403, "Forbidden", UNAUTHORIZED)
    cluster.ready = cluster.allowed = False
    with pytest.raises(Transient, match="the API server is starting"):
        backend.submit(request, SECRETS)
    cluster.ready = cluster.allowed = True  # between its answer and our check
    with pytest.raises(Transient, match="checked since, allow it"):
        backend.submit(request, SECRETS)
    for message in ("not yet ready to handle request", "status unknown for quota: jobs, resources: count/jobs.batch"):
        cluster.errors["POST", "jobs"] = StatusError(403, "Forbidden", message)
        with pytest.raises(Transient, match=message):
            backend.submit(request, SECRETS)
    cluster.errors.clear()
    assert backend.submit(request, SECRETS)["name"] == request["job"]["metadata"]["name"]


def test_403_of_a_quota_is_transient(backend: KubernetesBackend, cluster: FakeCluster) -> None:
    cluster.errors["POST", "jobs"] = StatusError(
        403, "Forbidden", "exceeded quota: jobs, requested: count/jobs.batch=1"
    )
    with pytest.raises(Transient, match="exceeded quota") as raised:
        backend.submit(backend.prepare(attempt()), SECRETS)
    assert raised.value.cause is Cause.QUOTA


@pytest.mark.row(23)
def test_401_after_the_reload_is_transient(backend: KubernetesBackend, cluster: FakeCluster) -> None:
    backend.identify()
    cluster.tokens = set()
    with pytest.raises(Transient, match="401"):
        backend.submit(backend.prepare(attempt()), SECRETS)
    assert cluster.count("POST", "jobs") == 2


def test_a_missing_kubeconfig_is_transient(tmp_path: Path) -> None:
    worker = Settings.load(
        kubernetes=KubernetesSettings(clusters={"it": ClusterSettings(kubeconfig=tmp_path / "none")}, url="redis://r/0")
    )
    with pytest.raises(Transient, match="there is no kubeconfig"):
        KubernetesBackend(worker).submit(KubernetesBackend(worker).prepare(attempt()), SECRETS)
