"""Handles of Jobs: JSON that names one Job of a cluster, and the scope of a worker, which names what it may touch.

Made where a Job is created or listed, stored with its run, and read by whatever observes or deletes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from backends.base import Handle


class JobKey(NamedTuple):
    """Identity of a Job. The UID tells it apart from earlier and later Jobs of the same name."""

    namespace: str
    name: str
    uid: str

    @classmethod
    def of(cls, handle: Handle) -> JobKey:
        """Return the key of the Job that a handle names."""
        return cls(str(handle["namespace"]), str(handle["name"]), str(handle["uid"]))


def make_handle(
    key: JobKey, *, cluster: str, container: str, instance: str, identity: Mapping[str, str] | None = None
) -> Handle:
    """Return the handle of a Job.

    Args:
        key: the Job.
        cluster: its cluster's name in the settings.
        container: name of the container that runs the flow.
        instance: the installation's label value.
        identity: the cluster's, as far as it is known.
    """
    return {
        "cluster": cluster,
        "namespace": key.namespace,
        "name": key.name,
        "uid": key.uid,
        "container": container,
        "instance": instance,
        **({"identity": dict(identity)} if identity else {}),
    }


@dataclass(frozen=True)
class Scope:
    """The cluster and the namespaces that a worker serves. It reads and deletes nothing elsewhere."""

    cluster: str
    namespaces: Sequence[str]

    def exclusion(self, target: Mapping[str, Any]) -> str:
        """Return the reason why a handle or request is out of scope; empty if it is in scope."""
        if target["cluster"] != self.cluster:
            return f"it is on cluster {target['cluster']!r}, and this worker serves {self.cluster!r}"
        if target["namespace"] not in self.namespaces:
            served = ", ".join(self.namespaces)
            return f"it is in namespace {target['namespace']!r}, and this worker serves {served}"
        return ""
