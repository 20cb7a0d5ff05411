"""Verification of records before a supervisor acts on them: a signed spec, and sealed data of workers.

Otherwise, anybody who may write records could have infrastructure created, observed or deleted in a worker's name.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from backends.base import Request
from dispatcher.errors import Refused, SealBroken
from dispatcher.records.base import Records
from dispatcher.records.rejections import Rejected, count_rejection
from dispatcher.records.runs import Transition
from dispatcher.runs import infrastructure, transitions
from dispatcher.runs.attempt import shard_of
from dispatcher.runs.record import Record
from dispatcher.runs.states import State
from dispatcher.serialization.seals import EngineSeal, Stored
from dispatcher.support.log_throttle import LogThrottle
from workers.supervisor.record_cache import slim, slim_leftovers
from workers.updates import try_update

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RecordVerifier:
    """Verifies records, and ends runs whose record was forged.

    Args:
        records: the records.
        seal: with which workers seal what they store.
        family: of the shards supervised here; see :func:`~dispatcher.runs.attempt.family`.
        now: the server's clock.
    """

    records: Records
    seal: EngineSeal
    family: str
    now: Callable[[], float]
    _throttle: LogThrottle = field(default_factory=lambda: LogThrottle(logger))

    def verified(self, record: Record) -> Record | None:
        """Return a record as it is cached; None if nothing may be done with the run. A forged one is ended.

        A run whose key isn't here is left to workers that have it while it runs. Before that, nobody but the worker
        that holds its shard could start it: it is refused, as a waiting run is.
        """
        begun = record.handle is not None or record.state is not State.PROVISIONING
        if begun and not self.records.runs.knows(record):
            self._throttle.warn(
                f"Run {record.id} is left to other workers", SealBroken(f"its key {record.spec.key_id!r} isn't here")
            )
            return None
        if problem := self.problem(record):
            self._reject(record, problem, partial(transitions.refuse, reason="SealBroken", message=problem))
            return None
        return slim(record)

    def problem(self, record: Record) -> str:
        """Return why nothing may be done with a run; empty if all is well. Also for records from the cache."""
        if problem := self.records.runs.vet(record, self.now()):
            return problem
        if record.owner.startswith(f"{self.family}/") and record.owner != shard_of(self.family, record.id):
            return f"run {record.id} stands under shard {record.owner}, which isn't its own"
        return self._seal_problem(record.id, record.attempt, record.request, record.handle)

    def with_verified_leftovers(self, record: Record) -> Record:
        """Return a record without the leftovers that no worker stored. Those are dropped; nothing is deleted."""
        for leftover in record.leftovers:
            attempt = leftover.get("attempt")
            problem = self._seal_problem(record.id, attempt, leftover.get("request"), leftover.get("handle"))
            if problem:
                self._reject(record, problem, partial(infrastructure.drop_leftover, leftover=leftover))
                record = record.but(leftovers=tuple(other for other in record.leftovers if other is not leftover))
        return slim_leftovers(record)

    def request(self, record: Record) -> Request:
        """Read the stored request of a run's attempt, which cached records don't hold, and return its body.

        Raises:
            UnknownRun: its record is gone.
            Refused: the attempt has ended.
            SealBroken: no worker stored the request for this attempt.
        """
        stored, _ = self.records.runs.get(record.id)
        if not infrastructure.is_open(stored, record.attempt):
            raise Refused(f"attempt {record.attempt} of run {record.id} is closed: nothing is created for it")
        request = stored.request or {}
        self.seal.check(record.id, record.attempt, Stored.REQUEST, request)
        body: Request = request["body"]
        return body

    def _seal_problem(self, run_id: str, attempt: Any, request: Any, handle: Any) -> str:
        try:
            if isinstance(handle, Mapping):
                self.seal.check(run_id, attempt, Stored.HANDLE, handle)
            elif isinstance(request, Mapping):
                self.seal.check(run_id, attempt, Stored.REQUEST, request)
            elif handle is not None or request is not None:
                return f"the request or handle of run {run_id}, attempt {attempt}, is no JSON object"
        except SealBroken as error:
            return str(error)
        return ""

    def _reject(self, record: Record, problem: str, step: Transition) -> None:
        count_rejection(self.records.rejections, Rejected.RUN)
        self._throttle.warn(f"Run {record.id} is refused", problem, kind=problem.replace(record.id, "…"))
        try_update(self.records.runs.update, record.id, step)
