"""The interfaces of what is kept. The contract of each method is written here once; implementations stay silent.

Who calls: the client (create, read, wait), the engine (update, leases, queues, inbox), the runner (blobs, logs).
Every method is synchronous and bounded in time. Every method raises :class:`~dispatcher.errors.ServerUnavailable` when
the server can't be reached or refuses us. No method needs to be retried by its caller after a lost reply: each is safe
to repeat, and repeats itself.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from dispatcher.errors import ClaimStands, Refused, SealBroken, SpecUsed, UnknownRun
from dispatcher.records.events import Events
from dispatcher.records.inbox import Inbox
from dispatcher.records.leases import Lease, Leases
from dispatcher.records.query import Look, Query
from dispatcher.records.rejections import Refusals
from dispatcher.records.users import Users
from dispatcher.records.workers import Workers
from dispatcher.runs import transitions
from dispatcher.runs.change import Change, Ring
from dispatcher.runs.outcome import ExitCall, Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.routing import Route

#: A pure function of :mod:`dispatcher.runs.transitions` with its keywords bound.
Step = Callable[[Record, float], Change | None]

#: The step with which an attempt begins: of a record, the time, ``owner`` and ``holder``.
Begin = Callable[..., Change | None]


#: Records of an index that are read at once.
PORTION = 200


class Bell(Protocol):
    """Rings doorbells; kept by :mod:`dispatcher.broker.doorbell`."""

    def message(self, ring: Ring) -> tuple[str, bytes] | None:
        """Key of the queue's list and the message to push there, if broker and records are one server; else None."""

    def publish(self, rings: Sequence[Ring]) -> None:
        """Publish through the broker, if :meth:`message` gives None. Never raises: a lost ring is rung again."""

    def depth(self, queue: str) -> int:
        """Count the messages that wait in the broker's list of ``queue``."""


class Runs(ABC):
    """The records of runs."""

    #: Checks a run's signature, where this process holds keys: of a record and the time; raises SealBroken.
    check: Callable[[Record, float], None] | None = None

    #: Whether this process has the key that is said to have signed a run. Who hasn't leaves the run to others.
    knows: Callable[[Record], bool] = staticmethod(lambda record: True)

    def vet(self, record: Record, now: float) -> str:
        """Check the signature of a record that isn't verified yet, and mark it; why nothing may be done with the run
        (cancelling and ending it excepted), or nothing."""
        if record.verified:
            return ""
        if self.check is None:
            return "this process has no key to check its signature"
        try:
            self.check(record, now)
        except SealBroken as error:
            return str(error)
        record.mark_verified()
        return ""

    #: Whose a claim beside a record is, empty if not its attempt's; set where there are keys to tell.
    claimant: Callable[[Record, Mapping[str, str]], str] | None = None

    @abstractmethod
    def create(self, records: Sequence[Record], *, timeout: float = 15.0) -> list[Record]:
        """Accept runs, all in few round trips, each atomically by :func:`~dispatcher.runs.transitions.create`.

        Gives up after ``timeout`` seconds. What is stored has version 1 and the server's times.

        For a record whose ``key`` was used before, the earlier run's record is given back if its ``spec_digest`` is
        the same, and nothing is written. ``spec.blobs`` get a reference each, freed at the terminal state.

        Raises:
            IdempotencyConflict: a key was used with another ``spec_digest``; the other records were still accepted.
            LookupError: a blob of ``spec.blobs`` isn't there (args: the digests); no record was written.
        """

    @abstractmethod
    def get(self, run_id: str) -> tuple[Record, float]:
        """The record, and the server's clock in seconds since the epoch.

        Raises:
            UnknownRun: there is none, or its retention is over.
            UnreadableRun: what is stored isn't a record. Other methods treat it as none.
        """

    @abstractmethod
    def version(self, run_id: str) -> int | None:
        """The version of a record, None if there is none: whether one that was read is still as it was."""

    @abstractmethod
    def used(self, run_id: str, day: int) -> str:
        """Return how far the spec of a run was used (:class:`~dispatcher.runs.record.Use`) whose signature expires on
        ``day``, counted since the epoch; empty if nothing was noted."""

    def look(self, run_id: str, like: str) -> Look:
        """A run that is about to be claimed, as read, or as guessed.

        Args:
            run_id: the run.
            like: what its doorbell tells, which is the same for runs that are probably alike. It isn't trusted.

        Raises:
            UnknownRun: as :meth:`get`; of a guess, :meth:`take` says so.
        """
        return Look(*self.get(run_id))

    def take(self, look: Look, begin: Begin, *, owner: str, holder: str) -> Record:
        """Take the step with which an attempt begins; the record that stands then.

        A guess is right if the run was accepted as one of that kind, and no more. What ``begin`` does to runs of a
        kind may be prepared once for each ``owner``.

        Raises:
            WrongGuess: nothing was done: whoever decided by the guess decides again.
            UnknownRun, Refused: as :meth:`update`.
        """
        step = partial(begin, owner=owner, holder=holder)
        return self.update(look.record.id, step, record=look.record, now=look.now)

    def finish(self, record: Record, now: float, *, outcome: Outcome | None, exit_call: ExitCall | None) -> Record:
        """Take :func:`~dispatcher.runs.transitions.finish` of the attempt that stands in a record, as read or changed
        a moment ago, ``now`` by the server's clock; the record that stands then.

        What that means for runs that were taken by a guess, and did well, may be prepared once for each kind.

        Raises:
            UnknownRun, Refused: as :meth:`update`.
        """
        step = partial(transitions.finish, epoch=record.epoch, outcome=outcome, exit_call=exit_call)
        return self.update(record.id, step, record=record, now=now)

    @abstractmethod
    def get_many(self, run_ids: Sequence[str]) -> list[Record | None]:
        """Records in the order asked, None where there is none that can be read; in few round trips."""

    @abstractmethod
    def claim(
        self, run_id: str, *, attempt: int, holder: str, shard: str, entry: Mapping[str, str], void: str = ""
    ) -> tuple[Record, float]:
        """A runner claims its attempt, and writes no record: the record as it stands, and the time of the claim; the
        same again for the same ``holder``. The claim is kept beside the record until the supervisor that reads
        ``entry`` in the inbox of ``shard`` has taken :func:`~dispatcher.runs.transitions.claim_attempt`.

        Raises:
            UnknownRun: there is none, or its retention is over.
            Refused: the attempt is closed; :class:`~dispatcher.errors.ClaimStands`: by a claim other than ``void``.
        """

    @abstractmethod
    def commit(self, change: Change, *, lease: Lease | None = None, void: str = "") -> tuple[Record | None, float]:
        """Apply a change, its events, indexes and doorbell, if the stored version is still ``change.before.version``.

        ``change.after`` is stored with ``before.version + 1``. Returns what is stored now (the change applied, or
        whatever came first; None if nothing is stored), and the server's clock. The caller compares ``record.change``
        with its own to know which. ``void`` is a claim, as ``ClaimStands`` gave it, that isn't the attempt's own.

        Raises:
            LeasePassed: ``lease`` was given, and is no longer as given; nothing was written.
            ClaimStands: the change would end an attempt as never started that its runner has claimed.
            SpecUsed: ``change.use`` doesn't accept how far the run's spec was used; nothing was written.
        """

    @abstractmethod
    def find(self, query: Query, *, limit: int | None = 100) -> Iterator[Record]:
        """Runs that match, newest first, read page by page."""

    @abstractmethod
    def members(self, index: str, *, until: float | None = None, limit: int = 1000) -> list[tuple[str, float]]:
        """Run ids of an index (:mod:`dispatcher.runs.indexes`) with their scores, lowest first, up to ``until``."""

    @abstractmethod
    def leave(self, index: str, run_ids: Collection[str], *, unreadable: bool = False) -> None:
        """Take runs from an index in which they have no place.

        Args:
            index: its name.
            run_ids: the runs.
            unreadable: they have no record that can be read. What is stored of them goes a week later
                (:data:`~dispatcher.records.effects.UNREADABLE`): nothing else would ever remove it.
        """

    def under(self, index: str, *, until: float | None = None, limit: int = 100_000) -> Iterator[Record]:
        """The records of an index, lowest score first, up to ``until``; each is read a moment before it is given. What
        has no record that can be read is taken from the index."""
        ids = [run_id for run_id, _ in self.members(index, until=until, limit=limit)]
        for start in range(0, len(ids), PORTION):
            portion = ids[start : start + PORTION]
            records = self.get_many(portion)
            if gone := [run_id for run_id, record in zip(portion, records, strict=True) if record is None]:
                self.leave(index, gone, unreadable=True)
            yield from (record for record in records if record is not None)

    @abstractmethod
    def count(self, index: str) -> int:
        """Count the runs of an index."""

    @abstractmethod
    def now(self) -> float:
        """The server's clock, in seconds since the epoch."""

    @abstractmethod
    def purge(self, *, limit: int = 1000) -> int:
        """Remove runs whose retention is over, with all that is kept of them; how many were removed."""

    def update(
        self,
        run_id: str,
        step: Step,
        *,
        record: Record | None = None,
        now: float = 0.0,
        lease: Lease | None = None,
    ) -> Record:
        """Read, step, commit, again where another change came first; the record that stands then.

        The step sees whether the record is verified (:meth:`vet`). A step that would use a spec again ends the run.

        Args:
            run_id: the run.
            step: the transition, with its keywords bound.
            record: the record as read a moment ago at ``now``, to save a round trip.
            now: the server's clock at that moment.
            lease: of the shard on whose behalf the caller acts: passed on, the step is refused.

        Raises:
            UnknownRun: there is no such run.
            Refused: the transition was refused, or the run is in a state of another release.
        """
        if record is None:
            record, now = self.get(run_id)
        void = ""
        for _ in range(100):
            if record.foreign:
                raise Refused(f"run {run_id} is in a state that another release knows: it is left as it is")
            self.vet(record, now)
            change = step(record, now)
            if change is None:
                return record
            nonce = secrets.token_hex(8)
            try:
                stored, now = self.commit(change.marked(nonce), lease=lease, void=void)
            except ClaimStands as stands:
                record, now, void = self._heed(stands, record, lease)
                continue
            except SpecUsed as error:
                step = partial(transitions.refuse, reason="SpecUsed", message=str(error))
                continue
            if stored is None:
                raise UnknownRun(f"run {run_id}: its retention is over")
            stored.mark_verified_like(record)
            if stored.change == nonce:
                return stored
            record = stored
        raise Refused(f"run {run_id} changes faster than it can be changed")

    def _heed(self, stands: ClaimStands, record: Record, lease: Lease | None) -> tuple[Record, float, str]:
        """Have the record tell of a claim, before anything else; or, if it is nobody's, what to pass over."""
        if self.claimant is None:
            raise stands
        if not (holder := self.claimant(record, stands.entry)):
            return record, stands.now, stands.raw
        step = partial(transitions.claim_attempt, attempt=record.attempt, holder=holder, at=stands.at)
        return self.update(record.id, step, record=record, now=stands.now, lease=lease), stands.now, ""


class Blobs(ABC):
    """Bytes by name: shared ones by content (SHA-256 in hex), counted; and those of one run, which go with it."""

    @abstractmethod
    def share(self, data: bytes, digest: str = "") -> str:
        """Keep ``data`` and give its digest; kept for an hour at least, then as long as a run refers to it.

        Args:
            data: the bytes.
            digest: theirs, where the caller has it already: to find it takes as long as to send them.
        """

    @abstractmethod
    def own(self, run_id: str, name: str, data: bytes) -> str:
        """Keep ``data`` with a run; the blob's name. Kept for a day at least, and to the end of retention if the
        run's outcome names it."""

    @abstractmethod
    def get(self, name: str) -> bytes:
        """The bytes.

        Raises:
            KeyError: there is no such blob.
        """

    @abstractmethod
    def has(self, name: str) -> bool:
        """Return True if there is such a blob."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line that a flow printed or logged. ``number`` counts from 1 within an attempt.

    ``stream`` is ``stdout``, ``stderr``, ``log``, or ``gap`` (then ``text`` says how many lines are missing, and
    ``number`` is the last missing one's).
    """

    attempt: int
    number: int
    time: float
    stream: str
    text: str
    level: str = ""


class Logs(ABC):
    """The lines of runs, in order."""

    @abstractmethod
    def append(self, run_id: str, lines: Sequence[Line]) -> None:
        """Add lines of one attempt; a line whose number isn't higher than the last of its attempt is dropped."""

    @abstractmethod
    def read(self, run_id: str, *, after: str = "", limit: int = 1000, block: float = 0.0) -> tuple[list[Line], str]:
        """Lines behind cursor ``after``, and the new cursor; waits up to ``block`` seconds for the first."""


class Queues(ABC):
    """The registry of queues; :meth:`Runs.create` and :meth:`Runs.commit` note each use."""

    @abstractmethod
    def known(self) -> dict[str, tuple[Route, float]]:
        """Queue name → its route and when it was last used, by the server's clock."""

    @abstractmethod
    def passed(self) -> dict[str, float]:
        """Queue name → the latest ``rung_at`` of a run claimed from it."""

    @abstractmethod
    def retire(self, *, unused_for: float) -> list[str]:
        """Drop queues unused for so many seconds in which no run waits; their names."""


@dataclass(frozen=True, kw_only=True)
class Records:
    """All that is kept, together. ``instance`` is the installation's id, created once."""

    instance: str
    runs: Runs
    blobs: Blobs
    logs: Logs
    events: Events
    workers: Workers
    leases: Leases
    queues: Queues
    inbox: Inbox
    refusals: Refusals
    users: Users
    close: Callable[[], None]
