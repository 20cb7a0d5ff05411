"""Attempts, pods and expectations that tests of the backend of Dask clusters share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backends.base import WorkerState
from backends.dask_kubernetes.backend import DaskKubernetesBackend
from dispatcher import DaskKubernetesEnvironment
from dispatcher.errors import Transient
from dispatcher.runs.attempt import Attempt
from tests.kubernetes_api import FakeCluster, Json
from tests.unit.kubernetes import jobs
from tests.unit.kubernetes.backends import NAME, eventually

ADDRESS = "10.0.0.7"


def attempt(environment: DaskKubernetesEnvironment | None = None, **changes: Any) -> Attempt:
    """Return an attempt in ``environment``, by default with two to four workers."""
    chosen = environment or DaskKubernetesEnvironment(min_workers=2, max_workers=4)
    return jobs.attempt(chosen, **changes)


def start_flow(cluster: FakeCluster, name: str = NAME, **status: Any) -> Json:
    """Create the pod of a Job, with an address."""
    return cluster.add_pod(cluster.get("jobs", name), **{"phase": "Running", "podIP": ADDRESS, **status})


def states(backend: DaskKubernetesBackend, handle: Any) -> list[WorkerState]:
    """Return the workers, once the watch is current."""

    def current() -> list[list[WorkerState]]:
        try:
            return [backend.workers(handle)]
        except Transient:
            return []

    return eventually(current, "a current watch")[0]


def until_names(backend: DaskKubernetesBackend, handle: Any, names: Sequence[str]) -> list[WorkerState]:
    """Return the workers once they are exactly those that are named and not gone."""

    def matching() -> list[list[WorkerState]]:
        existing = [state for state in states(backend, handle) if state.observation.phase != "gone"]
        return [existing] if [state.name for state in existing] == list(names) else []

    return eventually(matching, f"the workers {names}")[0]


def worker_status(**state: Any) -> Json:
    """Return the status of a worker's pod with this state of its container."""
    return {
        "phase": "Failed" if "terminated" in state else "Running",
        "conditions": [{"type": "PodScheduled", "status": "True"}],
        "containerStatuses": [{"name": "dask-worker", "state": state}],
    }


def names_of(cluster: FakeCluster, kind: str) -> list[str]:
    """Return the names of all objects of a kind, in the order of creation."""
    return [key[2] for key in cluster.objects if key[0] == kind]


def made(cluster: FakeCluster, kind: str) -> list[str]:
    """Return the names of all objects of a kind that were ever created, in this order."""
    return [item["metadata"]["name"] for _, event, of, item in cluster.history if (event, of) == ("ADDED", kind)]
