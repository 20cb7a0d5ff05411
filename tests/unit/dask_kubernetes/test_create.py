"""Creation of an attempt's Job, Secrets and network policy."""

from __future__ import annotations

import json
from typing import Any

import pytest

from backends.dask_kubernetes.backend import DaskKubernetesBackend
from dispatcher import Cause
from dispatcher.errors import Permanent, Transient
from tests.kubernetes_api import FakeCluster, StatusError
from tests.kubernetes_proxy import FaultProxy
from tests.unit.dask_kubernetes.clusters import made, names_of
from tests.unit.kubernetes.backends import NAME, SECRETS


def test_job_secrets_and_policy_are_created_and_no_worker(
    backend: DaskKubernetesBackend, request_: Any, cluster: FakeCluster
) -> None:
    handle = backend.submit(request_, SECRETS)
    uid = handle["uid"]
    assert names_of(cluster, "jobs") == [NAME]
    assert names_of(cluster, "secrets") == [NAME, f"{NAME}-tls"]
    assert names_of(cluster, "networkpolicies") == [NAME]
    assert names_of(cluster, "pods") == []
    for kind, name in (("secrets", NAME), ("secrets", f"{NAME}-tls"), ("networkpolicies", NAME)):
        metadata = cluster.get(kind, name)["metadata"]
        assert metadata["ownerReferences"] == [{"apiVersion": "batch/v1", "kind": "Job", "name": NAME, "uid": uid}]
        assert metadata["labels"]["instance"] == "inst"


def test_the_certificate_is_in_its_own_secret_alone(
    backend: DaskKubernetesBackend, request_: Any, cluster: FakeCluster
) -> None:
    handle = backend.submit(request_, SECRETS)
    data = cluster.get("secrets", f"{NAME}-tls")["stringData"]
    assert sorted(data) == ["cert.pem", "key.pem"]
    assert data["cert.pem"].startswith("-----BEGIN CERTIFICATE-----")
    assert "PRIVATE KEY" in data["key.pem"]
    others = [cluster.get("jobs", NAME), cluster.get("secrets", NAME), request_, handle]
    assert data["key.pem"].splitlines()[1] not in json.dumps(others)


def test_a_later_call_keeps_the_certificate(
    backend: DaskKubernetesBackend, request_: Any, cluster: FakeCluster
) -> None:
    first = backend.submit(request_, SECRETS)
    before = cluster.get("secrets", f"{NAME}-tls")
    assert backend.submit(request_, SECRETS) == first
    assert cluster.get("secrets", f"{NAME}-tls") == before
    assert made(cluster, "jobs") == [NAME]
    assert made(cluster, "networkpolicies") == [NAME]


@pytest.mark.parametrize("kind", ["lost_reply", "cut"])
@pytest.mark.parametrize("path", ["/jobs", "/secrets", "/networkpolicies"])
def test_a_reply_that_was_lost_creates_nothing_twice(
    kind: str, path: str, backend: DaskKubernetesBackend, request_: Any, cluster: FakeCluster, proxy: FaultProxy
) -> None:
    proxy.inject(kind, "POST", path)
    backend.submit(request_, SECRETS)
    assert len(proxy.triggered) == 1
    assert names_of(cluster, "secrets") == [NAME, f"{NAME}-tls"]
    assert (made(cluster, "jobs"), made(cluster, "networkpolicies")) == ([NAME], [NAME])


@pytest.mark.parametrize("status", [403, 404])
def test_a_worker_that_may_not_make_policies_says_so_once(
    status: int,
    backend: DaskKubernetesBackend,
    request_: Any,
    cluster: FakeCluster,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cluster.errors["POST", "networkpolicies"] = StatusError(status, "Forbidden", "cannot create networkpolicies")
    backend.submit(request_, SECRETS)
    backend.submit(request_, SECRETS)
    lines = [record.message for record in caplog.records if "no network policy" in record.message]
    assert len(lines) == 1
    assert "namespace default" in lines[0]
    assert sorted(names_of(cluster, "secrets")) == [NAME, f"{NAME}-tls"]


def test_a_policy_that_the_server_cannot_make_now_is_made_later(
    backend: DaskKubernetesBackend, request_: Any, cluster: FakeCluster
) -> None:
    cluster.errors["POST", "networkpolicies"] = StatusError(500, "InternalError", "etcd timed out")
    with pytest.raises(Transient, match="etcd timed out"):
        backend.submit(request_, SECRETS)
    cluster.errors.clear()
    backend.submit(request_, SECRETS)
    assert names_of(cluster, "networkpolicies") == [NAME]
    assert made(cluster, "jobs") == [NAME]


def test_a_secret_beyond_a_quota_waits(backend: DaskKubernetesBackend, request_: Any, cluster: FakeCluster) -> None:
    cluster.errors["POST", "secrets"] = StatusError(403, "Forbidden", "exceeded quota: q, requested: count/secrets=1")
    with pytest.raises(Transient) as raised:
        backend.submit(request_, SECRETS)
    assert raised.value.cause is Cause.QUOTA


def test_a_request_whose_workers_were_changed_is_refused(backend: DaskKubernetesBackend, request_: Any) -> None:
    changed = json.loads(json.dumps(request_))
    changed["workers"]["pod"]["spec"]["containers"][0]["image"] = "another"
    with pytest.raises(Permanent, match="doesn't match the request"):
        backend.submit(changed, SECRETS)
