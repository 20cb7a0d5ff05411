"""A user of the records for each attempt in a container, where ``worker.runner_users`` asks for it.

Made before the request is sent, and again where the server has forgotten it: servers keep users in memory alone unless
told otherwise, and replicas don't get them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from dispatcher.records.base import Records
from dispatcher.records.users import Reach
from dispatcher.runs.attempt import shard_of
from dispatcher.runs.infrastructure import is_open, wants
from dispatcher.runs.record import Record
from dispatcher.serialization import KeyRing
from dispatcher.serialization.seals import Stored
from workers.error_isolation import ErrorIsolation

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AttemptUsers:
    """Makes and removes them."""

    records: Records
    keys: KeyRing

    def make(self, record: Record) -> dict[str, str]:
        """Make the user of a record's attempt; the variables that tell its runner.

        Raises:
            ServerUnavailable: no answer, or the worker may not make users.
            SealBroken: the ring hasn't the run's key.
        """
        request, spec = record.request or {}, record.spec
        password = self.keys.password(record.id, record.attempt, request["epoch"], spec.key_id)
        reach = Reach(run_id=record.id, attempt=record.attempt, shard=request["shard"], blobs=spec.blobs)
        return {
            "DISPATCHER__RUN__USER": self.records.users.make(reach, password),
            "DISPATCHER__RUN__PASSWORD": password,
        }

    def sweep(self, records: Iterable[Record], family: str, shards: Iterable[str]) -> None:
        """Make those that the server has forgotten, and remove those of attempts that nobody wants any more.

        Args:
            records: of the runs of these shards.
            family: that the shards are of.
            shards: those that this worker answers for.

        Raises:
            ServerUnavailable: no answer, or the worker may not.
        """
        known, ours = set(self.records.users.known()), set(shards)
        self._make_again([one.id for one in records if one.request and (one.id, one.attempt) not in known])
        self._remove([one for one in known if shard_of(family, one[0]) in ours])

    def _make_again(self, run_ids: list[str]) -> None:
        """The records are read whole: their requests must be what a worker stored."""
        each = ErrorIsolation(logger)
        for record in self.records.runs.get_many(run_ids) if run_ids else ():
            if record is not None and is_open(record, record.attempt):
                with each.run(record.id):
                    self.keys.engine.check(record.id, record.attempt, Stored.REQUEST, record.request or {})
                    self.make(record)

    def _remove(self, users: list[tuple[str, int]]) -> None:
        ids = list({run_id for run_id, _ in users})
        found = dict(zip(ids, self.records.runs.get_many(ids), strict=True)) if ids else {}
        over = [one for one in users if not wants(found[one[0]], one[1])]
        if over:
            self.records.users.remove(over)
