"""The objects that the watches saw last: Jobs, pods and events of one namespace, cut down to what tells how an attempt
is.

Filled by :mod:`backends.kubernetes.cluster.watch`, read by the backend's ``poll``. An object whose deletion was seen,
or that a later complete list doesn't have, is kept for a while as gone: its last state says how it ended.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from backends.kubernetes.manifest import RUN
from backends.kubernetes.reasons import Pod

Json = dict[str, Any]

#: Seconds for which what is gone is remembered.
REMEMBER = 600.0

_METADATA = ("name", "uid", "creationTimestamp", "deletionTimestamp")
_EVENT = ("reason", "message", "type", "lastTimestamp", "eventTime")
_POD_STATUS = ("phase", "reason", "message", "conditions", "containerStatuses", "initContainerStatuses", "startTime")


_CONDITION = ("type", "status", "reason", "message", "lastTransitionTime")


@dataclass(frozen=True)
class _Kept:
    object: Json
    gone: float | None = None  # when its end was noticed, monotonic


class Cache:
    """One namespace. Safe to share among threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._jobs: dict[str, _Kept] = {}
        self._pods: dict[str, _Kept] = {}
        self._by_job: dict[str, list[str]] = {}
        self._events: dict[str, dict[str, Json]] = {}

    def job(self, uid: str) -> tuple[Json | None, bool]:
        """A Job by its UID, and whether it is gone; (None, False) if it was never seen."""
        with self._lock:
            kept = self._jobs.get(uid)
            return (None, False) if kept is None else (kept.object, kept.gone is not None)

    def jobs(self) -> list[Json]:
        """All Jobs that are there."""
        with self._lock:
            return [kept.object for kept in self._jobs.values() if kept.gone is None]

    def pods(self, job: str) -> list[Pod]:
        """The pods of a Job by its UID, oldest first."""
        with self._lock:
            found = [self._pods[uid] for uid in self._by_job.get(job, ()) if uid in self._pods]
        found.sort(key=lambda kept: str(kept.object["metadata"].get("creationTimestamp") or ""))
        return [Pod(object=kept.object, gone=kept.gone is not None) for kept in found]

    def events(self, uids: Iterable[str]) -> list[Json]:
        """The newest event of each reason on these objects."""
        with self._lock:
            return [event for uid in uids for event in self._events.get(uid, {}).values()]

    def put(self, kind: str, thing: Mapping[str, Any]) -> None:
        """It was created or changed."""
        with self._lock:
            self._put(kind, thing)

    def remove(self, kind: str, thing: Mapping[str, Any]) -> None:
        """It was deleted; ``thing`` is its last state."""
        with self._lock:
            if kind == "events":
                self._events.get(thing["involvedObject"].get("uid", ""), {}).pop(str(thing.get("reason")), None)
                return
            self._put(kind, thing)
            uid = thing["metadata"]["uid"]
            kept = self._kept(kind)
            kept[uid] = _Kept(kept[uid].object, self._clock())

    def replace(self, kind: str, things: Iterable[Mapping[str, Any]]) -> None:
        """These are all that there are; others that were known are gone."""
        with self._lock:
            if kind == "events":
                self._events.clear()
            there = set()
            for thing in things:
                self._put(kind, thing)
                there.add(thing["metadata"]["uid"])
            if kind != "events":
                self._bury(self._kept(kind), there)
            self._forget()

    def _bury(self, kept: dict[str, _Kept], there: set[str]) -> None:
        now = self._clock()
        for uid, one in kept.items():
            if uid not in there and one.gone is None:
                kept[uid] = _Kept(one.object, now)

    def _forget(self) -> None:
        """Drop what has been gone for long, and its events."""
        long_ago = self._clock() - REMEMBER
        for kept in (self._jobs, self._pods):
            for uid in [uid for uid, one in kept.items() if one.gone is not None and one.gone < long_ago]:
                del kept[uid]
                self._by_job.pop(uid, None)
                self._events.pop(uid, None)
        for job, uids in list(self._by_job.items()):
            self._by_job[job] = [uid for uid in uids if uid in self._pods]
            if not self._by_job[job]:
                del self._by_job[job]

    def _kept(self, kind: str) -> dict[str, _Kept]:
        return self._jobs if kind == "jobs" else self._pods

    def _put(self, kind: str, thing: Mapping[str, Any]) -> None:
        if kind == "events":
            about = thing["involvedObject"].get("uid")
            if about:
                self._events.setdefault(about, {})[str(thing.get("reason"))] = dict(thing)
            return
        uid = thing["metadata"]["uid"]
        self._kept(kind)[uid] = _Kept(dict(thing))
        if kind == "pods":
            siblings = self._by_job.setdefault(thing["metadata"].get("job", ""), [])
            if uid not in siblings:
                siblings.append(uid)


def job_of(kind: str, kept: Mapping[str, Any]) -> str:
    """The UID of the Job that an object, as it is kept, belongs to."""
    metadata = kept["metadata"]
    return str(metadata["uid"] if kind == "jobs" else metadata.get("job", ""))


def cut(kind: str, thing: Mapping[str, Any]) -> Json:
    """Return the part of an object that is kept."""
    metadata = thing.get("metadata") or {}
    if kind == "events":
        about = thing.get("involvedObject") or {}
        return {
            "metadata": {"uid": metadata.get("uid")},
            "involvedObject": {"uid": about.get("uid")},
            **{name: thing[name] for name in _EVENT if thing.get(name) is not None},
        }
    kept: Json = {name: metadata[name] for name in _METADATA if name in metadata}
    status = dict(thing.get("status") or {})
    spec = thing.get("spec") or {}
    if status.get("conditions"):
        status["conditions"] = [_condition(one) for one in status["conditions"]]
    if kind == "jobs":
        kept["run"] = str((metadata.get("annotations") or {}).get(RUN) or "")
        kept["attempt"] = sys.intern(str((metadata.get("labels") or {}).get("attempt") or ""))
        container = sys.intern(str(spec["template"]["spec"]["containers"][0]["name"])) if spec.get("template") else ""
        suspend = bool(spec.get("suspend"))
        return {"metadata": kept, "spec": {"suspend": suspend, "container": container}, "status": status}
    owners = [one.get("uid") for one in metadata.get("ownerReferences") or () if one.get("kind") == "Job"]
    kept["job"] = owners[0] if owners else ""
    for name in ("containerStatuses", "initContainerStatuses"):
        if status.get(name):
            status[name] = [{"name": one.get("name"), "state": one.get("state")} for one in status[name]]
    return {
        "metadata": kept,
        "spec": {name: spec[name] for name in ("nodeName", "readinessGates") if spec.get(name)},
        "status": {name: status[name] for name in _POD_STATUS if status.get(name) is not None},
    }


def _condition(one: Mapping[str, Any]) -> Json:
    """A condition without what nobody reads: thousands of objects have several, which say the same."""
    return {name: sys.intern(one[name]) for name in _CONDITION if isinstance(one.get(name), str)}
