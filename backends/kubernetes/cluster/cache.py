"""Cache of the Jobs, pods and events of one namespace, trimmed to the fields that an observation reads.

Filled by :mod:`backends.kubernetes.cluster.watch`, read by the backend's ``poll``. An object whose deletion was seen,
or that a later complete list lacks, is kept for a while as gone: its last state says how it ended.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from backends.kubernetes.grace import ANNOTATIONS
from backends.kubernetes.manifest import RUN
from backends.kubernetes.reasons import Pod
from backends.kubernetes.suspension import suspended_by

Json = dict[str, Any]

#: Seconds for which an object that is gone is kept.
KEEP_GONE = 600.0

_METADATA = ("name", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")
_EVENT = ("reason", "message", "type", "lastTimestamp", "eventTime")
_POD_STATUS = ("phase", "reason", "message", "conditions", "containerStatuses", "initContainerStatuses", "startTime")
_POD_SPEC = ("nodeName", "readinessGates", "schedulingGates")
_CONTAINER = ("name", "state")
_INIT_CONTAINER = ("name", "state", "lastState", "started")
_CONDITION = ("type", "status", "reason", "message", "lastTransitionTime")


@dataclass(frozen=True)
class _Entry:
    object: Json
    gone_at: float | None = None  # when its end was noticed, monotonic


class Cache:
    """Objects of one namespace, all as :func:`trim` returns them. Safe to share among threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._jobs: dict[str, _Entry] = {}
        self._pods: dict[str, _Entry] = {}
        self._pods_of_job: dict[str, list[str]] = {}
        self._events: dict[str, dict[str, Json]] = {}  # by the UID of their object, and by reason

    def job(self, uid: str) -> tuple[Json | None, bool]:
        """Return a Job by its UID, and True if it is gone; (None, False) if it was never seen."""
        with self._lock:
            entry = self._jobs.get(uid)
            return (None, False) if entry is None else (entry.object, entry.gone_at is not None)

    def jobs(self) -> list[Json]:
        """Return all Jobs that aren't gone."""
        with self._lock:
            return [entry.object for entry in self._jobs.values() if entry.gone_at is None]

    def pods(self, job: str) -> list[Pod]:
        """Return the pods of a Job by its UID, oldest first."""
        with self._lock:
            entries = [self._pods[uid] for uid in self._pods_of_job.get(job, ()) if uid in self._pods]
        entries.sort(key=lambda entry: str(entry.object["metadata"].get("creationTimestamp") or ""))
        return [Pod(object=entry.object, gone=entry.gone_at is not None) for entry in entries]

    def events(self, uids: Iterable[str]) -> list[Json]:
        """Return the newest event of each reason about these objects; of probes, one of each kind and container."""
        with self._lock:
            return [event for uid in uids for event in self._events.get(uid, {}).values()]

    def put(self, kind: str, item: Mapping[str, Any]) -> None:
        """Store an object that was created or changed."""
        with self._lock:
            self._put(kind, item)

    def remove(self, kind: str, item: Mapping[str, Any]) -> None:
        """Mark an object as gone; ``item`` is its last state."""
        with self._lock:
            if kind == "events":
                self._events.get(item["involvedObject"].get("uid", ""), {}).pop(_topic(item), None)
                return
            self._put(kind, item)
            uid = item["metadata"]["uid"]
            entries = self._entries(kind)
            entries[uid] = _Entry(entries[uid].object, self._clock())

    def replace(self, kind: str, items: Iterable[Mapping[str, Any]]) -> None:
        """Store a complete list. Cached objects that it lacks are gone."""
        with self._lock:
            if kind == "events":
                self._events.clear()
            listed = set()
            for item in items:
                self._put(kind, item)
                listed.add(item["metadata"]["uid"])
            if kind != "events":
                self._mark_missing(self._entries(kind), listed)
            self._evict()

    def _mark_missing(self, entries: dict[str, _Entry], listed: set[str]) -> None:
        now = self._clock()
        for uid, entry in entries.items():
            if uid not in listed and entry.gone_at is None:
                entries[uid] = _Entry(entry.object, now)

    def _evict(self) -> None:
        """Drop objects that have been gone for long, and their events."""
        oldest = self._clock() - KEEP_GONE
        for entries in (self._jobs, self._pods):
            expired = [uid for uid, entry in entries.items() if entry.gone_at is not None and entry.gone_at < oldest]
            for uid in expired:
                del entries[uid]
                self._pods_of_job.pop(uid, None)
                self._events.pop(uid, None)
        for job, uids in list(self._pods_of_job.items()):
            self._pods_of_job[job] = [uid for uid in uids if uid in self._pods]
            if not self._pods_of_job[job]:
                del self._pods_of_job[job]

    def _entries(self, kind: str) -> dict[str, _Entry]:
        return self._jobs if kind == "jobs" else self._pods

    def _put(self, kind: str, item: Mapping[str, Any]) -> None:
        if kind == "events":
            about = item["involvedObject"].get("uid")
            if about:
                self._events.setdefault(about, {})[_topic(item)] = dict(item)
            return
        uid = item["metadata"]["uid"]
        self._entries(kind)[uid] = _Entry(dict(item))
        if kind == "pods":
            siblings = self._pods_of_job.setdefault(item["metadata"].get("job", ""), [])
            if uid not in siblings:
                siblings.append(uid)


def _topic(event: Mapping[str, Any]) -> str:
    """Return what an event is about: a newer one about the same takes its place."""
    reason = str(event.get("reason"))
    if reason != "Unhealthy":
        return reason
    kind, _, _ = str(event.get("message") or "").partition(" ")  # such as Liveness
    return f"{reason} {kind} {event['involvedObject'].get('fieldPath', '')}"


def job_uid(kind: str, item: Mapping[str, Any]) -> str:
    """Return the UID of the Job that a trimmed Job or pod belongs to."""
    metadata = item["metadata"]
    return str(metadata["uid"] if kind == "jobs" else metadata.get("job", ""))


def trim(kind: str, item: Mapping[str, Any]) -> Json:
    """Return the part of an object that is cached."""
    metadata = item.get("metadata") or {}
    if kind == "events":
        about = item.get("involvedObject") or {}
        return {
            "metadata": {"uid": metadata.get("uid")},
            "involvedObject": {name: about[name] for name in ("uid", "fieldPath") if about.get(name) is not None},
            **{name: item[name] for name in _EVENT if item.get(name) is not None},
        }
    trimmed: Json = {name: metadata[name] for name in _METADATA if name in metadata}
    status = dict(item.get("status") or {})
    spec = item.get("spec") or {}
    if status.get("conditions"):
        status["conditions"] = [_trim_condition(condition) for condition in status["conditions"]]
    if kind == "jobs":
        trimmed["run"] = str((metadata.get("annotations") or {}).get(RUN) or "")
        trimmed["attempt"] = sys.intern(str((metadata.get("labels") or {}).get("attempt") or ""))
        container = sys.intern(str(spec["template"]["spec"]["containers"][0]["name"])) if spec.get("template") else ""
        suspension = {"suspend": bool(spec.get("suspend")), "suspendedBy": suspended_by(item)}
        return {"metadata": trimmed, "spec": {**suspension, "container": container}, "status": status}
    owners = [owner.get("uid") for owner in metadata.get("ownerReferences") or () if owner.get("kind") == "Job"]
    trimmed["job"] = owners[0] if owners else ""
    annotations = metadata.get("annotations") or {}
    if of_grace := {name: sys.intern(str(annotations[name])) for name in ANNOTATIONS if name in annotations}:
        trimmed["annotations"] = of_grace
    for name, fields in (("containerStatuses", _CONTAINER), ("initContainerStatuses", _INIT_CONTAINER)):
        if status.get(name):
            status[name] = [{field: entry.get(field) for field in fields} for entry in status[name]]
    return {
        "metadata": trimmed,
        "spec": _trim_pod_spec(spec),
        "status": {name: status[name] for name in _POD_STATUS if status.get(name) is not None},
    }


def _trim_pod_spec(spec: Mapping[str, Any]) -> Json:
    """Return the fields of a pod's spec that tell what keeps it from starting; most pods have only one of them."""
    trimmed: Json = {name: spec[name] for name in _POD_SPEC if spec.get(name)}
    if inits := spec.get("initContainers"):
        side_cars = [init for init in inits if init.get("restartPolicy") == "Always"]
        trimmed["initContainers"] = [{"name": init.get("name"), "restartPolicy": "Always"} for init in side_cars]
    if (scheduler := spec.get("schedulerName")) != "default-scheduler" and scheduler:
        trimmed["schedulerName"] = scheduler
    return trimmed


def _trim_condition(condition: Mapping[str, Any]) -> Json:
    """Return a condition without unread fields, its strings shared: thousands of objects carry the same ones."""
    return {name: sys.intern(condition[name]) for name in _CONDITION if isinstance(condition.get(name), str)}
