"""Observation of many attempts at once, from the caches of watches. Answers the backend's ``poll``.

Reads are in memory. A Job or pod that watches don't show, or don't show any more, is looked up by name on another
thread: its labels may have been changed, so the cache alone never decides that it is gone. While it exists, it is read
again from time to time, in place of the watch. An absence says nothing unless the identity of the cluster is that of
the cluster asked.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from backends.base import Handle, Observation, Phase
from backends.kubernetes import reasons
from backends.kubernetes.cluster.cache import Cache
from backends.kubernetes.cluster.identity import ClusterIdentity
from backends.kubernetes.cluster.lookup import Lookups
from backends.kubernetes.cluster.watches import Watches
from backends.kubernetes.handle import JobKey, Scope
from backends.kubernetes.jobs import Jobs
from backends.kubernetes.timestamps import times

LOOKUP_AFTER = 5.0  # seconds for which a Job may be missing in the cache before it is looked up by name
READ_INTERVAL = 5.0  # seconds after which an object that no watch shows is read again
FORGET_AFTER = 600.0  # seconds after which the clocks of an attempt that is no longer polled are dropped


class Observer:
    """Observes the attempts of one cluster.

    Args:
        scope: the cluster and namespaces that are served.
        watches: what is observed.
        jobs: looks up what watches don't show.
        identity: of the cluster.
    """

    def __init__(self, scope: Scope, watches: Watches, jobs: Jobs, identity: ClusterIdentity) -> None:
        self._scope = scope
        self._identity = identity
        self._watches = watches
        self._jobs = jobs
        self._lookups = Lookups(lambda key: watches.on_change(key.uid, ""))
        self._clocks: dict[JobKey, tuple[float, reasons.Clocks]] = {}  # with the time of the last observation

    def poll(self, handles: Sequence[Handle]) -> list[Observation]:
        """Observe attempts, in the order given."""
        now = time.monotonic()
        observations = [self._observe(handle, now) for handle in handles]
        if len(self._clocks) > 1000 + len(handles):
            for key in [key for key, (polled, _) in self._clocks.items() if now - polled > FORGET_AFTER]:
                del self._clocks[key]
                self._lookups.forget(key)
        return observations

    def close(self) -> None:
        """Stop looking up Jobs."""
        self._lookups.stop()

    def _observe(self, handle: Handle, now: float) -> Observation:
        if exclusion := self._scope.exclusion(handle):
            return _unseen(exclusion)
        key = JobKey.of(handle)
        watch = self._watches.get(key.namespace, str(handle["instance"]))
        if stale := watch.stale_reason():
            return Observation(phase=Phase.UNSEEN) if watch.starting else _unseen(stale)
        job, gone = watch.cache.job(key.uid)
        unknown = job is None and not gone
        if (unsettled := self._unsettled(handle, watch.cache, now, unknown=unknown)) is not None:
            return unsettled
        _, clocks = self._clocks.get(key, (now, {}))
        pods = watch.cache.pods(key.uid)
        uids = [key.uid, *(str(pod.object["metadata"]["uid"]) for pod in pods)]
        snapshot = reasons.Snapshot(
            job=None if gone else job,
            deleted=gone and job is not None,
            pods=pods,
            events=watch.cache.events(uids),
            container=str(handle["container"]),
        )
        observation, clocks = reasons.observe(snapshot, clocks, now)
        self._clocks[key] = (now, clocks)
        return replace(observation, times=times(job, pods, snapshot.events, snapshot.container))

    def _unsettled(self, handle: Handle, cache: Cache, now: float, *, unknown: bool) -> Observation | None:
        """Have read by name what watches don't show. Return the observation until that is done; None if the cache
        tells enough: until a hidden object was read, its last state counts. ``unknown``: no watch has shown the
        Job."""
        key = JobKey.of(handle)
        if unknown and not self._is_overdue(key, now):
            return Observation(phase=Phase.WAITING)
        if not unknown and not cache.hidden(key.uid, unread_for=READ_INTERVAL):
            return None
        failure = self._lookups.request(key, partial(self._jobs.look_up, handle, cache))
        if failure is not None:
            return _unseen(str(failure) or type(failure).__name__)
        if not unknown:
            return None
        doubt = self._identity.doubt(handle)
        return _unseen(doubt) if doubt else Observation(phase=Phase.WAITING)

    def _is_overdue(self, key: JobKey, now: float) -> bool:
        """Return True if a Job is very new no more, so that a watch should have shown it."""
        _, clocks = self._clocks.get(key, (now, {}))
        missing_since, _ = clocks.get("missing", (now, ""))
        self._clocks[key] = (now, {**clocks, "missing": (missing_since, "")})
        return now - missing_since >= LOOKUP_AFTER


def _unseen(message: str) -> Observation:
    return Observation(phase=Phase.UNKNOWN, reason="Unseen", message=message)
