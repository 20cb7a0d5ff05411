"""Observations of workers' pods."""

from __future__ import annotations

from typing import Any

import pytest

from backends.base import Observation, Phase
from backends.dask_kubernetes.backend import DaskKubernetesBackend
from backends.dask_kubernetes.worker_state import observe
from backends.kubernetes.cluster.trim import trim
from backends.kubernetes.reasons import Pod
from dispatcher import Cause
from tests.kubernetes_api import FakeCluster, Json
from tests.unit.dask_kubernetes.clusters import states, until_names, worker_status
from tests.unit.kubernetes.backends import NAME, eventually

W1 = f"{NAME}-w1"
SCHEDULED = {"type": "PodScheduled", "status": "True"}


def pod(
    status: Json, *, gone: bool = False, deleted: bool = False, limits: Json | None = None, container: str = "main"
) -> Pod:
    """Return a worker's pod as the cache keeps it; a side-car that was injected stands before its own container."""
    metadata = {
        "name": W1,
        "uid": "u1",
        "labels": {"dask-worker": "w1", "instance": "inst", "attempt": "2"},
        "annotations": {"kubectl.kubernetes.io/default-container": container},
        "ownerReferences": [{"kind": "Job", "name": NAME, "uid": "job-1"}],
    }
    if deleted:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:10Z"
    containers = [{"name": "injected"}, {"name": "main", "resources": {"limits": limits or {}}}]
    spec = {"nodeName": "node-2", "containers": containers}
    item = {"metadata": metadata, "spec": spec, "status": {"conditions": [SCHEDULED], **status}}
    return Pod(object=trim("pods", item), gone=gone)


def of(state: Json, *, phase: str = "Running", **options: Any) -> Observation:
    """Return the observation of a worker whose container is in this state."""
    statuses = [{"name": "injected", "state": {"running": {}}}, {"name": "main", "state": state}]
    return observe(pod({"phase": phase, "containerStatuses": statuses}, **options), (), {}, 100.0)[0]


def test_a_worker_is_known_by_its_own_container() -> None:
    trimmed = pod({"phase": "Running"}, limits={"memory": "1Gi", "cpu": "1"}).object
    assert trimmed["metadata"]["worker"] == "w1"
    assert trimmed["metadata"]["job"] == "job-1"
    assert (trimmed["spec"]["container"], trimmed["spec"]["memory"]) == ("main", "1Gi")
    assert of({"running": {}}).phase is Phase.RUNNING
    assert of({"waiting": {"reason": "ContainerCreating"}}, phase="Pending").phase is Phase.WAITING


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("ErrImagePull", Cause.IMAGE_PULL),
        ("ImagePullBackOff", Cause.IMAGE_PULL),
        ("CreateContainerConfigError", Cause.CONFIG_ERROR),
    ],
)
def test_a_worker_waits_for_the_reasons_that_flows_wait_for(reason: str, cause: Cause) -> None:
    observation = of({"waiting": {"reason": reason, "message": "why"}}, phase="Pending")
    assert (observation.phase, observation.cause, observation.reason) == (Phase.WAITING, cause, reason)
    assert observation.message.endswith("why")


def test_a_worker_without_room_is_unschedulable() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
    observation, _ = observe(pod({"phase": "Pending", "conditions": [condition]}), (), {}, 100.0)
    assert (observation.phase, observation.cause) == (Phase.WAITING, Cause.UNSCHEDULABLE)


def test_clocks_go_on_from_one_observation_to_the_next() -> None:
    missing = {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "s" not found'}}
    waiting = pod({"phase": "Pending", "containerStatuses": [{"name": "main", "state": missing}]})
    first, clocks = observe(waiting, (), {}, 100.0)
    last, _ = observe(waiting, (), clocks, 1000.0)
    assert (first.phase, last.phase, last.cause) == (Phase.WAITING, Phase.ENDED, Cause.CONFIG_ERROR)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"memory": "512Mi"}, "its container used more than its memory limit, 512Mi"),
        ({}, "its node ran out of memory; it has no memory limit"),
    ],
)
def test_an_end_by_lack_of_memory_names_the_limit(limits: Json, message: str) -> None:
    ended = of({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}, phase="Failed", limits=limits)
    assert (ended.phase, ended.cause, ended.message) == (Phase.ENDED, Cause.OOM_KILLED, message)


def test_an_end_by_an_error_is_told_in_words_of_a_worker() -> None:
    ended = of({"terminated": {"exitCode": 1, "reason": "Error"}}, phase="Failed")
    assert (ended.phase, ended.cause) == (Phase.ENDED, Cause.START_FAILED)
    assert ended.message == "dask worker ended with exit code 1: see its last log lines"


def test_an_end_by_itself_has_no_cause() -> None:
    ended = of({"terminated": {"exitCode": 0, "reason": "Completed"}}, phase="Succeeded")
    assert (ended.phase, ended.cause, ended.exit_code) == (Phase.ENDED, None, 0)


def test_an_eviction_is_named() -> None:
    evicted = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory"}
    observation, _ = observe(pod(evicted), (), {}, 100.0)
    assert (observation.phase, observation.cause) == (Phase.ENDED, Cause.EVICTED)


def test_a_lost_node_is_no_end() -> None:
    conditions = [SCHEDULED, {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]
    running = [{"name": "main", "state": {"running": {}}}]
    status = {"phase": "Running", "conditions": conditions, "containerStatuses": running}
    observation, _ = observe(pod(status), (), {}, 100.0)
    assert (observation.phase, observation.cause) == (Phase.UNKNOWN, Cause.NODE_LOST)
    assert "node-2" in observation.message


def test_a_pod_that_was_deleted_while_it_ran_is_gone_and_killed() -> None:
    observation = of({"running": {}}, gone=True, deleted=True)
    assert (observation.phase, observation.cause) == (Phase.GONE, Cause.KILLED)
    assert observation.message == "its pod was deleted while it ran"


def test_a_pod_that_was_deleted_before_it_ran_is_gone_and_killed() -> None:
    observation = of({"waiting": {"reason": "ContainerCreating"}}, phase="Pending", gone=True)
    assert (observation.phase, observation.cause) == (Phase.GONE, Cause.KILLED)
    assert observation.message == "its pod was deleted before it ran"


def test_what_ended_a_gone_pod_is_still_told() -> None:
    observation = of({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}, phase="Failed", gone=True)
    assert (observation.phase, observation.cause) == (Phase.GONE, Cause.OOM_KILLED)


def test_the_state_of_a_worker_is_not_the_flows(
    backend: DaskKubernetesBackend, request_: Any, handle: Any, cluster: FakeCluster
) -> None:
    running = {"containerStatuses": [{"name": "flow", "state": {"running": {}}}]}
    cluster.change("pods", f"{NAME}-pod", status={"phase": "Running", "podIP": "10.0.0.7", **running})
    backend.create_workers(handle, request_, ["w1", "w2"])
    until_names(backend, handle, ["w1", "w2"])
    cluster.change("pods", W1, status=worker_status(terminated={"exitCode": 137, "reason": "OOMKilled"}))
    cluster.change("pods", f"{NAME}-w2", status=worker_status(running={}))

    def causes() -> dict[str, Cause | None]:
        return {state.name: state.observation.cause for state in states(backend, handle)}

    eventually(lambda: causes() == {"w1": Cause.OOM_KILLED, "w2": None}, "the end of w1")
    assert backend.poll([handle])[0].phase is Phase.RUNNING


def test_a_new_pod_of_a_worker_counts_and_not_the_former(
    backend: DaskKubernetesBackend, request_: Any, handle: Any, cluster: FakeCluster
) -> None:
    backend.create_workers(handle, request_, ["w1"])
    until_names(backend, handle, ["w1"])
    eventually(lambda: backend.delete_workers(handle, ["w1"]), "its end")
    assert [state.observation.phase for state in states(backend, handle)] == [Phase.GONE]
    backend.create_workers(handle, request_, ["w1"])
    eventually(
        lambda: [state.observation.phase for state in states(backend, handle)] == [Phase.WAITING], "the new pod of w1"
    )


def test_a_worker_that_loses_its_labels_is_still_the_jobs(
    backend: DaskKubernetesBackend, request_: Any, handle: Any, cluster: FakeCluster
) -> None:
    backend.create_workers(handle, request_, ["w1"])
    until_names(backend, handle, ["w1"])
    without: dict[str, Any] = {"dask-worker": None}
    cluster.relabel("pods", W1, **without)
    cluster.change("pods", W1, status=worker_status(running={}))
    eventually(lambda: states(backend, handle)[0].observation.phase is Phase.RUNNING, "its start")
    cluster.relabel("pods", W1, instance=None)  # no watch shows it any more
    cluster.change("pods", W1, status=worker_status(terminated={"exitCode": 1, "reason": "Error"}))

    def ended() -> bool:
        backend.poll([handle])  # has hidden objects read by name
        return states(backend, handle)[0].observation.phase is Phase.ENDED

    eventually(ended, "its end")
    assert backend.poll([handle])[0].phase is not Phase.GONE
