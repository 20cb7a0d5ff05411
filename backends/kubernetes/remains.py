"""The remains of an attempt whose Job is gone or being deleted: which don't go with it, and what keeps them. Pure.

Kubernetes deletes the pods of a deleted Job, unless others interfered: a deletion with the orphan policy (the default
of a plain API call) removes the pods' owner references, and a finalizer on the Job keeps both it and its pods, for as
long as whoever set it likes. See
https://kubernetes.io/docs/concepts/architecture/garbage-collection/#orphaned-dependents. The workers of its flow are
owned by the Job as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backends.kubernetes import reasons
from backends.kubernetes.attempt_objects import worker_name
from backends.kubernetes.timestamps import seconds

Object = Mapping[str, Any]

_FOREGROUND = "foregroundDeletion"

#: Kubernetes' own finalizers of a Job; those of others are anybody's.
_OWN = frozenset({_FOREGROUND, "orphan"})

#: Seconds that whoever set a finalizer gets, before it is named.
_PATIENCE = 5.0


@dataclass(frozen=True)
class Remains:
    """A Job (None: it is gone) and its pods, all trimmed and all of which exist."""

    job: Object | None
    pods: Sequence[Object]

    @property
    def abandoned(self) -> list[Object]:
        """The pods that nobody deletes: their Job is gone and doesn't own them any more, or a finalizer keeps it; also
        workers of a Job that is gone, for which the garbage collector may take its time."""
        is_held = self.job is not None and bool(_foreign(self.job))

        def is_left(pod: Object) -> bool:
            is_late = self.job is None and bool(worker_name(pod))
            return is_held or is_late or bool(pod["metadata"].get("orphaned"))

        return [pod for pod in self.pods if not _deleted(pod) and is_left(pod)]

    @property
    def is_blocked(self) -> bool:
        """True if only a deletion in the foreground keeps the Job, though its pods are gone: it waits for another
        object that names the Job as its owner."""
        return (
            self.job is not None and not self.pods and list(self.job["metadata"].get("finalizers", ())) == [_FOREGROUND]
        )

    def keeper(self, namespace: str, now: float) -> str:
        """Say what keeps the remains, whose deletion was requested; empty if they are about to go.

        Args:
            namespace: theirs.
            now: seconds since the epoch.
        """
        for pod in self.pods:
            if reasons.node_lost_reason(pod) is not None:
                return f"teardown pending: node {pod['spec'].get('nodeName')}"
            if _foreign(pod) and _is_over(pod, now):
                return _waits(pod, f"pod {namespace}/{pod['metadata']['name']}")
        if self.job is not None and _foreign(self.job) and _age(self.job, now) >= _PATIENCE:
            return _waits(self.job, f"Job {namespace}/{self.job['metadata']['name']}")
        return ""


def _foreign(item: Object) -> list[str]:
    return [name for name in item["metadata"].get("finalizers", ()) if name not in _OWN]


def _deleted(item: Object) -> bool:
    return bool(item["metadata"].get("deletionTimestamp"))


def _age(item: Object, now: float) -> float:
    """Return the seconds since an object had to go; negative while its grace lasts, or if it needn't go."""
    until = seconds(item["metadata"].get("deletionTimestamp"))
    return -1.0 if until is None else now - until


def _is_over(pod: Object, now: float) -> bool:
    """Return True if nothing of a deleted pod runs any more, or its grace is over."""
    ended = pod.get("status", {}).get("phase") in {"Succeeded", "Failed"}
    return _deleted(pod) and (ended or _age(pod, now) >= 0)


def _waits(item: Object, what: str) -> str:
    names = _foreign(item)
    return f"it waits for finalizer{'s' if len(names) > 1 else ''} {', '.join(names)} on {what}, set by others"
