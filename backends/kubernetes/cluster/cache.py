"""Cache of the Jobs, pods and events of one namespace, trimmed to the fields that an observation reads.

Filled by :mod:`backends.kubernetes.cluster.watch`, read by the backend's ``poll``. An object that watches and lists
stop showing isn't gone for that: somebody may have taken our labels off it. It is *hidden* until it was read by name
(:meth:`Cache.settle`), unless its last state tells that it ended. An object that is gone is kept for a while, because
its last state says how it ended.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from backends.kubernetes.reasons import Pod

Json = dict[str, Any]

#: Seconds for which an object that is gone, or wasn't read for so long, is kept.
KEEP_GONE = 600.0


class Presence(StrEnum):
    """Knowledge of the existence of an object."""

    WATCHED = "watched"  #: lists and watches show it
    HIDDEN = "hidden"  #: they stopped showing it, or never did; whether it exists is found by reading it by name
    GONE = "gone"  #: it doesn't exist any more


class Hidden(NamedTuple):
    """A hidden object, as it is read."""

    kind: str
    name: str
    uid: str


class _Entry(NamedTuple):
    object: Json
    presence: Presence = Presence.WATCHED
    at: float = 0.0  # monotonic: when its end was noticed, or since when it is hidden, or when it was read since
    was_read: bool = False  # since it is hidden
    by_reference: bool = True  # a pod: an owner reference has named its Job once, not only a label

    @property
    def is_gone(self) -> bool:
        return self.presence is Presence.GONE


class Cache:
    """Objects of one namespace, all as :func:`~backends.kubernetes.cluster.trim.trim` returns them. Safe to share among
    threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._jobs: dict[str, _Entry] = {}
        self._pods: dict[str, _Entry] = {}
        self._pods_of_job: dict[str, list[str]] = {}  # those that run flows
        self._workers_of_job: dict[str, list[str]] = {}
        self._events: dict[str, dict[str, Json]] = {}  # by the UID of their object, and by reason
        self._deleted_here: set[str] = set()  # UIDs of Jobs
        self._hidden: set[str] = set()  # UIDs of Jobs and pods

    def job(self, uid: str) -> tuple[Json | None, bool]:
        """Return a Job by its UID, and True if it is gone. (None, False): it was never seen; (None, True): it was
        never seen, and doesn't exist."""
        with self._lock:
            entry = self._jobs.get(uid)
            return (None, False) if entry is None else (entry.object or None, entry.is_gone)

    def jobs(self) -> list[Json]:
        """Return all Jobs that lists and watches show."""
        with self._lock:
            return [entry.object for entry in self._jobs.values() if entry.presence is Presence.WATCHED]

    def pods(self, job: str) -> list[Pod]:
        """Return the pods of a Job by its UID, oldest first.

        If owner references name some as the Job's, others that only claim it by a label aren't; else only the oldest of
        those is, since a Job has one pod, and a copy is younger.
        """
        with self._lock:
            entries = [self._pods[uid] for uid in self._pods_of_job.get(job, ()) if uid in self._pods]
        entries.sort(key=lambda entry: str(entry.object["metadata"].get("creationTimestamp") or ""))
        entries = [entry for entry in entries if entry.by_reference] or entries[:1]
        return [Pod(object=entry.object, gone=entry.is_gone) for entry in entries]

    def workers(self, job: str) -> list[Pod]:
        """Return the pods that work for the flow of a Job, by the Job's UID, oldest first."""
        with self._lock:
            entries = [self._pods[uid] for uid in self._workers_of_job.get(job, ()) if uid in self._pods]
        entries.sort(key=lambda entry: str(entry.object["metadata"].get("creationTimestamp") or ""))
        return [Pod(object=entry.object, gone=entry.is_gone) for entry in entries]

    def all_pods(self) -> list[Json]:
        """Return all pods that lists and watches show, workers too."""
        with self._lock:
            return [entry.object for entry in self._pods.values() if entry.presence is Presence.WATCHED]

    def hidden(self, job: str, *, unread_for: float = 0.0) -> list[Hidden]:
        """Return the hidden ones among a Job and its pods, workers too, that weren't read for so many seconds, or
        never."""
        if not self._hidden:
            return []  # as nearly always, without a look at each
        latest = self._clock() - unread_for
        with self._lock:
            entries = [("jobs", job, self._jobs.get(job))]
            uids = (*self._pods_of_job.get(job, ()), *self._workers_of_job.get(job, ()))
            entries += [("pods", uid, self._pods.get(uid)) for uid in uids]
        return [
            Hidden(kind, str(entry.object["metadata"]["name"]), uid)
            for kind, uid, entry in entries
            if entry is not None and entry.presence is Presence.HIDDEN and (not entry.was_read or entry.at <= latest)
        ]

    def events(self, uids: Iterable[str]) -> list[Json]:
        """Return the newest event of each reason about these objects; of probes, one of each kind and container."""
        with self._lock:
            return [event for uid in uids for event in self._events.get(uid, {}).values()]

    def put(self, kind: str, item: Mapping[str, Any]) -> None:
        """Store an object that was created or changed."""
        with self._lock:
            self._put(kind, item)

    def remove(self, kind: str, item: Mapping[str, Any]) -> None:
        """Store the last state of an object that a watch stops to show."""
        with self._lock:
            if kind == "events":
                self._events.get(item["involvedObject"].get("uid", ""), {}).pop(_topic(item), None)
                return
            self._put(kind, item)
            self._lose(kind, item["metadata"]["uid"])

    def replace(self, kind: str, items: Iterable[Mapping[str, Any]]) -> None:
        """Store a complete list. Cached objects that it lacks are gone or hidden."""
        with self._lock:
            if kind == "events":
                self._events.clear()
            listed = set()
            for item in items:
                self._put(kind, item)
                listed.add(item["metadata"]["uid"])
            if kind != "events":
                entries = self._entries(kind)
                for uid in [uid for uid, entry in entries.items() if entry.presence is Presence.WATCHED]:
                    if uid not in listed:
                        self._lose(kind, uid)
            self._evict()

    def settle(self, kind: str, uid: str, item: Mapping[str, Any] | None) -> bool:
        """Store what reading a hidden or unknown object by name has returned: its trimmed state, or None if it doesn't
        exist. Nothing changes if a watch has shown it meanwhile.

        Return True if it exists, though no watch showed it, and that wasn't known.
        """
        with self._lock:
            entries = self._entries(kind)
            entry = entries.get(uid)
            if entry is not None and entry.presence is Presence.WATCHED:
                return False
            self._hidden.discard(uid)
            if item is None:
                entries[uid] = (entry or _Entry({}))._replace(presence=Presence.GONE, at=self._clock())
                return False
            self._put(kind, item)
            self._hidden.add(uid)
            entries[uid] = entries[uid]._replace(presence=Presence.HIDDEN, at=self._clock(), was_read=True)
            return entry is None or not entry.was_read

    def note_deletion(self, job: str, *, requested: bool) -> None:
        """Note whether the deletion of a Job with all that it owns was requested here."""
        with self._lock:
            if requested:
                self._deleted_here.add(job)
            else:
                self._deleted_here.discard(job)

    def was_deleted_here(self, job: str) -> bool:
        """Return True if the deletion of a Job was requested here: what it owns goes with it."""
        with self._lock:
            return job in self._deleted_here

    def _lose(self, kind: str, uid: str) -> None:
        """Note that an object isn't shown any more."""
        entries = self._entries(kind)
        gone = self._tells_its_end(kind, entries[uid].object)
        presence = Presence.GONE if gone else Presence.HIDDEN
        if not gone:
            self._hidden.add(uid)
        entries[uid] = entries[uid]._replace(presence=presence, at=self._clock(), was_read=False)

    def _tells_its_end(self, kind: str, item: Json) -> bool:
        """Return True if an object that isn't shown any more was being deleted, so that nothing else explains it."""
        metadata = item["metadata"]
        job = metadata["uid"] if kind == "jobs" else metadata.get("job")
        ended = kind == "pods" and item["status"].get("phase") in {"Succeeded", "Failed"}
        return bool(metadata.get("deletionTimestamp")) or ended or job in self._deleted_here

    def _evict(self) -> None:
        """Drop objects that have been gone or unread for long, and their events."""
        oldest = self._clock() - KEEP_GONE
        for entries in (self._jobs, self._pods):
            for uid in [
                uid for uid, entry in entries.items() if entry.presence is not Presence.WATCHED and entry.at < oldest
            ]:
                del entries[uid]
                self._events.pop(uid, None)
                self._deleted_here.discard(uid)
                self._hidden.discard(uid)
        for of_job in (self._pods_of_job, self._workers_of_job):
            for job, uids in list(of_job.items()):
                of_job[job] = [uid for uid in uids if uid in self._pods]
                if not of_job[job]:
                    del of_job[job]

    def _entries(self, kind: str) -> dict[str, _Entry]:
        return self._jobs if kind == "jobs" else self._pods

    def _put(self, kind: str, item: Mapping[str, Any]) -> None:
        if kind == "events":
            about = item["involvedObject"].get("uid")
            if about:
                self._events.setdefault(about, {})[_topic(item)] = dict(item)
            return
        metadata = item["metadata"]
        uid = metadata["uid"]
        self._hidden.discard(uid)
        if kind == "jobs":
            self._jobs[uid] = _Entry(dict(item))
            return
        before = self._pods.get(uid)
        if before is not None:  # the last sign of what it belongs to may have been taken off
            former = {name: before.object["metadata"].get(name) for name in ("job", "worker")}
            lost = {name: text for name, text in former.items() if text and not metadata.get(name)}
            item = {**item, "metadata": {**metadata, **lost}} if lost else item
        job, worker = item["metadata"].get("job") or "", item["metadata"].get("worker")
        by_reference = not metadata.get("orphaned") or (before is not None and before.by_reference)
        self._pods[uid] = _Entry(dict(item), by_reference=by_reference)
        siblings = (self._workers_of_job if worker else self._pods_of_job).setdefault(job, [])
        if uid not in siblings:
            siblings.append(uid)


def _topic(event: Mapping[str, Any]) -> str:
    """Return what an event is about: a newer one about the same takes its place."""
    reason = str(event.get("reason"))
    if reason != "Unhealthy":
        return reason
    kind, _, _ = str(event.get("message") or "").partition(" ")  # such as Liveness
    return f"{reason} {kind} {event['involvedObject'].get('fieldPath', '')}"
