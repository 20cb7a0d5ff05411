"""The parts of a cluster's objects that are cached, since thousands of them stay in a worker's memory. Pure."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from backends.kubernetes.manifest import INSTANCE, RUN

Json = dict[str, Any]

_METADATA = ("name", "uid", "creationTimestamp", "deletionTimestamp")
_EVENT = ("reason", "message", "type", "lastTimestamp", "eventTime")
_POD_STATUS = ("phase", "reason", "message", "conditions", "containerStatuses", "initContainerStatuses", "startTime")
_CONDITION = ("type", "status", "reason", "message", "lastTransitionTime")

#: Labels in which Kubernetes notes the UID of a pod's Job, and by which its Job controller finds the pods of a Job.
_JOB_UID = ("batch.kubernetes.io/controller-uid", "controller-uid")

#: Kubernetes' own finalizer of each pod of a Job, which goes with the pod.
_TRACKING = "batch.kubernetes.io/job-tracking"


def job_uid(kind: str, item: Mapping[str, Any]) -> str:
    """Return the UID of the Job that a trimmed Job or pod belongs to."""
    metadata = item["metadata"]
    return str(metadata["uid"] if kind == "jobs" else metadata.get("job", ""))


def trim(kind: str, item: Mapping[str, Any]) -> Json:
    """Return the part of an object that is cached.

    A Job or pod gets ``run``, ``attempt`` and ``instance`` as its annotation and labels say, and its ``finalizers`` but
    for the one that each pod of a Job has. A pod gets ``job``, the UID of its Job, and ``orphaned`` if only a label
    names that.
    """
    metadata = item.get("metadata") or {}
    if kind == "events":
        about = item.get("involvedObject") or {}
        return {
            "metadata": {"uid": metadata.get("uid")},
            "involvedObject": {"uid": about.get("uid")},
            **{name: item[name] for name in _EVENT if item.get(name) is not None},
        }
    trimmed = _trim_metadata(metadata)
    status = dict(item.get("status") or {})
    spec = item.get("spec") or {}
    if status.get("conditions"):
        status["conditions"] = [_trim_condition(condition) for condition in status["conditions"]]
    if kind == "jobs":
        container = _first_container((spec.get("template") or {}).get("spec"))
        suspend = bool(spec.get("suspend"))
        return {"metadata": trimmed, "spec": {"suspend": suspend, "container": container}, "status": status}
    trimmed |= _owner(metadata)
    for name in ("containerStatuses", "initContainerStatuses"):
        if status.get(name):
            status[name] = [{"name": entry.get("name"), "state": entry.get("state")} for entry in status[name]]
    fields = {name: spec[name] for name in ("nodeName", "readinessGates") if spec.get(name)}
    if trimmed.get("orphaned"):
        fields["container"] = _first_container(spec)
    return {
        "metadata": trimmed,
        "spec": fields,
        "status": {name: status[name] for name in _POD_STATUS if status.get(name) is not None},
    }


def _trim_metadata(metadata: Mapping[str, Any]) -> Json:
    trimmed: Json = {name: metadata[name] for name in _METADATA if name in metadata}
    labels = metadata.get("labels") or {}
    trimmed["run"] = str((metadata.get("annotations") or {}).get(RUN) or "")
    trimmed["attempt"] = sys.intern(str(labels.get("attempt") or ""))
    trimmed["instance"] = sys.intern(str(labels.get(INSTANCE) or ""))
    if finalizers := [str(name) for name in metadata.get("finalizers") or () if name != _TRACKING]:
        trimmed["finalizers"] = finalizers
    return trimmed


def _owner(metadata: Mapping[str, Any]) -> Json:
    """Return the Job that an owner reference names; else, where no controller owns the pod, the one in its label.

    Kubernetes' Job controller uses the same rule. A deletion of a Job with the orphan policy removes the references.
    """
    references = metadata.get("ownerReferences") or ()
    owners = [owner.get("uid") for owner in references if owner.get("kind") == "Job"]
    if owners:
        return {"job": owners[0]}
    if any(owner.get("controller") for owner in references):
        return {"job": ""}
    labels = metadata.get("labels") or {}
    return {"job": next((str(labels[name]) for name in _JOB_UID if labels.get(name)), ""), "orphaned": True}


def _first_container(pod: Mapping[str, Any] | None) -> str:
    containers = (pod or {}).get("containers") or ()
    return sys.intern(str(containers[0].get("name") or "")) if containers else ""


def _trim_condition(condition: Mapping[str, Any]) -> Json:
    """Return a condition without unread fields, its strings shared: thousands of objects carry the same ones."""
    return {name: sys.intern(condition[name]) for name in _CONDITION if isinstance(condition.get(name), str)}
