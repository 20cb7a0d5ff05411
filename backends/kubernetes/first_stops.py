"""Cancels of flows that stop before their pod is deleted, because other containers share its grace.

The runner of such a pod looks for a cancel by itself (:mod:`dispatcher.runner.container.cancel_watch`). If it doesn't
end in time, the pod is deleted as any other.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from backends.base import Handle
from backends.kubernetes import grace
from backends.kubernetes.handle import JobKey
from backends.kubernetes.jobs import Jobs

_MOST = 1000  # cancels remembered


class FirstStops:
    """The cancels that wait for their flow. Only when each was first asked for is remembered: after a restart it waits
    anew.

    Args:
        jobs: the Jobs' pods, as the cache has them.
        clock: seconds, monotonic.
    """

    def __init__(self, jobs: Jobs, clock: Callable[[], float] = time.monotonic) -> None:
        self._jobs = jobs
        self._clock = clock
        self._since: dict[JobKey, float] = {}

    def waits(self, handle: Handle) -> bool:
        """Return True if the deletion of a Job still waits for its flow to stop."""
        key, now = JobKey.of(handle), self._clock()
        cache = self._jobs.cache(handle)
        pods = [] if cache is None else [pod.object for pod in cache.pods(key.uid) if not pod.gone]
        if not any(grace.stops_first(pod, str(handle["container"])) for pod in pods):
            self._since.pop(key, None)
            return False
        while len(self._since) >= _MOST:
            self._since.pop(next(iter(self._since)), None)
        return now - self._since.setdefault(key, now) < grace.STOP_FIRST
