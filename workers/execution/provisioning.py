"""Provisioning of runs that start elsewhere: from a waiting run to stored infrastructure, without holding a slot.

Intent before action: the exact request is stored with the claim, and sent after that. Whoever owns the run later may
send the same request again, which creates or adopts. Called by the execute task and by the supervisor.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from backends.base import Backend, Handle, Request, Restoring, Scaled
from dispatcher.errors import DispatcherError, Permanent, Refused, ServerUnavailable, SpecUsed, Transient
from dispatcher.records.base import Records
from dispatcher.records.effects import spec_used
from dispatcher.records.leases import Lease
from dispatcher.records.runs import Transition
from dispatcher.records.snapshot import Snapshot
from dispatcher.runner.settings import RunnerSettings
from dispatcher.runs import infrastructure, transitions
from dispatcher.runs.attempt import Attempt
from dispatcher.runs.change import Change
from dispatcher.runs.cluster_state import ClusterState
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.requirements import check_features
from dispatcher.runs.states import UNSTARTED, Cause, State
from dispatcher.runs.wait import Wait
from dispatcher.serialization import KeyRing
from dispatcher.serialization.seals import Stored
from dispatcher.serialization.signing_keys import spec_digest
from dispatcher.settings import Settings
from dispatcher.support.failpoints import failpoint
from dispatcher.support.short_repr import short_repr
from dispatcher.support.tracebacks import described, message_of
from workers.attempt_users import AttemptUsers
from workers.execution.set_up import set_up
from workers.refusal import refusal
from workers.updates import try_update

logger = logging.getLogger(__name__)

#: Seconds after a request was stored within which no other worker can have sent it, seen its end and torn it down.
RECENT = 0.05


@dataclass(frozen=True, kw_only=True)
class RecentWrite:
    """A write of a whole record by this process, so that the record needn't be read again.

    ``since`` is a monotonic time before it, ``offset`` the difference of the server's clock from the monotonic one.
    """

    since: float
    offset: float

    @classmethod
    def after(cls, snapshot: Snapshot) -> RecentWrite:
        """Return the write that follows a reading of a moment ago."""
        since = time.monotonic()
        return cls(since=since, offset=snapshot.now - since)

    @property
    def now(self) -> float:
        """The server's clock."""
        return self.offset + time.monotonic()

    @property
    def recent(self) -> bool:
        """Return True if it was so short a time ago that it still stands."""
        return time.monotonic() - self.since < RECENT


@dataclass(frozen=True, kw_only=True)
class Provisioner:
    """Provisions runs.

    Args:
        records: of the runs.
        keys: the installation's.
        settings: the worker's.
        backend: gives a backend by its name.
        owner: the worker's id.
    """

    records: Records
    keys: KeyRing
    settings: Settings
    backend: Callable[[str], Backend]
    owner: str

    @property
    def users(self) -> AttemptUsers | None:
        """Users of attempts; None if the settings ask for none."""
        if not self.settings.worker.runner_users:
            return None
        return AttemptUsers(records=self.records, keys=self.keys)

    def provision(self, run_id: str, snapshot: Snapshot | None = None) -> Record:
        """Claim a waiting run and create its infrastructure. Return the record after that.

        Args:
            run_id: the run.
            snapshot: the run as read a moment ago, to save a round trip; never a prediction.

        Raises:
            UnknownRun: there is no such run.
            Refused: it doesn't wait, or requires what this release doesn't know.
        """
        snapshot = snapshot or Snapshot(*self.records.runs.get(run_id))
        check_features(snapshot.record)
        self._identify(snapshot.record)
        write = RecentWrite.after(snapshot)
        record = self.records.runs.update(run_id, self._claim, record=snapshot.record, now=snapshot.now)
        if record.state is not State.PROVISIONING:  # no request can be made of it
            return record
        failpoint("provision.intended", run_id)
        return self.create(record, write)

    def _identify(self, record: Record) -> None:
        """Have the backend read the identity of its place, for the request to carry."""
        try:
            self.backend(record.spec.route.backend).identify()
        except Exception as error:  # a defect, or a setting; what ends the attempt is raised again by the request
            logger.info("Run %s: its request carries no identity: %s: %s", record.id, type(error).__name__, error)

    def _claim(self, record: Record, now: float) -> Change:
        """Take the step that claims a run and stores its request, or ends the attempt if none can be made.

        The signature is checked here, since the record may have changed since it was read.
        """
        claim = transitions.claim(record, now, owner=self.owner)
        if refused := refusal(self.records, record, now):
            return refused
        record = claim.after
        try:
            request = self._request(record)
            workers = self._workers(record, request["body"])
        except Exception as error:
            permanent = as_permanent(error, record, "prepare", self.owner)
            return claim.then(self._end(record, permanent)(record, now))
        failpoint("provision.prepared", record.id)
        return claim.then(transitions.intend(record, now, epoch=record.epoch, request=request, workers=workers))

    def create(self, record: Record, write: RecentWrite | None = None) -> Record:
        """Send the stored request and store the answer. Return the record after that."""
        answer: Handle | Permanent | Transient
        try:
            try:
                answer = self.send(record, write)
            except (Permanent, Transient) as error:
                answer = error
            return self.store(record, answer, write=write)
        except Refused:  # cancelled or taken over meanwhile: the stored request leads to the teardown
            return self.records.runs.get(record.id)[0]

    def send(self, record: Record, write: RecentWrite | None = None) -> Handle:
        """Send the stored request, which creates the infrastructure or adopts it, after what it shares with others.

        Unless the request was stored a moment ago, check first that the attempt is open. While this process was
        suspended, another worker may have sent the request, seen the end and torn the infrastructure down; the
        service would create it anew.

        Raises:
            Permanent, Transient: as :meth:`~backends.base.Backend.submit`. Any other error of the backend is Permanent.
            ServerUnavailable: the records can't be reached.
            Refused: the attempt has ended.
            UnknownRun: its record is gone.
            SealBroken, SpecUsed: the request isn't one of this attempt, or the attempt is over.
        """
        unchanged = write is not None and write.recent
        if not unchanged and self.records.runs.version(record.id) != record.version:
            current, _ = self.records.runs.get(record.id)
            if not infrastructure.is_open(current, record.attempt):
                raise Refused(f"attempt {record.attempt} of run {record.id} is closed: nothing is created for it")
        check_features(record)
        request = record.request or {}
        if not unchanged:
            self._check_stored(record, request)
        variables = self._variables(record)
        with self._permanent_errors(record, "set_up"):
            backend = self.backend(record.spec.route.backend)
            set_up(self.records, backend, request["body"], worker=self.owner)
        with self._permanent_errors(record, "submit"):
            handle = _checked(backend.submit(request["body"], variables))
        failpoint("provision.submitted", record.id, lost=Transient)
        return handle

    @contextmanager
    def _permanent_errors(self, record: Record, call: str) -> Iterator[None]:
        """Raise an error of the backend's method ``call`` as Permanent, unless another try may succeed."""
        try:
            yield
        except (Transient, ServerUnavailable):
            raise
        except Exception as error:
            raise as_permanent(error, record, call, self.owner) from error

    def restore(self, run_id: str, attempt: int) -> None:
        """Have what is missing of the infrastructure of an attempt that hasn't started created again.

        Raises:
            Refused: the attempt has started or ended, or nothing may be done with the run.
            UnknownRun: its record is gone.
            Permanent, Transient: as :meth:`~backends.base.Restoring.restore`.
            SealBroken: no worker stored the handle for this attempt.
        """
        record, now = self.records.runs.get(run_id)
        backend, handle = self.backend(record.spec.route.backend), record.handle
        if not infrastructure.is_open(record, attempt) or record.state not in UNSTARTED or handle is None:
            raise Refused(f"attempt {attempt} of run {run_id} has started or ended: nothing is created for it")
        if problem := self.records.runs.vet(record, now):
            raise Refused(problem)
        self.keys.engine.check(record.id, attempt, Stored.HANDLE, handle)
        if isinstance(backend, Restoring):
            backend.restore(handle, self._variables(record))

    def _check_stored(self, record: Record, request: Mapping[str, Any]) -> None:
        """Check that a worker stored the request for this attempt, before it is sent.

        Raises:
            SealBroken: no worker stored it for this attempt.
            SpecUsed: the attempt is over; an old record was put back.
        """
        self.keys.engine.check(record.id, record.attempt, Stored.REQUEST, request)
        used = self.records.runs.used(record.id, record.spec.day)
        if used != str(record.attempt):
            raise SpecUsed(spec_used(record.id, used))

    def store(
        self,
        record: Record,
        answer: Handle | Exception,
        *,
        lease: Lease | None = None,
        write: RecentWrite | None = None,
    ) -> Record:
        """Store the handle, or the consequence of an error. Return the record after that.

        Args:
            record: as it was when the request was sent.
            answer: a handle, or the error of sending the request.
            lease: of the shard on whose behalf this is done.
            write: the write by this process that left ``record`` as it is.

        Raises:
            Refused: the run has another owner, or has been cancelled.
        """
        request = record.request or {}
        step: Transition
        if isinstance(answer, Permanent):
            # unless the claim's own write was the last, another worker may have sent the request before
            step = self._end(record, answer, created=write is None or not answer.nothing_created)
        elif isinstance(answer, Exception):
            if isinstance(answer, Transient) and (answer.cause is not None or lease is not None):  # else a first try
                self._note_wait(record, answer, lease)
            step = partial(transitions.adopt, owner=request["shard"])  # its supervisor will send the request again
        else:
            placed = {**answer, "shard": request["shard"]}
            handle = self.keys.engine.sealed(record.id, record.attempt, Stored.HANDLE, placed)
            step = partial(transitions.created, epoch=record.epoch, handle=handle, owner=request["shard"])
        current, now = (None, 0.0) if write is None else (record, write.now)
        record = self.records.runs.update(record.id, step, record=current, now=now, lease=lease)
        failpoint("provision.stored", record.id)
        return record

    def _note_wait(self, record: Record, error: Transient, lease: Lease | None) -> None:
        """Note what a run waits for; with a cause, it is the one with which ``start_within`` would end the run."""
        wait = Wait.of(error.cause, "", str(error))
        step = partial(infrastructure.note, wait=wait, visible=True, cause=error.cause, message=str(error))
        if step(record, time.time()) is not None:
            try_update(self.records.runs.update, record.id, step, lease=lease)

    def _end(self, record: Record, error: Permanent, *, created: bool = True) -> Transition:
        outcome = Outcome(cause=error.cause, reason=error.reason, message=str(error))
        return partial(transitions.finish, epoch=record.epoch, outcome=outcome, created=created)

    def _request(self, record: Record) -> Mapping[str, Any]:
        backend = self.backend(record.spec.route.backend)
        attempt = Attempt.of(
            record.spec,
            record.attempt,
            instance=self.records.instance,
            place=backend.place,
            variables=RunnerSettings.of(self.settings).variables(),
        )
        body = backend.prepare(attempt)
        request = {"shard": attempt.shard, "epoch": record.epoch, "body": body}
        return self.keys.engine.sealed(record.id, record.attempt, Stored.REQUEST, request)

    def _workers(self, record: Record, body: Request) -> ClusterState | None:
        """Return the state in which the attempt's own cluster begins; None if it has none."""
        backend = self.backend(record.spec.route.backend)
        if not isinstance(backend, Scaled) or backend.max_workers(body) <= 0:
            return None
        first = len(backend.first_workers(body))
        return ClusterState(least=first, wanted=first, ready=first == 0)

    def _variables(self, record: Record) -> dict[str, str]:
        """Return the runner's secrets, with those of the attempt's own user, which is created if it is missing."""
        return self._secrets(record) | (self.users.make(record) if self.users is not None else {})

    def _secrets(self, record: Record) -> dict[str, str]:
        """Return the runner's secrets. They are derived, so that the next owner sends the same."""
        request = record.request or {}
        key_id = record.spec.key_id
        return {
            "DISPATCHER__URL": self.settings.url or "",
            "DISPATCHER__RUN__SPEC": spec_digest(record),
            "DISPATCHER__RUN__SEAL": self.keys.attempt_seal(record.id, record.attempt, key_id).key.hex(),
            "DISPATCHER__RUN__TOKEN": self.keys.token(record.id, record.attempt, request["epoch"], key_id),
        }


def as_permanent(error: Exception, record: Record, call: str, owner: str) -> Permanent:
    """Return an error of a backend's method ``call`` as the end of the attempt.

    The next try would fail in the same way, so it ends the attempt once. An error of the project's own says what is
    missing here; any other is a defect, whose traceback is in the log of worker ``owner`` under a reference.
    """
    if isinstance(error, Permanent):
        return error
    if isinstance(error, Transient):  # of a method that may not ask for another try
        return Permanent(described(error), cause=error.cause or Cause.CONFIG_ERROR)
    name, kind = record.spec.route.backend, type(error).__name__
    text = f"{call} of backend {name} raised {kind}: {message_of(error)}"
    if isinstance(error, DispatcherError):
        logger.error("Run %s: %s; the attempt ends", record.id, text)
        return Permanent(text, cause=Cause.CONFIG_ERROR, reason=kind)
    reference = secrets.token_hex(4)
    logger.error("Run %s: internal error %s: %s; the attempt ends", record.id, reference, text, exc_info=error)
    where = f"its traceback is in the log of worker {owner}, reference {reference}"
    return Permanent(f"internal error: {text}; {where}", cause=Cause.START_FAILED, reason=kind)


def _checked(handle: Any) -> Handle:
    """Return what a backend's ``submit`` returned.

    Raises:
        TypeError: it isn't a JSON object, so it couldn't be stored.
    """
    if isinstance(handle, Mapping) and all(isinstance(name, str) for name in handle):
        try:
            json.dumps(dict(handle))
            return handle
        except (TypeError, ValueError):
            pass
    raise TypeError(f"a handle is a JSON object, got {short_repr(handle, 200)}")
