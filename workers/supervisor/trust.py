"""The records that a supervisor may act upon: their spec is signed, and what a worker stored in them is sealed.

Whoever may write records could otherwise have infrastructure created, looked at or deleted in a worker's name.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from dispatcher.errors import Refused, SealBroken, UnknownRun
from dispatcher.records.base import Records, Step
from dispatcher.records.rejections import What, count
from dispatcher.runs import infrastructure, transitions
from dispatcher.runs.attempt import shard_of
from dispatcher.runs.record import Record
from dispatcher.serialization.seals import EngineSeal, Stored
from dispatcher.support.log_throttle import LogThrottle
from workers.supervisor.record_cache import slim, slim_leftovers

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trust:
    """Judges records; ends those that were forged.

    Args:
        records: where they are.
        seal: workers sealed with it what they stored.
        family: of the shards supervised here; see :func:`~dispatcher.runs.attempt.family`.
        now: the server's clock.
    """

    records: Records
    seal: EngineSeal
    family: str
    now: Callable[[], float]
    _unknown: LogThrottle = field(default_factory=lambda: LogThrottle(logger))

    def watched(self, record: Record) -> Record | None:
        """A run as it is worth watching; None where nothing may be done with it, which ends it."""
        if not self.records.runs.knows(record):
            self._unknown.warn(
                f"run {record.id} is left alone", SealBroken(f"its key {record.spec.key_id!r} isn't here")
            )
            return None
        if why := self.why_not(record):
            self._refuse(record, why, partial(transitions.refuse, reason="SealBroken", message=why))
            return None
        return slim(record)

    def why_not(self, record: Record) -> str:
        """Why nothing may be done with a run, or nothing. What was judged already, and slimmed, stays as it was."""
        if why := self.records.runs.vet(record, self.now()):
            return why
        if record.owner.startswith(f"{self.family}/") and record.owner != shard_of(self.family, record.id):
            return f"run {record.id} stands under shard {record.owner}, which isn't its own"
        return self._unsealed(record.id, record.attempt, record.request, record.handle)

    def left(self, record: Record) -> Record:
        """A record with those leftovers alone that a worker noted; the others are dropped, and nothing is deleted."""
        for leftover in record.leftovers:
            attempt = leftover.get("attempt")
            why = self._unsealed(record.id, attempt, leftover.get("request"), leftover.get("handle"))
            if why:
                self._refuse(record, why, partial(infrastructure.disowned, leftover=leftover))
                record = record.but(leftovers=tuple(other for other in record.leftovers if other is not leftover))
        return slim_leftovers(record)

    def _unsealed(self, run_id: str, attempt: Any, request: Any, handle: Any) -> str:
        try:
            if isinstance(handle, Mapping):
                self.seal.check(run_id, attempt, Stored.HANDLE, handle)
            elif isinstance(request, Mapping):
                self.seal.check(run_id, attempt, Stored.REQUEST, request)
            elif handle is not None or request is not None:
                return f"what attempt {attempt} of run {run_id} is said to have made is no JSON object"
        except SealBroken as error:
            return str(error)
        return ""

    def _refuse(self, record: Record, why: str, step: Step) -> None:
        count(self.records.refusals, What.RUN)
        logger.warning("run %s: refused: %s", record.id, why)
        try:
            self.records.runs.update(record.id, step)
        except (Refused, UnknownRun) as error:
            logger.info("nothing to do: %s", error)
