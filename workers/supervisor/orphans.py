"""Infrastructure that no run wants: left by a request that came late, or whose record is gone.

Only what carries our instance id is listed; what was seen twice, is old enough and is wanted by no record is ended.
The other way round, a record whose infrastructure is gone is found by looking at it.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from backends.base import Backend, Found, Listed
from dispatcher.inspection.orphans import MIN_AGE
from dispatcher.records.base import Records
from dispatcher.runs.attempt import family, shard_of
from dispatcher.runs.infrastructure import wants
from dispatcher.support.log_throttle import LogThrottle
from workers.supervisor.request_threads import Hands

logger = logging.getLogger(__name__)

LIST = "list of orphans"
END = "orphan"


class Orphans:
    """Sweeps the shards held.

    Args:
        records: what is wanted.
        backend: lists what there is, if it can.
        hands: make the requests.
        wanted: whether an attempt (run id, number) is wanted for all that is known here; only others are asked for.
        every: seconds between two sweeps.
    """

    def __init__(
        self,
        records: Records,
        backend: Backend,
        hands: Hands,
        *,
        wanted: Callable[[str, int], bool],
        every: float,
    ) -> None:
        self._records = records
        self._backend = backend
        self._hands = hands
        self._wanted = wanted
        self._every = every
        self._grace = min(MIN_AGE, 2 * every)
        self._next = time.monotonic() + every
        self._suspects: set[str] = set()
        self._seldom = LogThrottle(logger)

    def sweep(self, shards: Collection[str]) -> None:
        """Begin a sweep, if one is due."""
        if not isinstance(self._backend, Listed) or not shards or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._every
        self._hands.give((LIST, self._backend.name), partial(self._backend.orphans, self._records.instance))

    def listed(self, answer: Any, shards: Collection[str]) -> None:
        """Look at what there is."""
        if isinstance(answer, Exception):
            self._seldom.warn(f"orphans of {self._backend.name} can't be listed now", answer)
            return
        ours = family(self._backend.name, self._backend.place)
        old = [one for one in answer if one.age >= self._grace and shard_of(ours, one.run_id) in shards]
        unwanted = unwanted_of(self._records, [one for one in old if not self._wanted(one.run_id, one.attempt)])
        again, self._suspects = self._suspects, {_key(one) for one in unwanted}
        for one in unwanted:
            if _key(one) in again:
                logger.warning("attempt %d of run %s is wanted by nobody: it is ended", one.attempt, one.run_id)
                self._hands.give((END, one.run_id, _key(one)), partial(self._end, one))

    def _end(self, one: Found) -> bool:
        return self._backend.cancel(one.handle, None)


def unwanted_of(records: Records, found: Collection[Found]) -> list[Found]:
    """Those that no record wants."""
    ids = list({one.run_id for one in found})
    known = dict(zip(ids, records.runs.get_many(ids), strict=True)) if ids else {}
    return [one for one in found if not wants(known[one.run_id], one.attempt)]


def _key(one: Found) -> str:
    return json.dumps(dict(one.handle), sort_keys=True)
