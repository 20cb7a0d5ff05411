"""One supervisor per worker and container backend: it looks at all runs of the shards held, together.

A round, every ``poll`` seconds, reads what has changed of the records and looks at everything; between rounds it looks
only at what the backend says has changed, and reads reports as they come. Requests to the infrastructure are made by
:class:`~workers.supervisor.request_threads.Hands`; records are written on this one thread, on behalf of a shard's
lease.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from backends.base import Backend, Observation, Watched
from dispatcher.errors import LeasePassed, Malformed, Permanent, Refused, SealBroken, SpecUsed, Transient, UnknownRun
from dispatcher.records.base import Records, Step
from dispatcher.runs import indexes, transitions
from dispatcher.runs.attempt import family
from dispatcher.runs.infrastructure import wants
from dispatcher.runs.record import Outcome, Record
from dispatcher.runs.states import HELD, Cause, State
from dispatcher.support.failpoints import failpoint
from dispatcher.support.log_throttle import LogThrottle
from workers.execution import on_exit
from workers.execution.provisioning import Provisioner
from workers.one_by_one import OneByOne
from workers.supervisor.changes import Changes
from workers.supervisor.heartbeats import Pulse
from workers.supervisor.log_tails import Tails
from workers.supervisor.orphans import LIST, Orphans
from workers.supervisor.record_cache import Known
from workers.supervisor.reports import Reports
from workers.supervisor.request_threads import Hands
from workers.supervisor.shards import Shards
from workers.supervisor.teardown import Teardown
from workers.supervisor.trust import Trust
from workers.supervisor.unmatched import SOON, Strangers
from workers.supervisor.users import UserSweeps
from workers.supervisor.verdicts import Verdict, judge

logger = logging.getLogger(__name__)

#: Requests under way at once: creations and deletions.
HANDS = 8

#: Runs looked at before what has been heard meanwhile has its turn.
PORTION = 500


class Supervisor:
    """Watches the runs of one backend that hash into this worker's shards.

    Args:
        provisioner: the records, the settings, and how a request is sent again.
        backend: the one supervised.
        wake: called from any thread where a tick would find something to do.
    """

    def __init__(self, provisioner: Provisioner, backend: Backend, wake: Callable[[], None] = lambda: None) -> None:
        self._provisioner = provisioner
        self._records: Records = provisioner.records
        self._timing = provisioner.settings.timing
        self._backend = backend
        self.family = family(backend.name, backend.place)
        self.backend = backend.name
        self._wake = wake
        self._shards = Shards(self._records.leases, self.family, provisioner.owner)
        engine, offset = provisioner.keys.engine, self._server_time
        self._trust = Trust(self._records, engine, self.family, offset)
        self._known = Known(self._records.runs, self._trust.watched)
        self._pulse = Pulse()
        self._hands = Hands(HANDS, wake)
        look = self._seen_now
        self._tails = Tails(self._records, backend, wake)
        keys = provisioner.keys
        self._reports = Reports(self._trust, keys, self._known, self._pulse, look, self._tails, self._here)
        self._teardown = Teardown(self._records, backend, self._hands, self._trust, busy=self._tails.busy)
        self._orphans = Orphans(
            self._records, backend, self._hands, wanted=self._wanted, every=self._timing.orphan_tick
        )
        self._users = UserSweeps(provisioner.users, self.family, every=self._timing.orphan_tick)
        self._names: dict[str, str] = {}  # key of a handle → its run
        self._again: dict[Any, float] = {}  # key of a request → when it may be made again, monotonic
        self._changes = Changes(wake)
        self.cancelled = self._changes.cancelled  #: called from any thread with the id of a run that is to be cancelled
        self._strangers = Strangers(self.family)
        self._seldom = LogThrottle(logger)
        self._each = OneByOne(logger)
        self._offset = 0.0  # of the server's clock, from our monotonic one
        if isinstance(backend, Watched):
            backend.watch(self._changes.heard, self._records.instance)

    @property
    def holders(self) -> frozenset[str]:
        """Ids of the workers that held shards of this backend at the last round."""
        return self._shards.holders

    @property
    def held(self) -> Collection[str]:
        """Names of the shards held."""
        return self._shards.held

    def round(self, supervisors: Iterable[str], dead: Collection[str]) -> None:
        """Shards, records, reports, infrastructure, leftovers. Safe to run twice, and beside other workers."""
        self._shards.share(supervisors, dead)
        self._changes.take_cancelled()  # the records are read now
        self._reports.repair(self._shards.held)
        self._refresh()
        self._named(self._take_changes())
        self._work_through(list(self._known))
        self._pulse.keep({record.id for record in self._known})
        self._orphans.sweep(self._shards.held)
        self._users.sweep(list(self._known), self._shards.held)

    def tick(self) -> float | None:
        """Act on what has changed since: reports, results, and what the backend has heard of; return the seconds after
        which to come again, if that is known."""
        cancelled = self._take_cancelled()
        changed = self._take_changes()
        if self._strangers:
            changed |= self._meet()
        if None in changed:
            self._work_through(list(self._known))
        else:
            self._work(list({record.id: record for record in [*cancelled, *self._named(changed)]}.values()))
        return SOON if self._strangers else None

    def _work_through(self, records: Sequence[Record]) -> None:
        """Look at many in portions; what is heard of others meanwhile needn't wait for all of them."""
        for first in range(0, max(1, len(records)), PORTION):
            portion = {record.id: record for record in records[first : first + PORTION]}
            changed = self._take_changes() if first else set()
            if None in changed:
                self._changes.heard(None, "")  # also of those that were looked at
            self._work(list((portion | {record.id: record for record in self._named(changed)}).values()))

    def _named(self, changed: Iterable[str | None]) -> list[Record]:
        """The runs of these keys, as they are known; what they have left will be looked at too."""
        ids = {self._names[key] for key in changed if key is not None and key in self._names}
        self._teardown.heard(ids)
        return [record for run_id in ids if (record := self._known.get(run_id)) is not None]

    def _take_changes(self) -> set[str | None]:
        """Return what the backend has heard of, where we know whose it is; the rest is remembered for a while."""
        changed = self._changes.take()
        self._strangers.note(
            {key: run_id for key, run_id in changed.items() if key is not None and key not in self._names},
            self._shards.held,
        )
        return {key for key in changed if key is None or key in self._names}

    def _meet(self) -> set[str]:
        """Read the runs of what has changed and wasn't known; the keys that are known by now."""
        ids = list(self._strangers.due())
        held, settled = self._shards.held, set()
        for run_id, record in zip(ids, self._records.runs.get_many(ids) if ids else (), strict=True):
            if record is None or record.state not in HELD or record.handle is not None:
                settled.add(run_id)  # no handle is about to be stored
            if record is not None and record.owner in held:
                self._known.put(record)
                if (kept := self._known.get(record.id)) is not None:
                    self._name(kept)
        return self._strangers.met(self._names, settled)

    def _take_cancelled(self) -> list[Record]:
        ids = self._changes.take_cancelled()
        return self._known.again(ids, self._shards.held) if ids else []

    def deaf(self) -> None:
        """The server was away: silence says nothing."""
        self._pulse.deaf()
        self._users.soon()

    def leave(self) -> None:
        """Give the shards back."""
        self._hands.stop()
        self._tails.stop()
        self._shards.leave()

    def _wanted(self, run_id: str, attempt: int) -> bool:
        return wants(self._known.get(run_id), attempt) or self._teardown.wanted(run_id, attempt)

    def _refresh(self) -> None:
        """Read which runs are ours, and those of them that have changed."""
        runs = self._records.runs
        owned = {index: runs.members(index, limit=100_000) for index in map(indexes.owned, self._shards.held)}
        read = self._known.refresh(member for members in owned.values() for member in members)
        for index, members in owned.items() if self._known.missing else ():
            runs.leave(index, self._known.missing & {run_id for run_id, _ in members}, unreadable=True)
        self._teardown.refresh(self._shards.held)
        self._names = {}
        for record in self._known:
            self._name(record)
        self._names |= self._teardown.names
        if len(read) > 1000:
            logger.info("%d runs of %s were read", len(read), self.family)

    def _name(self, record: Record) -> None:
        if isinstance(self._backend, Watched) and record.handle is not None:
            with self._each.run(record.id):
                self._names[self._backend.key(record.handle)] = record.id

    def _work(self, records: Sequence[Record]) -> None:
        self._offset = (now := self._records.runs.now()) - time.monotonic()
        self._take_results()
        ours = [record for record in records if record.owner in self._shards.held and not record.foreign]
        watched = [record for record in ours if record.handle is not None]
        seen = self._polled(watched)
        self._read_inboxes(now)  # after looking: what is over has reported before
        for before in watched:
            record, observation = self._known.get(before.id), seen.get(before.id)
            if record is None or record.attempt != before.attempt or record.id in self._reports.waiting:
                continue
            with self._each.run(record.id):
                if observation is not None:
                    self._act(record, judge(record, observation, now, silent=self._silent(record)), observation)
        for record in ours:
            if record.handle is None and self._known.get(record.id) is record:
                with self._each.run(record.id):
                    self._send(record)
        self._tails.note(self._shards)
        self._teardown.work(self._shards, now)

    def _polled(self, watched: Sequence[Record]) -> dict[str, Observation]:
        """Return what is seen of each; nothing of those whose handle the backend can't make sense of."""
        try:
            seen = self._backend.poll([record.handle or {} for record in watched]) if watched else []
            return {record.id: observation for record, observation in zip(watched, seen, strict=True)}
        except (LookupError, TypeError, ValueError, AttributeError):
            found: dict[str, Observation] = {}
            for record in watched:
                with self._each.run(record.id):
                    [found[record.id]] = self._backend.poll([record.handle or {}])
            return found

    def _read_inboxes(self, now: float) -> None:
        shards = self._shards.held
        if self._records.inbox.wait(shards, block=0.0):
            for shard in shards:
                lease = self._shards.lease(shard)
                try:
                    if lease is not None:
                        self._reports.read(lease, now)
                except LeasePassed as error:
                    self._lost(shard, error)
                except Malformed as error:
                    self._seldom.warn(f"the inbox of shard {shard} can't be read", error)
        if self._reports.waiting:
            self._explain(now)
        self._pulse.looked()

    def _explain(self, now: float) -> None:
        try:
            self._reports.explain(now)
        except LeasePassed as error:
            logger.warning("%s", error)

    def _act(self, record: Record, verdict: Verdict, seen: Observation) -> None:
        if verdict.end is not None:
            self._end(record, verdict.end, seen)
            return
        if verdict.step is not None:
            self._update(record, verdict.step)
        if verdict.cancel:
            self._cancel(record)

    def _end(self, record: Record, outcome: Outcome, seen: Observation) -> None:
        tail = outcome.log_tail or self._tails.sent(record)
        step = partial(
            transitions.abandon,
            epoch=record.epoch,
            outcome=replace(outcome, log_tail=tail),
            here=self._here(record),
            times=seen.times,
        )
        if self._update(record, step):
            failpoint("watch.judged", record.id)
            if not tail:
                self._tails.ask(record)

    def _here(self, record: Record) -> bool:
        return on_exit.allowed(record.spec.environment, self._provisioner.settings.worker.callbacks)

    def _silent(self, record: Record) -> bool:
        """Return True if its runner, or what is out of sight before one began, has been silent for long."""
        silence = self._pulse.silence(record.id)
        if record.started_at is None:
            since = record.unknown_since
            silence = 0.0 if since is None else min(silence, self._offset + time.monotonic() - since)
        return silence >= self._timing.node_lost

    def _server_time(self) -> float:
        return self._offset + time.monotonic() if self._offset else self._records.runs.now()

    def _seen_now(self, record: Record) -> Observation | None:
        return None if record.handle is None else self._backend.poll([record.handle])[0]

    def _cancel(self, record: Record) -> None:
        """Ask for the infrastructure to go; the runner hears it, calls ``on_exit`` and reports, or it is seen gone."""
        key = ("cancel", record.id, record.attempt)
        if self._may(key):
            self._hands.give(key, partial(self._ask, record))

    def _ask(self, record: Record) -> bool:
        gone = self._backend.cancel(record.handle, (record.request or {}).get("body"))
        failpoint("watch.cancelled", record.id, lost=Transient)
        return gone

    def _send(self, record: Record) -> None:
        """The request is stored and its answer isn't: send it again, or give it up where it was cancelled."""
        if record.state not in HELD or record.request is None or record.spec.lacking:
            return
        key = ("send", record.id, record.attempt)
        if record.state is State.CANCELLING and not self._hands.busy(key):
            outcome = Outcome(cause=Cause.CANCELLED, message="cancelled")
            self._update(record, partial(transitions.finish, epoch=record.epoch, outcome=outcome))
        elif self._may(key):
            self._hands.give(key, partial(self._provisioner.send, record))

    def _may(self, key: Any) -> bool:
        return self._again.get(key, 0.0) <= time.monotonic()

    def _take_results(self) -> None:
        at = time.monotonic()
        for key, result in self._hands.done():
            what, run_id, *_ = key
            with self._each.run(run_id):
                if what == "send":
                    self._sent(run_id, result)
                elif what == LIST:
                    self._orphans.listed(result, self._shards.held)
                elif what == "teardown":
                    self._teardown.answered(key, result, self._shards)
                elif isinstance(result, Exception):
                    self._seldom.warn(f"{what} of run {run_id} can't be done yet", result)
            pause = result.retry_in if isinstance(result, Transient) else self._timing.poll / 2
            self._again[key] = at + pause
        self._again = {key: until for key, until in self._again.items() if until > at}

    def _sent(self, run_id: str, answer: Any) -> None:
        record = self._known.get(run_id)
        if record is None:
            return
        if isinstance(answer, SealBroken | SpecUsed):
            self._update(record, partial(transitions.refuse, reason=type(answer).__name__, message=str(answer)))
            return
        if isinstance(answer, Refused | UnknownRun):
            logger.info("nothing to do: %s", answer)
            self._known.drop(run_id)
            return
        if isinstance(answer, Exception) and not isinstance(answer, Permanent | Transient):
            logger.error("run %s: its request failed: %s: %s", run_id, type(answer).__name__, answer)
            return
        try:
            after = self._provisioner.store(record, answer, lease=self._shards.lease(record.owner))
        except LeasePassed as error:
            self._lost(record.owner, error)
        except (Refused, UnknownRun) as error:
            logger.info("nothing to do: %s", error)
            self._known.drop(run_id)
        else:
            self._keep(record, after)

    def _update(self, record: Record, step: Step) -> bool:
        """Take a transition on behalf of the run's shard; whether something was written."""
        lease = self._shards.lease(record.owner)
        if lease is None:
            return False
        now = self._offset + time.monotonic()
        try:
            if step(record, now) is None:
                return False
            after = self._records.runs.update(record.id, step, record=record, now=now, lease=lease)
        except LeasePassed as error:
            self._lost(record.owner, error)
        except (Refused, UnknownRun) as error:
            logger.info("nothing to do: %s", error)
            self._known.drop(record.id)
        else:
            self._keep(record, after)
            return after.version != record.version
        return False

    def _keep(self, before: Record, after: Record) -> None:
        if after.owner == before.owner:
            self._known.put(after)
        else:
            self._known.drop(after.id)

    def _lost(self, shard: str, error: LeasePassed) -> None:
        """Others answer for the shard: what we know of it is theirs."""
        logger.warning("%s; it is left to its new holder", error)
        self._shards.lost(shard)
        for record in self._known:
            if record.owner == shard:
                self._known.drop(record.id)
