"""Requests for the infrastructure of attempts: creation, and deletion while the attempt is open."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from backends.base import Backend
from dispatcher.errors import Permanent, Refused, SealBroken, ServerUnavailable, SpecUsed, Transient, UnknownRun
from dispatcher.runs import transitions
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.states import HELD, UNSTARTED, Cause, State
from dispatcher.support.failpoints import failpoint
from workers.execution.provisioning import Provisioner, as_permanent
from workers.supervisor.backend_requests import BackendRequests
from workers.supervisor.record_writer import RecordWriter

logger = logging.getLogger(__name__)

#: Seconds between two requests to create a missing part again.
RESTORE_INTERVAL = 30.0


class AttemptRequests:
    """Creates and deletes infrastructure of the runs supervised.

    Args:
        provisioner: sends a stored request, and stores the answer.
        backend: deletes.
        requests: made to both.
        writer: of the runs' records.
    """

    def __init__(
        self, provisioner: Provisioner, backend: Backend, requests: BackendRequests, writer: RecordWriter
    ) -> None:
        self._provisioner = provisioner
        self._backend = backend
        self._requests = requests
        self._writer = writer

    def delete(self, record: Record) -> None:
        """Request the deletion of a run's infrastructure. The runner is interrupted, calls ``on_exit`` and reports; or
        the infrastructure is observed to be gone."""
        key = ("deletion", record.id, record.attempt)
        if self._requests.is_due(key):
            self._requests.submit(key, partial(self._delete, record))

    def _delete(self, record: Record) -> bool:
        # a cancelled run's attempt can't be claimed any more, and its reports were read before
        unclaimed = record.state is State.CANCELLING and record.started_at is None
        delete = partial(self._backend.discard, claimed=False) if unclaimed else self._backend.cancel
        confirmed = delete(record.handle, (record.request or {}).get("body"))
        failpoint("watch.cancelled", record.id, lost=Transient)
        return confirmed

    def restore(self, record: Record) -> None:
        """Have a missing part of a run's infrastructure created again, unless its flow has started."""
        key = ("restoration", record.id, record.attempt)
        if record.state in UNSTARTED and self._requests.is_due(key):
            logger.warning("Run %s: a part of its infrastructure is missing, and is created again", record.id)
            restore = partial(self._provisioner.restore, record.id, record.attempt)
            self._requests.submit(key, restore, pause=RESTORE_INTERVAL)

    def create(self, record: Record) -> None:
        """Send the stored request of a run again, since no answer to it is stored. End the run instead if it was
        cancelled."""
        if record.state not in HELD or record.request is None or record.spec.unknown_features:
            return
        key = ("creation", record.id, record.attempt)
        if record.state is State.CANCELLING and not self._requests.is_pending(key):
            outcome = Outcome(cause=Cause.CANCELLED, message="cancelled")
            self._writer.update(record, partial(transitions.finish, epoch=record.epoch, outcome=outcome))
        elif self._requests.is_due(key):
            send = partial(self._provisioner.send, record)
            self._requests.submit(key, send, partial(self._handle_answer, record.id))

    def _handle_answer(self, run_id: str, answer: Any) -> None:
        record = self._writer.cache.get(run_id)
        if record is None:
            return
        if isinstance(answer, SealBroken | SpecUsed):
            step = partial(transitions.refuse, reason=type(answer).__name__, message=str(answer))
            self._writer.update(record, step)
        elif isinstance(answer, Refused | UnknownRun):
            logger.debug("Nothing to do: %s", answer)
            self._writer.cache.drop(run_id)
        elif isinstance(answer, ServerUnavailable):
            logger.warning("Run %s: its creation request will be repeated: %s", run_id, answer)
        else:
            if isinstance(answer, Exception) and not isinstance(answer, Permanent | Transient):
                answer = as_permanent(answer, record, "creation", self._provisioner.owner)
            store = partial(self._provisioner.store, record, answer)
            after = self._writer.write(run_id, record.owner, lambda lease: store(lease=lease))
            if after is not None:
                self._writer.keep(after, record.owner)
