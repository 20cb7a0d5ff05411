"""Deletion of Jobs: confirmed, or pending with the reason. Also the logs read before it."""

from __future__ import annotations

from typing import Any

import pytest

from backends.base import Phase
from backends.kubernetes.backend import KubernetesBackend
from dispatcher import Cause
from dispatcher.errors import Transient
from dispatcher.runs.attempt import object_name
from tests.kubernetes_api import FakeCluster, StatusError
from tests.kubernetes_proxy import FaultProxy
from tests.unit.kubernetes.backends import NAME, SECRETS, eventually, running, until
from tests.unit.kubernetes.jobs import RUN_ID, attempt


def test_cancel_is_confirmed_when_job_and_pods_are_gone(
    backend: KubernetesBackend, handle: Any, cluster: FakeCluster
) -> None:
    cluster.keep_pods = True
    pod = cluster.add_pod(cluster.get("jobs", NAME), **running())
    until(backend, handle, Phase.RUNNING)
    assert not backend.cancel(handle, None)
    (body,) = [request.body for request in cluster.requests if request.method == "DELETE"]
    assert body is not None
    assert body["preconditions"] == {"uid": handle["uid"]}
    assert body["propagationPolicy"] == "Background"
    cache = backend._watches.get("default", "inst").cache
    eventually(lambda: cache.job(handle["uid"])[1], "the Job's end")
    assert not backend.cancel(handle, None)  # its pod is still terminating
    cluster.keep_pods = False
    cluster.delete("pods", pod["metadata"]["name"])
    eventually(lambda: backend.cancel(handle, None), "the confirmation")
    assert cluster.count("DELETE", "jobs") == 1
    assert ("secrets", "default", NAME) not in cluster.objects


def test_cancel_without_watches_asks_the_server(backend: KubernetesBackend, handle: Any, cluster: FakeCluster) -> None:
    cluster.keep_pods = True
    pod = cluster.add_pod(cluster.get("jobs", NAME), **running())
    assert not backend.cancel(handle, None)
    cluster.keep_pods = False
    cluster.delete("pods", pod["metadata"]["name"])
    assert backend.cancel(handle, None)
    assert backend.cancel(handle, None)


def test_a_worker_without_a_right_on_secrets_confirms_what_it_did_not_create(
    backend: KubernetesBackend, cluster: FakeCluster
) -> None:
    """Nobody can tell whether there is a Secret; the cluster deletes it with its Job."""
    request = backend.prepare(attempt(name=object_name(RUN_ID, 2)))
    cluster.errors["DELETE", "secrets"] = StatusError(403, "Forbidden", 'cannot delete resource "secrets"')
    cluster.allowed = False
    assert backend.cancel(None, request)
    assert cluster.count("DELETE", "secrets") == 1


def test_cancel_leaves_another_job_of_that_name_alone(
    backend: KubernetesBackend, handle: Any, cluster: FakeCluster
) -> None:
    assert backend.cancel({**handle, "uid": "gone-before"}, None)
    assert cluster.get("jobs", NAME)["metadata"]["uid"] == handle["uid"]


@pytest.mark.parametrize("kind", ["lost_reply", "cut", "truncate"])
def test_a_delete_whose_reply_was_lost_is_repeated(
    kind: str, backend: KubernetesBackend, handle: Any, proxy: FaultProxy, cluster: FakeCluster
) -> None:
    proxy.inject(kind, "DELETE", "/jobs")
    with pytest.raises(Transient):
        backend.cancel(handle, None)
    assert backend.cancel(handle, None)
    assert ("jobs", "default", NAME) not in cluster.objects


def test_cancel_by_the_request_alone(backend: KubernetesBackend, cluster: FakeCluster) -> None:
    request = backend.prepare(attempt())
    assert backend.cancel(None, request)
    assert backend.cancel(None, None)
    backend.submit(request, SECRETS)
    assert not backend.cancel(None, request)
    assert backend.cancel(None, request)
    backend.submit(backend.prepare(attempt(flow="another")), SECRETS)
    assert backend.cancel(None, request)
    assert cluster.get("jobs", NAME)


def test_an_unreachable_node_keeps_the_teardown_pending(
    backend: KubernetesBackend, handle: Any, cluster: FakeCluster
) -> None:
    cluster.keep_pods = True
    lost = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}
    cluster.add_pod(cluster.get("jobs", NAME), **running(), conditions=[lost])
    until(backend, handle, Phase.UNKNOWN, Cause.NODE_LOST)
    assert not backend.cancel(handle, None)

    def pending() -> str:
        try:
            backend.cancel(handle, None)
        except Transient as error:
            return str(error)
        return ""

    assert eventually(pending, "the pending teardown") == "teardown pending: node node-1"


def test_logs_cost_one_request_and_none_before_the_start(
    backend: KubernetesBackend, handle: Any, cluster: FakeCluster
) -> None:
    """Only a failed attempt costs a request for its log."""
    waiting = {"state": {"waiting": {"reason": "ErrImagePull"}}, "name": "flow"}
    pod = cluster.add_pod(cluster.get("jobs", NAME), phase="Pending", containerStatuses=[waiting])
    until(backend, handle, Phase.WAITING, Cause.IMAGE_PULL)

    def log_requests() -> list[str]:
        return [
            request.path for request in cluster.requests if "/log" in request.path or "job-name" in str(request.query)
        ]

    assert backend.logs(handle) == ()
    assert not log_requests()
    cluster.change("pods", pod["metadata"]["name"], status=running())
    until(backend, handle, Phase.RUNNING)
    assert backend.logs(handle) == ("line 1", "line 2")
    assert len(log_requests()) == 1


def test_the_last_lines_of_the_init_containers_that_failed(
    backend: KubernetesBackend, handle: Any, cluster: FakeCluster
) -> None:
    """The flow's container never started; a side-car that ended with the pod didn't fail."""
    ended = {"state": {"terminated": {"exitCode": 3, "reason": "Error"}}}
    statuses = [{"name": name, **ended} for name in ("mesh", "prepare")]
    pod = cluster.add_pod(cluster.get("jobs", NAME), phase="Failed", initContainerStatuses=statuses)
    cluster.change(
        "pods", pod["metadata"]["name"], spec={"initContainers": [{"name": "mesh", "restartPolicy": "Always"}]}
    )
    assert backend.logs(handle) == ()
    assert backend.init_logs(handle) == {"prepare": ("line 1", "line 2")}
    cluster.errors["GET", "pods"] = StatusError(404, "NotFound", "gone")
    assert backend.init_logs(handle) == {}


def test_the_last_lines_of_a_pod(backend: KubernetesBackend, handle: Any, cluster: FakeCluster) -> None:
    assert backend.logs(handle) == ()
    cluster.add_pod(cluster.get("jobs", NAME), **running())
    assert backend.logs(handle) == ("line 1", "line 2")
    cluster.errors["GET", "pods"] = StatusError(404, "NotFound", "gone")
    assert backend.logs(handle) == ()
