"""Deletion of orphaned infrastructure: that of late requests, and of runs whose record is gone.

Only infrastructure with our instance id is listed. It is deleted if it was found twice, is old enough and no record
wants it. The other way round, a run whose infrastructure is gone is found by observing it.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from backends.base import Backend, Found, Listed
from dispatcher.inspection.orphans import MIN_AGE, unwanted_attempts
from dispatcher.records.base import Records
from dispatcher.runs.attempt import family, shard_of
from dispatcher.support.log_throttle import LogThrottle
from workers.supervisor.backend_requests import BackendRequests

logger = logging.getLogger(__name__)


class OrphanSweep:
    """Sweep of the shards held.

    Args:
        records: decide what is wanted.
        backend: lists its infrastructure, if it can.
        requests: made to the backend.
        is_wanted: whether an attempt (run id, number) is wanted by what is cached; records are read only for others.
        every: seconds between two sweeps.
    """

    def __init__(
        self,
        records: Records,
        backend: Backend,
        requests: BackendRequests,
        *,
        is_wanted: Callable[[str, int], bool],
        every: float,
    ) -> None:
        self._records = records
        self._backend = backend
        self._requests = requests
        self._is_wanted = is_wanted
        self._every = every
        self._grace = min(MIN_AGE, 2 * every)
        self._next = time.monotonic() + every
        self._suspects: set[str] = set()
        self._throttle = LogThrottle(logger)

    def sweep(self, held: Callable[[], Collection[str]]) -> None:
        """Begin a sweep if one is due. ``held`` gives the names of the shards held, now and when the list is there."""
        if not isinstance(self._backend, Listed) or not held() or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._every
        self._requests.submit(
            ("orphans", self._backend.name),
            partial(self._backend.orphans, self._records.instance),
            lambda answer: self._handle_list(answer, held()),
        )

    def _handle_list(self, answer: Any, shards: Collection[str]) -> None:
        if isinstance(answer, Exception):
            self._throttle.warn(f"Can't list the infrastructure of backend {self._backend.name} now", answer)
            return
        shard_family = family(self._backend.name, self._backend.place)
        candidates = [
            item
            for item in answer
            if item.age >= self._grace
            and shard_of(shard_family, item.run_id) in shards
            and not self._is_wanted(item.run_id, item.attempt)
        ]
        unwanted = unwanted_attempts(self._records.runs, {(item.run_id, item.attempt) for item in candidates})
        orphans = [item for item in candidates if (item.run_id, item.attempt) in unwanted]
        suspects, self._suspects = self._suspects, {_key(item) for item in orphans}
        for item in orphans:
            if _key(item) in suspects:
                logger.warning("Deleting orphaned infrastructure of run %s, attempt %d", item.run_id, item.attempt)
                self._requests.submit(("orphan deletion", item.run_id, _key(item)), partial(self._delete, item))

    def _delete(self, item: Found) -> bool:
        return self._backend.cancel(item.handle, None)


def _key(item: Found) -> str:
    return json.dumps(dict(item.handle), sort_keys=True)
