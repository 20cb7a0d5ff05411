"""The objects that an attempt of one backend has on the cluster, beside its Job and the Job's pod. Pure.

Several backends make Jobs in the namespaces of one installation. A backend watches, lists and deletes only its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Label of all objects of a backend that makes more than Jobs, with its name.
BACKEND = "flow-dispatcher/backend"

#: Label of a pod that works for the flow of a Job; its value and the end of the pod's name are the worker's name. The
#: Job owns such a pod, and doesn't control it: the Job's own pod is the one that it controls.
WORKER = "dask-worker"

#: Label of such a pod with the UID of its Job, for the time when no owner reference names that any more.
CLUSTER = "dask-cluster"

#: Kubernetes' own annotation with the name of the container that tools mean by default: that of a worker.
MAIN_CONTAINER = "kubectl.kubernetes.io/default-container"


@dataclass(frozen=True, kw_only=True)
class AttemptObjects:
    """Kinds of objects that belong to an attempt.

    Attributes:
        selector: selects the backend's objects among those of an installation.
        has_workers: pods with the label :data:`WORKER` may be part of it.
        deleted_first: what the Job owns is deleted before it: the Job's deletion is in the foreground.
        dependents: kind, and suffix to the Job's name, of each object that the Job owns. Workers can't read them.
    """

    selector: str
    has_workers: bool = False
    deleted_first: bool = False
    dependents: tuple[tuple[str, str], ...] = (("secrets", ""),)

    def of_instance(self, instance: str) -> str:
        """Return the label selector of an installation's objects."""
        return f"instance={instance},{self.selector}"


#: The objects of a flow that runs alone in its Job.
JOB_ALONE = AttemptObjects(selector=f"!{BACKEND}")


def worker_name(pod: Mapping[str, Any]) -> str:
    """Return the name of the worker that a trimmed pod runs; empty if it is no worker's."""
    return str(pod["metadata"].get("worker") or "")


def is_worker_of(pod: Mapping[str, Any], job: str) -> bool:
    """Return True if a trimmed pod has the name of a worker of the Job with this name."""
    worker = worker_name(pod)
    return bool(worker) and pod["metadata"]["name"] == f"{job}-{worker}"
