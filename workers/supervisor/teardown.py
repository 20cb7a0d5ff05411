"""Teardown is work of its own: done only when confirmed; what can't be confirmed stays open, and says why."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any

from backends.base import Backend, Observation, Phase, Watched
from dispatcher.errors import LeasePassed, Refused, Transient, UnknownRun
from dispatcher.records.base import Records, Step
from dispatcher.records.leases import Lease
from dispatcher.runs import indexes, infrastructure
from dispatcher.runs.attempt import shard_of
from dispatcher.runs.record import Record
from dispatcher.support.failpoints import failpoint
from dispatcher.support.log_throttle import LogThrottle
from workers.one_by_one import OneByOne
from workers.supervisor.record_cache import Known
from workers.supervisor.request_threads import Hands
from workers.supervisor.shards import Shards
from workers.supervisor.trust import Trust

logger = logging.getLogger(__name__)

#: Seconds that a container gets to end by itself after its runner has reported the end.
LINGER = 5.0

#: Seconds between two times to ask; after as many of a teardown, what keeps it open is noted for people.
PAUSE = 1.0
NOTED = 30.0

#: Seconds until a container that lingers is looked at again, where nothing is heard of it.
LOOK = 0.5

Leftover = Mapping[str, Any]


class Teardown:
    """Ends what ended attempts of the shards held have left.

    Args:
        records: where it is noted.
        backend: asked to end it.
        hands: ask it.
        trust: drops what no worker noted.
        busy: whether something of an attempt (run id, number) is still wanted.
    """

    def __init__(
        self, records: Records, backend: Backend, hands: Hands, trust: Trust, *, busy: Callable[[str, int], bool]
    ) -> None:
        self._records = records
        self._backend = backend
        self._hands = hands
        self._busy = busy
        self._known = Known(records.runs, trust.left)
        self._index = indexes.teardown(backend.name)
        self._again: dict[tuple[Any, ...], float] = {}
        self._seldom = LogThrottle(logger)
        self._each = OneByOne(logger)
        self._lingering: dict[str, float] = {}  # run → when it is looked at again, monotonic
        self.names: dict[str, str] = {}  #: key of a handle → its run

    def refresh(self, shards: Collection[str]) -> None:
        """Read which runs have left something that has changed."""
        ours = {shard.rpartition("/")[2] for shard in shards}
        members = self._records.runs.members(self._index, limit=100_000)
        self._known.refresh(one for one in members if shard_of("", one[0]).rpartition("/")[2] in ours)
        self._records.runs.leave(self._index, self._known.missing, unreadable=True)
        at = time.monotonic()
        self._lingering = {run_id: until for run_id, until in self._lingering.items() if until > at}
        if isinstance(self._backend, Watched):
            self.names = {}
            for record in self._known:
                with self._each.run(record.id):
                    handles = [one["handle"] for one in record.leftovers if one["handle"] is not None]
                    self.names |= dict.fromkeys(map(self._backend.key, handles), record.id)

    def heard(self, runs: Iterable[str]) -> None:
        """Something has changed of what these have left."""
        for run_id in runs:
            self._lingering.pop(run_id, None)

    def wanted(self, run_id: str, attempt: int) -> bool:
        """Return True if what an attempt has left is known, and will be ended here."""
        return infrastructure.wants(self._known.get(run_id), attempt)

    def work(self, shards: Shards, now: float) -> None:
        """Ask for all to go that may."""
        at = time.monotonic()
        for record in self._known:
            if self._lingering.get(record.id, 0.0) > at or record.foreign:
                continue
            for one in record.leftovers:
                with self._each.run(record.id):
                    self._end(record, one, shards, now)

    def _end(self, record: Record, one: Leftover, shards: Shards, now: float) -> None:
        key, at = ("teardown", record.id, one["attempt"]), time.monotonic()
        if (
            self._hands.busy(key)
            or self._again.get(key, 0.0) > at
            or shards.lease(_shard(one)) is None
            or self._busy(record.id, one["attempt"])
        ):
            return
        if self._lingers(one, now):
            self._lingering[record.id] = at + LOOK
        else:
            self._hands.give(key, partial(self._ask, record.id, one))

    def answered(self, key: Any, answer: Any, shards: Shards) -> None:
        """Note what came of it."""
        run_id, attempt = key[1:]
        self._again = {key: until for key, until in self._again.items() if until > time.monotonic()}
        self._again[key] = time.monotonic() + (answer.retry_in if isinstance(answer, Transient) else PAUSE)
        record = self._known.get(run_id)
        one = next((one for one in record.leftovers if one["attempt"] == attempt), None) if record else None
        lease = shards.lease(_shard(one)) if one is not None else None
        if record is None or one is None or lease is None:
            return
        if answer is True:
            seen = self._look(one)
            times = seen.times if seen is not None else {}
            self._update(record, partial(infrastructure.torn_down, attempt=attempt, times=times), lease)
            failpoint("teardown.noted", run_id)
        elif isinstance(answer, Exception):
            self._seldom.warn(f"teardown of run {run_id} stays open", answer)
            self._note(record, one, str(answer), lease)

    def _ask(self, run_id: str, one: Leftover) -> bool:
        gone = self._backend.cancel(one["handle"], (one["request"] or {}).get("body"))
        failpoint("teardown.asked", run_id, lost=Transient)
        return gone

    def _note(self, record: Record, one: Leftover, why: str, lease: Lease) -> None:
        if one.get("pending") is None and "pending" not in why:
            _, now = self._records.runs.get(record.id)
            if now - one.get("ended", now) < NOTED:
                return
        step = partial(infrastructure.teardown_waits, attempt=one["attempt"], why=why[:500])
        self._update(record, step, lease)

    def _lingers(self, one: Leftover, now: float) -> bool:
        """Return True if it is about to end by itself: then its exit code is seen, and its last lines are sent."""
        if not one.get("claimed") or now - one.get("ended", 0.0) >= LINGER:
            return False
        seen = self._look(one)
        return seen is not None and seen.phase is Phase.RUNNING and seen.cause is None

    def _look(self, one: Leftover) -> Observation | None:
        return None if one["handle"] is None else self._backend.poll([one["handle"]])[0]

    def _update(self, record: Record, step: Step, lease: Lease) -> None:
        try:
            after = self._records.runs.update(record.id, step, lease=lease)
        except LeasePassed as error:
            logger.warning("%s", error)
        except (Refused, UnknownRun) as error:
            logger.info("nothing to do: %s", error)
            self._known.drop(record.id)
        else:
            self._known.put(after)


def _shard(one: Leftover) -> str:
    return str((one["handle"] or one["request"] or {}).get("shard", ""))
