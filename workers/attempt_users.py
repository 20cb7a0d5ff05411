"""A Redis user for each attempt in a container, where ``worker.runner_users`` asks for it.

A user is created before the request is sent, and again if the server has lost it: servers keep users in memory alone
unless configured otherwise, and replicas don't receive them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from dispatcher.inspection.orphans import unwanted_attempts
from dispatcher.records.base import Records
from dispatcher.records.users import AttemptScope
from dispatcher.runs.attempt import shard_of
from dispatcher.runs.infrastructure import is_open
from dispatcher.runs.record import Record
from dispatcher.serialization import KeyRing
from dispatcher.serialization.seals import Stored
from workers.error_isolation import ErrorIsolation

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AttemptUsers:
    """Creates and removes users of attempts."""

    records: Records
    keys: KeyRing

    def make(self, record: Record) -> dict[str, str]:
        """Create the user of a record's attempt. Return the variables that pass it to the runner.

        Raises:
            ServerUnavailable: no answer, or the worker may not create users.
            SealBroken: the key ring lacks the run's key.
        """
        request, spec = record.request or {}, record.spec
        password = self.keys.password(record.id, record.attempt, request["epoch"], spec.key_id)
        scope = AttemptScope(run_id=record.id, attempt=record.attempt, shard=request["shard"], blobs=spec.blobs)
        return {
            "DISPATCHER__RUN__USER": self.records.users.make(scope, password),
            "DISPATCHER__RUN__PASSWORD": password,
        }

    def sweep(self, records: Iterable[Record], family: str, shards: Iterable[str]) -> None:
        """Create the users that the server has lost, and remove those of attempts that no record wants any more.

        Args:
            records: of the runs of these shards.
            family: of the shards.
            shards: those that this worker holds.

        Raises:
            ServerUnavailable: no answer, or the worker may not.
        """
        users, shards = set(self.records.users.known()), set(shards)
        self._restore([record.id for record in records if record.request and (record.id, record.attempt) not in users])
        self._remove([(run_id, attempt) for run_id, attempt in users if shard_of(family, run_id) in shards])

    def _restore(self, run_ids: list[str]) -> None:
        """Create users again. Reads the whole records, because their requests must be what a worker stored."""
        isolation = ErrorIsolation(logger)
        for record in self.records.runs.get_many(run_ids) if run_ids else ():
            if record is not None and is_open(record, record.attempt):
                with isolation.run(record.id):
                    self.keys.engine.check(record.id, record.attempt, Stored.REQUEST, record.request or {})
                    self.make(record)

    def _remove(self, users: list[tuple[str, int]]) -> None:
        if unwanted := unwanted_attempts(self.records.runs, users):
            self.records.users.remove(list(unwanted))
