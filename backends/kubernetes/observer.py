"""Observation of many attempts at once, from the caches of watches. Answers the backend's ``poll``.

Reads are in memory. A Job that no watch has shown is looked up by name on another thread; the cache alone never decides
that it is gone, and its absence says nothing unless the identity of its cluster is that of the cluster asked.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from backends.base import Handle, Observation, Phase
from backends.kubernetes import reasons
from backends.kubernetes.cluster.identity import ClusterIdentity
from backends.kubernetes.cluster.lookup import JobLookup
from backends.kubernetes.cluster.watches import Watches
from backends.kubernetes.handle import JobKey, Scope
from backends.kubernetes.jobs import Jobs
from backends.kubernetes.timestamps import times

LOOKUP_AFTER = 5.0  # seconds for which a Job may be missing in the cache before it is looked up by name
FORGET_AFTER = 600.0  # seconds after which the clocks of an attempt that is no longer polled are dropped


class Observer:
    """Observes the attempts of one cluster.

    Args:
        scope: the cluster and namespaces that are served.
        watches: what is observed.
        jobs: looks up a missing Job.
        identity: of the cluster.
    """

    def __init__(self, scope: Scope, watches: Watches, jobs: Jobs, identity: ClusterIdentity) -> None:
        self._scope = scope
        self._identity = identity
        self._watches = watches
        self._lookup = JobLookup(jobs.exists, lambda key: watches.on_change(key.uid, ""))
        self._clocks: dict[JobKey, tuple[float, reasons.Clocks]] = {}  # with the time of the last observation

    def poll(self, handles: Sequence[Handle]) -> list[Observation]:
        """Observe attempts, in the order given."""
        now = time.monotonic()
        observations = [self._observe(handle, now) for handle in handles]
        if len(self._clocks) > 1000 + len(handles):
            for key in [key for key, (polled, _) in self._clocks.items() if now - polled > FORGET_AFTER]:
                del self._clocks[key]
                self._lookup.forget(key)
        return observations

    def close(self) -> None:
        """Stop looking up Jobs."""
        self._lookup.stop()

    def _observe(self, handle: Handle, now: float) -> Observation:
        if exclusion := self._scope.exclusion(handle):
            return _unseen(exclusion)
        key = JobKey.of(handle)
        watch = self._watches.get(key.namespace, str(handle["instance"]))
        if stale := watch.stale_reason():
            return Observation(phase=Phase.UNSEEN) if watch.starting else _unseen(stale)
        job, gone = watch.cache.job(key.uid)
        _, clocks = self._clocks.get(key, (now, {}))
        if job is None:
            return self._observe_missing(handle, clocks, now)
        pods = watch.cache.pods(key.uid)
        uids = [key.uid, *(str(pod.object["metadata"]["uid"]) for pod in pods)]
        snapshot = reasons.Snapshot(
            job=None if gone else job,
            deleted=gone,
            pods=pods,
            events=watch.cache.events(uids),
            container=str(handle["container"]),
        )
        observation, clocks = reasons.observe(snapshot, clocks, now)
        self._clocks[key] = (now, clocks)
        return replace(observation, times=times(job, pods, snapshot.events, snapshot.container))

    def _observe_missing(self, handle: Handle, clocks: reasons.Clocks, now: float) -> Observation:
        """Observe a Job that no watch has shown: it is very new, was deleted while nobody watched, or is on another
        cluster."""
        key = JobKey.of(handle)
        missing_since, _ = clocks.get("missing", (now, ""))
        self._clocks[key] = (now, {**clocks, "missing": (missing_since, "")})
        if now - missing_since < LOOKUP_AFTER:
            return Observation(phase=Phase.WAITING)
        exists = self._lookup.result(key)
        if exists is None:
            doubt = self._identity.doubt(handle)
            return _unseen(doubt) if doubt else Observation(phase=Phase.WAITING)
        if isinstance(exists, Exception):
            return _unseen(str(exists))
        self._clocks[key] = (now, {**clocks, "missing": (now, "")})
        if exists:
            return Observation(phase=Phase.WAITING)
        if doubt := self._identity.doubt(handle):
            return _unseen(doubt)
        return reasons.observe(reasons.Snapshot(job=None), {}, now)[0]


def _unseen(message: str) -> Observation:
    return Observation(phase=Phase.UNKNOWN, reason="Unseen", message=message)
