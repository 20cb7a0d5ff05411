"""The records of runs: the interface through which every change of a run goes.

The client creates and reads records here; workers and runners change them by the transitions of
:mod:`dispatcher.runs.transitions`. The rules common to all interfaces stand in :mod:`dispatcher.records.base`.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial

from dispatcher.errors import ClaimStands, Refused, SealBroken, SpecUsed, UnknownRun
from dispatcher.records.leases import Lease
from dispatcher.records.query import Query
from dispatcher.records.snapshot import Snapshot
from dispatcher.runs import transitions
from dispatcher.runs.change import Change
from dispatcher.runs.outcome import ExitCall, Outcome
from dispatcher.runs.record import Record

#: A pure function of :mod:`dispatcher.runs.transitions` with its keywords bound.
Transition = Callable[[Record, float], Change | None]

#: The transition with which a worker claims a run. Arguments: the record, the time, ``owner`` and ``holder``.
ClaimTransition = Callable[..., Change | None]

#: Records of an index that are read at once. A forged one may have many megabytes.
PORTION = 10

#: Tries of a change before a run counts as changing too fast.
_MOST_TRIES = 100


class Runs(ABC):
    """The records of runs."""

    #: Checks a run's signature, where this process holds keys. Takes the record and the time; raises SealBroken.
    check: Callable[[Record, float], None] | None = None

    #: Returns True if this process has the key that signed a run. Without it, a worker leaves the run to others.
    knows: Callable[[Record], bool] = staticmethod(lambda record: True)

    #: Returns the holder that a claim names if the claim is genuine, else ''. Set where there are keys to tell.
    claimant: Callable[[Record, Mapping[str, str]], str] | None = None

    def vet(self, record: Record, now: float) -> str:
        """Check the signature of a record that isn't verified yet, and mark the record as verified.

        Returns the reason why nothing may be done with the run except cancel and end it; empty if it is genuine.
        """
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

    @abstractmethod
    def create(self, records: Sequence[Record], *, timeout: float = 15.0) -> list[Record]:
        """Accept runs, all in few round trips, each atomically by :func:`~dispatcher.runs.transitions.create`.

        Gives up after ``timeout`` seconds. Stored records have version 1 and the server's times.

        For a record whose ``key`` was used before, the earlier run's record is returned if its ``spec_digest`` is
        the same, and nothing is written. ``spec.blobs`` get a reference each, freed at the terminal state.

        Raises:
            IdempotencyConflict: a key was used with another ``spec_digest``; the other records were still accepted.
            LookupError: a blob of ``spec.blobs`` isn't there (args: the digests); no record was written.
        """

    @abstractmethod
    def get(self, run_id: str) -> tuple[Record, float]:
        """Return the record, and the server's clock in seconds since the epoch.

        Raises:
            UnknownRun: there is none, or its retention is over.
            UnreadableRun: the stored fields aren't a record. Other methods treat it as missing.
        """

    @abstractmethod
    def version(self, run_id: str) -> int | None:
        """Return the version of a record, None if there is none. Shows whether a record read earlier is up to date."""

    @abstractmethod
    def used(self, run_id: str, day: int) -> str:
        """Return how far a run's spec was used (:class:`~dispatcher.runs.use.Use`); empty if nothing was noted.

        Args:
            run_id: the run.
            day: on which the signature of its spec expires, counted since the epoch.
        """

    def snapshot(self, run_id: str, hint: str) -> Snapshot:
        """Return a run that is about to be claimed, as read or as predicted.

        Args:
            run_id: the run.
            hint: the contents of its doorbell, equal for runs that are probably alike. It isn't trusted.

        Raises:
            UnknownRun: as :meth:`get`; for a prediction, :meth:`claim` raises it.
        """
        return Snapshot(*self.get(run_id))

    def claim(self, snapshot: Snapshot, transition: ClaimTransition, *, owner: str, holder: str) -> Record:
        """Claim a run for a worker; return its record after that.

        A prediction is right if the run was accepted as one of that kind, and hasn't changed since. The effect of
        ``transition`` on runs of a kind may be prepared once for each ``owner``.

        Raises:
            WrongPrediction: the prediction was wrong and nothing was done; the caller decides again.
            UnknownRun, Refused: as :meth:`update`.
        """
        bound = partial(transition, owner=owner, holder=holder)
        return self.update(snapshot.record.id, bound, record=snapshot.record, now=snapshot.now)

    def finish(self, record: Record, now: float, *, outcome: Outcome | None, exit_call: ExitCall | None) -> Record:
        """Apply :func:`~dispatcher.runs.transitions.finish` to the current attempt; return the record after that.

        The effect on runs that were claimed by a prediction, and succeeded, may be prepared once for each kind.

        Args:
            record: the run, as read or changed a moment ago.
            now: the server's clock.
            outcome: how the attempt ended.
            exit_call: how its ``on_exit`` ended.

        Raises:
            UnknownRun, Refused: as :meth:`update`.
        """
        transition = partial(transitions.finish, epoch=record.epoch, outcome=outcome, exit_call=exit_call)
        return self.update(record.id, transition, record=record, now=now)

    @abstractmethod
    def get_many(self, run_ids: Sequence[str]) -> list[Record | None]:
        """Return records in the order of ``run_ids``, None for those missing or unreadable; in few round trips."""

    @abstractmethod
    def claim_attempt(
        self, run_id: str, *, attempt: int, holder: str, shard: str, entry: Mapping[str, str], void: str = ""
    ) -> tuple[Record, float]:
        """Claim an attempt for its runner, without writing the record; return the record, and the time of the claim.

        Returns the same again for the same ``holder``. The claim is kept beside the record until the supervisor that
        reads ``entry`` in the inbox of ``shard`` has applied :func:`~dispatcher.runs.transitions.claim_attempt`.

        Raises:
            UnknownRun: there is none, or its retention is over.
            ClaimStands: another claim than ``void`` stands; a :class:`Refused`.
            Refused: the attempt is closed.
        """

    @abstractmethod
    def commit(self, change: Change, *, lease: Lease | None = None, void: str = "") -> tuple[Record | None, float]:
        """Apply a change, its events, indexes and doorbell, if the stored version is still ``change.before.version``.

        ``change.after`` is stored with ``before.version + 1``. Returns the record stored now (the change applied, or
        the one that came first; None if nothing is stored), and the server's clock. The caller compares
        ``record.change`` with its own to know which. ``void`` is a claim, as ``ClaimStands`` gave it, that isn't
        genuine.

        Raises:
            LeasePassed: ``lease`` was given, and is no longer held; nothing was written.
            ClaimStands: the change would end an attempt as never started that its runner has claimed.
            SpecUsed: ``change.use`` doesn't accept how far the run's spec was used; nothing was written.
        """

    @abstractmethod
    def find(self, query: Query, *, limit: int | None = 100) -> Iterator[Record]:
        """Yield runs that match, newest first, read page by page."""

    @abstractmethod
    def members(
        self, index: str, *, until: float | None = None, limit: int = 1000, skip: int = 0, highest_first: bool = False
    ) -> list[tuple[str, float]]:
        """Return run ids of an index (:mod:`dispatcher.runs.indexes`) with scores up to ``until``, lowest first.

        ``skip`` is the number of ids before the first that is returned.
        """

    @abstractmethod
    def leave(self, index: str, runs: Collection[str] | Mapping[str, int], *, unreadable: bool = False) -> int:
        """Remove runs from an index in which they have no place. Return how many were removed.

        Args:
            index: its name.
            runs: their ids. If versions are given with them, a run whose record has another version by now stays: it
                may have a place there.
            unreadable: they have no readable record. Their keys expire after a week
                (:data:`~dispatcher.records.effects.UNREADABLE`), since nothing else would ever remove them.
        """

    def under(self, index: str, *, until: float | None = None, limit: int = 100_000, skip: int = 0) -> Iterator[Record]:
        """Yield the records of an index with scores up to ``until``, lowest first, each read a moment before.

        Runs without a readable record are removed from the index.
        """
        ids = [run_id for run_id, _ in self.members(index, until=until, limit=limit, skip=skip)]
        for start in range(0, len(ids), PORTION):
            portion = ids[start : start + PORTION]
            records = self.get_many(portion)
            if gone := [run_id for run_id, record in zip(portion, records, strict=True) if record is None]:
                self.leave(index, gone, unreadable=True)
            yield from (record for record in records if record is not None)
            del records  # before the next are read

    @abstractmethod
    def count(self, index: str) -> int:
        """Count the runs of an index."""

    @abstractmethod
    def now(self) -> float:
        """Return the server's clock, in seconds since the epoch."""

    @abstractmethod
    def purge(self, *, limit: int = 1000) -> int:
        """Remove runs whose retention is over, with all their keys; return how many were removed."""

    def update(
        self,
        run_id: str,
        transition: Transition,
        *,
        record: Record | None = None,
        now: float = 0.0,
        lease: Lease | None = None,
    ) -> Record:
        """Read, apply a transition, commit; again where another change came first. Return the record after that.

        The transition sees whether the record is verified (:meth:`vet`). If it would use a spec again, the run is
        ended instead.

        Args:
            run_id: the run.
            transition: the transition, with its keywords bound.
            record: the record as read a moment ago at ``now``, to save a round trip.
            now: the server's clock at that moment.
            lease: of the shard for which the caller acts; if another worker holds it now, the change is refused.

        Raises:
            UnknownRun: there is no such run.
            Refused: the transition was refused, or the run is in a state of another release.
        """
        if record is None:
            record, now = self.get(run_id)
        void = ""
        for _ in range(_MOST_TRIES):
            if record.foreign:
                raise Refused(f"run {run_id} is in a state of another release; it is left as it is")
            self.vet(record, now)
            change = transition(record, now)
            if change is None:
                return record
            nonce = secrets.token_hex(8)
            try:
                stored, now = self.commit(change.marked(nonce), lease=lease, void=void)
            except ClaimStands as stands:
                record, now, void = self._apply_claim(stands, record, lease)
                continue
            except SpecUsed as error:
                transition = partial(transitions.refuse, reason="SpecUsed", message=str(error))
                continue
            if stored is None:
                raise UnknownRun(f"run {run_id}: its retention is over")
            stored.mark_verified_like(record)
            if stored.change == nonce:
                return stored
            record = stored
        raise Refused(f"run {run_id} changes too often: {_MOST_TRIES} tries came too late")

    def _apply_claim(self, stands: ClaimStands, record: Record, lease: Lease | None) -> tuple[Record, float, str]:
        """Write a standing claim into the record if it is genuine; return record, time, and the claim to ignore."""
        if self.claimant is None:
            raise stands
        if not (holder := self.claimant(record, stands.entry)):
            return record, stands.now, stands.raw
        transition = partial(transitions.claim_attempt, attempt=record.attempt, holder=holder, at=stands.at)
        return self.update(record.id, transition, record=record, now=stands.now, lease=lease), stands.now, ""
