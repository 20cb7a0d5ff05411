"""From a waiting run to stored infrastructure, for backends whose runs start elsewhere: no slot is held meanwhile.

Intent before action: the exact request is stored with the claim, then sent; whoever answers for the run later sends
the same request again, which creates or adopts. Called by the execute task and by the supervisor.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from backends.base import Backend, Handle
from dispatcher.errors import Permanent, Refused, SpecUsed, Transient
from dispatcher.records.base import Records, Step
from dispatcher.records.effects import spec_used
from dispatcher.records.leases import Lease
from dispatcher.records.query import Look
from dispatcher.runner.settings import RunnerSettings
from dispatcher.runs import infrastructure, transitions
from dispatcher.runs.attempt import Attempt
from dispatcher.runs.change import Change
from dispatcher.runs.record import Outcome, Record
from dispatcher.runs.requirements import refuse_lacking
from dispatcher.runs.states import Cause, State
from dispatcher.serialization import KeyRing
from dispatcher.serialization.seals import Stored
from dispatcher.serialization.signing_keys import spec_digest
from dispatcher.settings import Settings
from dispatcher.support.failpoints import failpoint
from workers.refusal import refusal
from workers.users import AttemptUsers

#: Seconds after its request was stored within which others can't have sent it, seen its end and torn it down.
_AT_ONCE = 0.05


@dataclass(frozen=True, kw_only=True)
class Written:
    """That we wrote a whole record ourselves: it needn't be read again. ``since`` is a monotonic time before that,
    ``offset`` the server's clock from our monotonic one."""

    since: float
    offset: float

    @classmethod
    def after(cls, look: Look) -> Written:
        """As of a look a moment ago."""
        since = time.monotonic()
        return cls(since=since, offset=look.now - since)

    @property
    def now(self) -> float:
        """The server's clock."""
        return self.offset + time.monotonic()

    @property
    def recent(self) -> bool:
        """Return True if that is so short a time ago that it still stands."""
        return time.monotonic() - self.since < _AT_ONCE


@dataclass(frozen=True, kw_only=True)
class Provisioner:
    """The provisioning of runs. It needs the records, the key ring, the settings, the backends by name and who we
    are."""

    records: Records
    keys: KeyRing
    settings: Settings
    backend: Callable[[str], Backend]
    owner: str

    @property
    def users(self) -> AttemptUsers | None:
        """Makes users of attempts, where they are to have some."""
        if not self.settings.worker.runner_users:
            return None
        return AttemptUsers(records=self.records, keys=self.keys)

    def provision(self, run_id: str, look: Look | None = None) -> Record:
        """Claim a waiting run and create its infrastructure.

        Args:
            run_id: the run.
            look: the run as read a moment ago, to save a round trip; no guess, for its request is made of the run's own
                words.

        Raises:
            UnknownRun: there is no such run.
            Refused: it doesn't wait, or requires what this release doesn't know.
        """
        look = look or Look(*self.records.runs.get(run_id))
        refuse_lacking(look.record)
        written = Written.after(look)
        record = self.records.runs.update(run_id, self._claimed, record=look.record, now=look.now)
        if record.state is not State.PROVISIONING:  # no request can be made of it
            return record
        failpoint("provision.intended", run_id)
        return self.create(record, written)

    def _claimed(self, record: Record, now: float) -> Change:
        """The step that claims a run and stores its request; one that can't be made ends the attempt. A record that was
        changed since it was looked at is no longer the one that was verified."""
        claim = transitions.claim(record, now, owner=self.owner)
        if refused := refusal(self.records, record, now):
            return refused
        record = claim.after
        try:
            request = self._request(record)
        except Permanent as error:
            return claim.then(self._ended(record, error)(record, now))
        failpoint("provision.prepared", record.id)
        return claim.then(transitions.intend(record, now, epoch=record.epoch, request=request))

    def create(self, record: Record, written: Written | None = None) -> Record:
        """Send the stored request and store what came of it."""
        answer: Handle | Permanent | Transient
        try:
            try:
                answer = self.send(record, written)
            except (Permanent, Transient) as error:
                answer = error
            return self.store(record, answer, written=written)
        except Refused:  # cancelled or taken over meanwhile: the request is stored, so it is found and torn down
            return self.records.runs.get(record.id)[0]

    def send(self, record: Record, written: Written | None = None) -> Handle:
        """Send the stored request: create or adopt.

        Who was stopped since the request was stored sends nothing: meanwhile another may have sent it, seen it end
        and torn it down, and the service would create it anew.

        Raises:
            Permanent, Transient: as :meth:`~backends.base.Backend.submit`.
            Refused: the attempt has ended.
            UnknownRun: its record is gone.
            SealBroken, SpecUsed: the request isn't one of this attempt, or the attempt is over.
        """
        unchanged = written is not None and written.recent
        if not unchanged and self.records.runs.version(record.id) != record.version:
            now, _ = self.records.runs.get(record.id)
            if not infrastructure.is_open(now, record.attempt):
                raise Refused(f"attempt {record.attempt} of run {record.id} is closed: nothing is created for it")
        refuse_lacking(record)
        request = record.request or {}
        if not unchanged:
            self._check_stored(record, request)
        secrets = self._secrets(record)
        if self.users is not None:
            secrets |= self.users.make(record)
        handle = self.backend(record.spec.route.backend).submit(request["body"], secrets)
        failpoint("provision.submitted", record.id, lost=Transient)
        return handle

    def _check_stored(self, record: Record, request: Mapping[str, Any]) -> None:
        """Check a request that others may have put into the record, before it is sent.

        Raises:
            SealBroken: no worker stored it for this attempt.
            SpecUsed: the attempt is over; somebody put an old record back.
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
        written: Written | None = None,
    ) -> Record:
        """Store the handle, or what the answer means else.

        Args:
            record: as the request was sent.
            answer: a handle, or how sending it failed.
            lease: of the shard on whose behalf this is done.
            written: that ``record`` is as we wrote it.

        Raises:
            Refused: the run isn't ours any more, or has been cancelled.
        """
        request = record.request or {}
        step: Step
        if isinstance(answer, Permanent):
            step = self._ended(record, answer)
        elif isinstance(answer, Exception):
            cause = answer.cause if isinstance(answer, Transient) else None
            if cause is not None and cause is not record.last_cause:
                self._note(record.id, cause, str(answer), lease)
            step = partial(transitions.adopt, owner=request["shard"])  # its supervisor sends the request again
        else:
            placed = {**answer, "shard": request["shard"]}
            handle = self.keys.engine.sealed(record.id, record.attempt, Stored.HANDLE, placed)
            step = partial(transitions.created, epoch=record.epoch, handle=handle, owner=request["shard"])
        known, now = (None, 0.0) if written is None else (record, written.now)
        record = self.records.runs.update(record.id, step, record=known, now=now, lease=lease)
        failpoint("provision.stored", record.id)
        return record

    def _note(self, run_id: str, cause: Cause, message: str, lease: Lease | None) -> None:
        """Note what it waits for: the cause with which ``start_within`` ends it."""
        with contextlib.suppress(Refused):
            step = partial(infrastructure.sight, seen=True, cause=cause, message=message)
            self.records.runs.update(run_id, step, lease=lease)

    def _ended(self, record: Record, error: Permanent) -> Step:
        outcome = Outcome(cause=error.cause, reason=error.reason, message=str(error))
        return partial(transitions.finish, epoch=record.epoch, outcome=outcome)

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

    def _secrets(self, record: Record) -> dict[str, str]:
        """Return the secrets of the runner, which nobody may see: derived, so that the next owner sends the same."""
        request = record.request or {}
        key_id = record.spec.key_id
        return {
            "DISPATCHER__URL": self.settings.url or "",
            "DISPATCHER__RUN__SPEC": spec_digest(record),
            "DISPATCHER__RUN__SEAL": self.keys.attempt_seal(record.id, record.attempt, key_id).key.hex(),
            "DISPATCHER__RUN__TOKEN": self.keys.token(record.id, record.attempt, request["epoch"], key_id),
        }
