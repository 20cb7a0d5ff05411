"""The grace of pods: raised for the flow, its author's own for other containers, none where nothing ran."""

from __future__ import annotations

from typing import Any

import pytest

from backends.base import Phase
from backends.kubernetes import grace
from backends.kubernetes.backend import KubernetesBackend
from backends.kubernetes.first_stops import FirstStops
from backends.kubernetes.grace import Graces, of_pod
from dispatcher import Cause, KubernetesJobEnvironment
from tests.kubernetes_api import FakeCluster, Json, StatusError
from tests.unit.kubernetes.backends import NAME, SECRETS, running, until
from tests.unit.kubernetes.jobs import attempt

RUNNING: Json = {"running": {}}
OVER: Json = {"terminated": {"exitCode": 0}}


def spec(**fields: Any) -> Json:
    return {"containers": [{"name": "flow"}], **fields}


@pytest.mark.parametrize(
    ("fields", "graces"),
    [
        ({}, Graces(own=30, pod=105, runner=105)),
        ({"terminationGracePeriodSeconds": 30}, Graces(own=30, pod=105, runner=105)),
        ({"terminationGracePeriodSeconds": 0}, Graces(own=0, pod=105, runner=105)),
        ({"terminationGracePeriodSeconds": 600}, Graces(own=600, pod=600, runner=600)),
    ],
)
def test_the_grace_is_raised_where_it_is_lower(fields: Json, graces: Graces) -> None:
    assert of_pod(spec(**fields), 105) == graces


@pytest.mark.parametrize(("hook", "pod"), [({"sleep": {"seconds": 20}}, 125), ({"exec": {"command": ["x"]}}, 135)])
def test_a_hook_before_sigterm_takes_nothing_of_the_runners_grace(hook: Json, pod: int) -> None:
    flow = {"name": "flow", "lifecycle": {"preStop": hook}}
    assert of_pod({"containers": [flow]}, 105) == Graces(own=30, pod=pod, runner=105)


def states(flow: Json, other: Json | None = RUNNING, *, native: bool = False) -> Json:
    """Return a pod's status: its flow's container, and a side-car."""
    flows, others = [{"name": "flow", "state": flow}], [{"name": "mesh", "state": other}] if other else []
    if native:
        return {"phase": "Running", "containerStatuses": flows, "initContainerStatuses": others}
    return {"phase": "Running", "containerStatuses": [*flows, *others]}


def requests_of(cluster: FakeCluster) -> list[tuple[str, Any]]:
    """Return the kind and the grace of each deletion."""
    return [
        (request.path.split("/")[-2], (request.body or {}).get("gracePeriodSeconds"))
        for request in cluster.requests
        if request.method == "DELETE"
    ]


def accompanied(backend: KubernetesBackend, **pod: Any) -> Any:
    """Return the handle of a run in a pod with a side-car."""
    containers = [{"name": "flow"}, {"name": "mesh", "image": "mesh:1"}]
    job = {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": {"spec": {"containers": containers, **pod}}}}
    return backend.submit(backend.prepare(attempt(KubernetesJobEnvironment(job_spec=job))), SECRETS)


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize(("flow", "phase"), [(OVER, Phase.ENDED), (RUNNING, Phase.RUNNING)])
def test_side_cars_get_the_pods_own_grace_once_the_attempt_is_over(
    backend: KubernetesBackend, cluster: FakeCluster, native: bool, flow: Json, phase: Phase
) -> None:
    """The pod goes first: a node doesn't shorten a grace that has begun."""
    handle = accompanied(backend, terminationGracePeriodSeconds=7)
    cluster.add_pod(cluster.get("jobs", NAME), **states(flow, native=native))
    until(backend, handle, phase)
    backend.discard(handle, None, claimed=True)
    assert requests_of(cluster) == [("pods", 7), ("jobs", None)]


def test_a_pod_without_side_cars_costs_no_request_of_its_own(
    backend: KubernetesBackend, handle: Any, cluster: FakeCluster
) -> None:
    cluster.add_pod(cluster.get("jobs", NAME), **states(OVER, None))
    until(backend, handle, Phase.ENDED)
    backend.discard(handle, None, claimed=True)
    assert requests_of(cluster) == [("jobs", None)]


def test_an_attempt_that_nobody_claimed_gets_no_grace(
    backend: KubernetesBackend, handle: Any, cluster: FakeCluster
) -> None:
    cluster.keep_pods = True
    cluster.add_pod(cluster.get("jobs", NAME), **running())
    until(backend, handle, Phase.RUNNING)
    backend.discard(handle, None, claimed=False)
    assert requests_of(cluster) == [("pods", 1), ("jobs", None)]
    until(backend, handle, Phase.RUNNING, Cause.KILLED)
    backend.discard(handle, None, claimed=False)
    assert requests_of(cluster).count(("pods", 1)) == 1, "its grace has begun"


def test_a_worker_without_the_right_leaves_the_pod_to_its_job(
    backend: KubernetesBackend, handle: Any, cluster: FakeCluster
) -> None:
    cluster.add_pod(cluster.get("jobs", NAME), **running())
    until(backend, handle, Phase.RUNNING)
    cluster.errors["DELETE", "pods"] = StatusError(403, "Forbidden", "pods is forbidden")
    backend.discard(handle, None, claimed=False)
    assert ("jobs", "default", NAME) not in cluster.objects


def test_a_cancel_lets_a_flow_with_side_cars_stop_first(backend: KubernetesBackend, cluster: FakeCluster) -> None:
    handle = accompanied(backend)
    pod = cluster.add_pod(cluster.get("jobs", NAME), **states(RUNNING))
    until(backend, handle, Phase.RUNNING)
    assert not backend.cancel(handle, None)
    assert requests_of(cluster) == []
    cluster.change("pods", pod["metadata"]["name"], status=states(OVER))
    until(backend, handle, Phase.ENDED)
    backend.discard(handle, None, claimed=True)
    assert requests_of(cluster) == [("pods", 30), ("jobs", None)]


def test_a_cancel_waits_only_so_long_for_the_flow(backend: KubernetesBackend, cluster: FakeCluster) -> None:
    handle, now = accompanied(backend), [0.0]
    cluster.add_pod(cluster.get("jobs", NAME), **states(RUNNING))
    until(backend, handle, Phase.RUNNING)
    stops = FirstStops(backend._jobs, lambda: now[0])
    waits = []
    for now[0] in (100.0, 101.0, 100.0 + grace.STOP_FIRST):
        waits.append(stops.waits(handle))
    assert waits == [True, True, False]


def test_a_cancel_of_a_flow_alone_in_its_pod_deletes_at_once(
    backend: KubernetesBackend, handle: Any, cluster: FakeCluster
) -> None:
    cluster.add_pod(cluster.get("jobs", NAME), **running())
    until(backend, handle, Phase.RUNNING)
    backend.cancel(handle, None)
    assert requests_of(cluster) == [("jobs", None)]
