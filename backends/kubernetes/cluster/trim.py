"""The parts of a cluster's objects that are cached, since thousands of them stay in a worker's memory. Pure."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from backends.kubernetes.attempt_objects import CLUSTER, MAIN_CONTAINER, WORKER
from backends.kubernetes.grace import ANNOTATIONS
from backends.kubernetes.manifest import INSTANCE, RUN
from backends.kubernetes.suspension import suspended_by

Json = dict[str, Any]

_METADATA = ("name", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")
_EVENT = ("reason", "message", "type", "lastTimestamp", "eventTime")
_POD_STATUS = (
    "phase", "reason", "message", "conditions", "containerStatuses", "initContainerStatuses", "startTime", "podIP",
)  # fmt: skip
_POD_SPEC = ("nodeName", "readinessGates", "schedulingGates")
_CONTAINER = ("name", "state")
_INIT_CONTAINER = ("name", "state", "lastState", "started")
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
    names that. One that works for the Job's flow gets ``worker``, its name, and its container with the memory limit.
    """
    metadata = item.get("metadata") or {}
    if kind == "events":
        about = item.get("involvedObject") or {}
        return {
            "metadata": {"uid": metadata.get("uid")},
            "involvedObject": {name: about[name] for name in ("uid", "fieldPath") if about.get(name) is not None},
            **{name: item[name] for name in _EVENT if item.get(name) is not None},
        }
    trimmed = _trim_metadata(metadata)
    status = dict(item.get("status") or {})
    spec = item.get("spec") or {}
    if status.get("conditions"):
        status["conditions"] = [_trim_condition(condition) for condition in status["conditions"]]
    if kind == "jobs":
        container = _first_container((spec.get("template") or {}).get("spec"))
        suspension = {"suspend": bool(spec.get("suspend")), "suspendedBy": suspended_by(item)}
        parallelism = {} if spec.get("parallelism") in {None, 1} else {"parallelism": spec["parallelism"]}
        return {"metadata": trimmed, "spec": {**suspension, **parallelism, "container": container}, "status": status}
    is_worker = _is_worker(metadata)
    trimmed |= _owner(metadata, is_worker=is_worker)
    annotations = metadata.get("annotations") or {}
    if of_grace := {name: sys.intern(str(annotations[name])) for name in ANNOTATIONS if name in annotations}:
        trimmed["annotations"] = of_grace
    for name, parts in (("containerStatuses", _CONTAINER), ("initContainerStatuses", _INIT_CONTAINER)):
        if status.get(name):
            status[name] = [{field: entry.get(field) for field in parts} for entry in status[name]]
    fields = _trim_pod_spec(spec)
    if is_worker:
        trimmed["worker"] = sys.intern(str(trimmed.get("name") or "").rpartition("-")[2])
        fields |= _worker_container(spec, str(annotations.get(MAIN_CONTAINER) or ""))
    elif trimmed.get("orphaned"):
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


def _is_worker(metadata: Mapping[str, Any]) -> bool:
    """Return True if a pod works for a Job's flow: a label says so, and no controller has made it."""
    labels = metadata.get("labels") or {}
    is_controlled = any(owner.get("controller") for owner in metadata.get("ownerReferences") or ())
    return bool(labels.get(WORKER)) and not is_controlled and not any(labels.get(name) for name in _JOB_UID)


def _owner(metadata: Mapping[str, Any], *, is_worker: bool) -> Json:
    """Return the Job that controls the pod or, if it is a worker, owns it; else, where no controller owns the pod, the
    one in its label.

    Kubernetes' Job controller uses the same rule. A deletion of a Job with the orphan policy removes the references.
    """
    references = metadata.get("ownerReferences") or ()
    jobs = [owner for owner in references if owner.get("kind") == "Job" and (is_worker or owner.get("controller"))]
    if jobs:
        return {"job": str(jobs[0].get("uid") or "")}
    if any(owner.get("controller") for owner in references):
        return {"job": ""}
    labels = metadata.get("labels") or {}
    names = (CLUSTER,) if is_worker else _JOB_UID
    return {"job": next((str(labels[name]) for name in names if labels.get(name)), ""), "orphaned": True}


def _trim_pod_spec(spec: Mapping[str, Any]) -> Json:
    """Return the fields of a pod's spec that tell what keeps it from starting; most pods have only one of them."""
    trimmed: Json = {name: spec[name] for name in _POD_SPEC if spec.get(name)}
    if inits := spec.get("initContainers"):
        side_cars = [init for init in inits if init.get("restartPolicy") == "Always"]
        trimmed["initContainers"] = [{"name": init.get("name"), "restartPolicy": "Always"} for init in side_cars]
    if (scheduler := spec.get("schedulerName")) != "default-scheduler" and scheduler:
        trimmed["schedulerName"] = scheduler
    return trimmed


def _worker_container(spec: Mapping[str, Any], name: str) -> Json:
    """Return the name of a worker's container, the named one or else the first, with its memory limit."""
    containers = spec.get("containers") or ()
    named = next((container for container in containers if name and container.get("name") == name), None)
    container = named or (containers[0] if containers else {})
    fields: Json = {"container": sys.intern(str(container.get("name") or ""))}
    if limit := ((container.get("resources") or {}).get("limits") or {}).get("memory"):
        fields["memory"] = sys.intern(str(limit))
    return fields


def _first_container(pod: Mapping[str, Any] | None) -> str:
    containers = (pod or {}).get("containers") or ()
    return sys.intern(str(containers[0].get("name") or "")) if containers else ""


def _trim_condition(condition: Mapping[str, Any]) -> Json:
    """Return a condition without unread fields, its strings shared: thousands of objects carry the same ones."""
    return {name: sys.intern(condition[name]) for name in _CONDITION if isinstance(condition.get(name), str)}
