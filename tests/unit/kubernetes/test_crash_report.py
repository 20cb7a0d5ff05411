"""The crash report of a pod, and what a node says in place of a log that it lost."""

from __future__ import annotations

import re
from typing import Any

import pytest

from backends.base import Phase
from backends.kubernetes.backend import KubernetesBackend
from backends.kubernetes.crash_report import MAX_BYTES, rendered
from backends.kubernetes.reasons import Pod
from backends.kubernetes.summary import summary
from dispatcher import Cause
from dispatcher.errors import Permanent, Transient
from dispatcher.runner.container.termination_message import TerminationMessage
from dispatcher.runs.outcome import Outcome
from tests.kubernetes_api import FakeCluster, StatusError
from tests.unit.kubernetes.backends import NAME, eventually, running, until
from tests.unit.kubernetes.jobs import attempt

#: Answers of a kubelet with status 200: the container is gone, or the file of its log.
LOST = [
    "unable to retrieve container logs for containerd://0f1e2d",
    'failed to try resolving symlinks in path "/var/log/pods/n_p_9ea0/p/0.log": lstat /var/log/pods/n_p_9ea0/p/0.log: '
    "no such file or directory",
]

KILLED = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
READY = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
DONE = {"terminated": {"exitCode": 0, "reason": "Completed"}}


def crashed() -> dict[str, Any]:
    """Return the status of a pod whose flow was killed, with a side-car that runs and an init container that ended."""
    return {
        "phase": "Running",
        "containerStatuses": [{"name": "proxy", "state": READY}, {"name": "flow", "state": KILLED}],
        "initContainerStatuses": [{"name": "setup", "state": DONE}],
    }


def pod(status: dict[str, Any], **facts: Any) -> Pod:
    return Pod(object={"metadata": {"name": "p", "uid": "u"}, "spec": {"nodeName": "n1"}, "status": status}, **facts)


def log_requests(cluster: FakeCluster) -> list[str]:
    return [str(request.query["container"]) for request in cluster.requests if request.path.endswith("/log")]


def test_states_warnings_and_last_lines(backend: KubernetesBackend, handle: Any, cluster: FakeCluster) -> None:
    job = cluster.get("jobs", NAME)
    made = cluster.add_pod(job, **crashed())
    until(backend, handle, Phase.ENDED, Cause.OOM_KILLED)
    event = {
        "metadata": {"name": "e1"},
        "involvedObject": {"uid": made["metadata"]["uid"], "kind": "Pod"},
        "reason": "BackOff",
        "type": "Warning",
        "message": "Back-off restarting\nfailed container",
    }
    cluster.create("events", event)
    cluster.logs["proxy"] = b"proxy: upstream is gone\n"
    report = eventually(
        lambda: (found := backend.crash_report(handle, lines_known=False)).text.count("BackOff") and found, "the event"
    )
    assert not isinstance(report, int)
    lines = report.text.splitlines()
    assert "  flow: terminated, OOMKilled, exit code 137" in lines
    assert "  proxy: running" in lines
    assert "  init/setup: terminated, Completed, exit code 0" in lines
    assert "  BackOff: Back-off restarting failed container" in lines
    assert "  proxy: upstream is gone" in lines
    assert lines.count("  line 1") == 2, "of the flow's and the init container"
    assert report.lines == ("line 1", "line 2")


def test_one_request_per_container_and_none_for_lines_that_are_known(
    backend: KubernetesBackend, handle: Any, cluster: FakeCluster
) -> None:
    cluster.add_pod(cluster.get("jobs", NAME), **crashed())
    until(backend, handle, Phase.ENDED, Cause.OOM_KILLED)
    before = len(cluster.requests)
    assert backend.crash_report(handle, lines_known=True).lines == ()
    assert sorted(log_requests(cluster)) == ["proxy", "setup"]
    backend.crash_report(handle, lines_known=False)
    assert sorted(log_requests(cluster)) == ["flow", "proxy", "proxy", "setup", "setup"]
    asked = [request.path for request in cluster.requests[before:] if "watch" not in request.query]
    identity = {"/api/v1/namespaces/kube-system", "/api/v1/namespaces/default/configmaps/kube-root-ca.crt"}
    assert len([path for path in asked if path not in identity]) == 5, "the identity is read once per connection"


def test_a_pod_that_never_started_has_a_report_without_a_request(
    backend: KubernetesBackend, handle: Any, cluster: FakeCluster
) -> None:
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}
    cluster.add_pod(cluster.get("jobs", NAME), phase="Pending", containerStatuses=[{"name": "flow", "state": waiting}])
    until(backend, handle, Phase.WAITING, Cause.IMAGE_PULL)
    assert "  flow: waiting, ErrImagePull, no such image" in backend.crash_report(handle, lines_known=False).text
    assert not log_requests(cluster)


def test_a_pod_that_is_gone_does_not_run() -> None:
    status = {"containerStatuses": [{"name": "flow", "state": READY}]}
    assert "  flow: running when its pod was last seen" in rendered([pod(status, gone=True)], [], {}).splitlines()
    assert "  flow: running" in rendered([pod(status)], [], {}).splitlines()


def test_a_mount_that_failed_before_the_containers_started_is_no_warning() -> None:
    about = {"uid": "u"}
    failed = {"type": "Warning", "reason": "FailedMount", "message": "secret not found", "involvedObject": about}
    other = {**failed, "reason": "Unhealthy"}
    waiting = {"containerStatuses": [{"name": "flow", "state": {"waiting": {"reason": "ContainerCreating"}}}]}
    assert "FailedMount" in rendered([pod(waiting)], [failed, other], {})
    text = rendered([pod(crashed())], [failed, other], {})
    assert "FailedMount" not in text
    assert "Unhealthy" in text


@pytest.mark.parametrize(
    ("error", "is_told"),
    [
        (None, False),
        (
            StatusError(
                403, "Forbidden", "unable to create new content in namespace default because it is being terminated"
            ),
            True,
        ),
        (StatusError(403, "Forbidden", "denied by policy"), False),
    ],
)
def test_a_namespace_that_is_being_deleted_is_named(
    backend: KubernetesBackend, handle: Any, cluster: FakeCluster, error: StatusError | None, is_told: bool
) -> None:
    made = cluster.add_pod(cluster.get("jobs", NAME), **running())
    until(backend, handle, Phase.RUNNING)
    cluster.delete("pods", made["metadata"]["name"])
    until(backend, handle, Phase.GONE, Cause.KILLED)
    if error is not None:
        cluster.errors["POST", "jobs"] = error
    text = backend.crash_report(handle, lines_known=True).text
    assert ("namespace default was deleted, with all that was in it" in text) is is_told


def test_a_report_is_bounded_and_each_container_has_its_share() -> None:
    statuses = [{"name": f"c{number}", "state": {"waiting": {"message": "m" * 9000}}} for number in range(50)]
    events = [{"type": "Warning", "reason": f"R{number}", "message": "ä" * 9000} for number in range(50)]
    read = {f"c{number}": ["ä" * 9000] * 50 for number in range(9)} | {"last": ["its last words"]}
    text = rendered([pod({"containerStatuses": statuses})], events, read)
    assert len(text.encode()) <= MAX_BYTES
    assert "last lines of c0:" in text
    assert text.endswith("last lines of last:\n  its last words")


def test_normal_events_and_the_runners_own_message_are_left_out() -> None:
    message = TerminationMessage.of(Outcome(cause=Cause.KILLED), run="r1", attempt=1).to_json()
    state = {"terminated": {"exitCode": 1, "reason": "Error", "message": message}}
    text = rendered(
        [pod({"phase": "Failed", "containerStatuses": [{"name": "flow", "state": state}]}, gone=True)],
        [{"type": "Normal", "reason": "Pulled", "message": "Container image is there"}],
        {},
    )
    assert text.splitlines() == ["pod p on node n1: Failed, gone", "  flow: terminated, Error, exit code 1"]


@pytest.mark.parametrize("words", LOST)
def test_a_log_that_the_node_lost_is_no_output(
    backend: KubernetesBackend, handle: Any, cluster: FakeCluster, words: str
) -> None:
    cluster.add_pod(cluster.get("jobs", NAME), **running())
    until(backend, handle, Phase.RUNNING)
    cluster.logs["flow"] = words.encode()
    with pytest.raises(Permanent, match=re.escape(words)):
        backend.logs(handle)
    report = backend.crash_report(handle, lines_known=False)
    assert report.lines == ()
    assert f"  [they can't be read: {words[:40]}" in report.text
    cluster.logs["flow"] = words.encode() + b"\nsaid the flow\n"
    assert len(backend.logs(handle)) == 2, "a flow may say the same among other words"


def test_a_log_that_cannot_be_read_now(backend: KubernetesBackend, handle: Any, cluster: FakeCluster) -> None:
    cluster.add_pod(cluster.get("jobs", NAME), **running())
    until(backend, handle, Phase.RUNNING)
    cluster.errors["GET", "pods"] = StatusError(500, "InternalError", "the node doesn't answer")
    with pytest.raises(Transient, match="the node doesn't answer"):
        backend.logs(handle)


def test_a_requests_facts(backend: KubernetesBackend) -> None:
    request = backend.prepare(attempt())
    facts = KubernetesBackend.summary(request)
    assert facts["job"] == NAME
    assert facts["namespace"] == "default"
    assert facts["image"]
    assert "cpu" in facts["resources"]


@pytest.mark.parametrize(
    "request_of_others",
    [{}, {"job": 3}, {"job": {"spec": []}}, {"job": {"metadata": {"name": ["x"]}}, "container": {}, "namespace": 7}],
)
def test_a_request_that_no_worker_wrote_has_the_facts_that_it_has(request_of_others: dict[str, Any]) -> None:
    assert all(isinstance(value, str) for value in summary(request_of_others).values())
