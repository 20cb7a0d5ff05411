"""Writes of a supervisor: on behalf of a shard's lease, with the record cache kept current."""

from __future__ import annotations

import logging
from collections.abc import Callable

from dispatcher.errors import LeasePassed
from dispatcher.records.leases import Lease
from dispatcher.records.runs import Runs, Transition
from dispatcher.runs.record import Record
from workers.supervisor.clock import ServerClock
from workers.supervisor.record_cache import RecordCache
from workers.supervisor.shards import Shards
from workers.updates import try_update

logger = logging.getLogger(__name__)


class RecordWriter:
    """Takes transitions of runs. For the supervisor's thread alone.

    Args:
        runs: the records.
        cache: the records as last read.
        shards: those held, with their leases.
        clock: the server's.
    """

    def __init__(self, runs: Runs, cache: RecordCache, shards: Shards, clock: ServerClock) -> None:
        self._runs = runs
        self._clock = clock
        self.cache = cache
        self.shards = shards

    def update(self, record: Record, step: Transition) -> bool:
        """Take a transition of a run, if its shard is held. Return True if that changed its record.

        Args:
            record: as read; if the step changes nothing in it, or refuses it, nothing is sent.
            step: the transition.
        """
        now = self._clock.now()

        def update(lease: Lease) -> Record:
            return self._runs.update(record.id, step, record=record, now=now, lease=lease)

        if self.shards.lease(record.owner) is None or try_update(step, record, now) is None:
            return False
        after = self.write(record.id, record.owner, update)
        if after is None:
            return False
        self.keep(after, record.owner)
        return after.version != record.version

    def write(self, run_id: str, shard: str, update: Callable[[Lease], Record]) -> Record | None:
        """Call ``update`` with a shard's lease and return the new record; None if it wrote nothing.

        It writes nothing where the shard isn't held, or not any more, and where another change came first. The cache
        forgets the run then, but isn't given the new record: see :meth:`keep`.
        """
        lease = self.shards.lease(shard)
        if lease is None:
            return None
        try:
            record = try_update(update, lease)
        except LeasePassed as error:
            self.lose_shard(shard, error)
            return None
        if record is None:
            self.cache.drop(run_id)
        return record

    def keep(self, record: Record, shard: str) -> None:
        """Cache a record that was written if it is still the shard's; else forget the run."""
        if record.owner == shard:
            self.cache.put(record)
        else:
            self.cache.drop(record.id)

    def lose_shard(self, shard: str, error: LeasePassed) -> None:
        """Note that a shard has another holder, and forget its runs."""
        logger.warning("Shard %s was lost to another worker (%s); its runs are left to that one", shard, error)
        self.shards.forget(shard)
        for record in self.cache:
            if record.owner == shard:
                self.cache.drop(record.id)
