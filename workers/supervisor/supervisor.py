"""A supervisor per worker and container backend: it watches all runs of the shards held, together.

A round, every ``poll`` seconds, reads the records that have changed and observes all infrastructure. Between rounds,
ticks observe only what the backend reports as changed, and read reports as they come. Requests to the infrastructure
run on threads (:mod:`workers.supervisor.request_threads`); records are written on this one thread, on behalf of a
shard's lease (:mod:`workers.supervisor.record_writer`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from backends.base import Backend, Handle, Observation
from dispatcher.records.base import Records
from dispatcher.runs import indexes, transitions
from dispatcher.runs.attempt import family
from dispatcher.runs.infrastructure import needs_infrastructure
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.record import Record
from dispatcher.support.failpoints import failpoint
from workers.error_isolation import ErrorIsolation
from workers.execution import on_exit
from workers.execution.provisioning import Provisioner
from workers.supervisor.attempt_requests import AttemptRequests
from workers.supervisor.backend_requests import BackendRequests
from workers.supervisor.change_feed import ChangeFeed
from workers.supervisor.clock import ServerClock
from workers.supervisor.crash_reports import CrashReports
from workers.supervisor.heartbeats import Heartbeats
from workers.supervisor.judgement import Judgement, judge, told_to_stop
from workers.supervisor.log_tails import LogTails
from workers.supervisor.observer import Observer
from workers.supervisor.orphans import OrphanSweep
from workers.supervisor.record_cache import RecordCache
from workers.supervisor.record_verifier import RecordVerifier
from workers.supervisor.record_writer import RecordWriter
from workers.supervisor.reports import Reports
from workers.supervisor.request_threads import RequestThreads
from workers.supervisor.scaling import Scaling
from workers.supervisor.shards import Shards
from workers.supervisor.teardown import Teardown
from workers.supervisor.unclaimed_starts import UnclaimedStarts
from workers.supervisor.unmatched import READ_INTERVAL
from workers.supervisor.user_sweeps import UserSweeps

logger = logging.getLogger(__name__)

#: Requests at once: creations and deletions.
REQUEST_THREADS = 8

#: Runs observed before the changes reported meanwhile have their turn.
PORTION = 500

#: Newly read runs from which on a round is logged.
LOGGED_READS = 1000


class Supervisor:
    """Watches the runs of one backend that hash into this worker's shards.

    Args:
        provisioner: the records, the settings, and the way to send a request again.
        backend: the one supervised.
        wake: called from any thread when a tick would find something to do.
    """

    def __init__(self, provisioner: Provisioner, backend: Backend, wake: Callable[[], None] = lambda: None) -> None:
        records, owner, keys = provisioner.records, provisioner.owner, provisioner.keys
        self._timing = timing = provisioner.settings.timing
        self._callbacks = provisioner.settings.worker.callbacks
        self._records: Records = records
        self.family = family(backend.name, backend.place)
        self._clock = clock = ServerClock(records.runs)
        self._shards = shards = Shards(records.leases, self.family, owner)
        verifier = RecordVerifier(records, keys.engine, self.family, clock.now)
        self._cache = cache = RecordCache(records, verifier.verified)
        self._writer = writer = RecordWriter(records.runs, cache, shards, clock)
        self._heartbeats = Heartbeats()
        self._observer = observer = Observer(backend)
        self._requests = requests = BackendRequests(RequestThreads(REQUEST_THREADS, wake), pause=timing.poll / 2)
        self._attempt_requests = AttemptRequests(provisioner, backend, requests, writer)
        self._log_tails = log_tails = LogTails(records, backend, wake)
        self._unclaimed = UnclaimedStarts(backend, wake)
        self._reports = Reports(verifier, keys, writer, self._heartbeats, observer, log_tails, self._callbacks_allowed)
        self._scaling = Scaling(backend, verifier, writer, self._heartbeats, requests, owner=owner)
        self._reports.explains_losses = self._scaling.explains_losses
        leftovers = RecordCache(records, verifier.with_verified_leftovers)
        leftovers_writer = RecordWriter(records.runs, leftovers, shards, clock)
        self._crash_reports = crash_reports = CrashReports(records, backend, wake)
        self._teardown = Teardown(
            records, leftovers_writer, backend, observer, requests, crash_reports, is_needed=log_tails.is_pending
        )
        self._orphans = OrphanSweep(records, backend, requests, is_wanted=self._is_wanted, every=timing.orphan_tick)
        self._users = UserSweeps(provisioner.users, self.family, every=timing.orphan_tick)
        self._changes = ChangeFeed(records, backend, cache, shards, self.family, wake)
        self._isolation = ErrorIsolation(logger)

    @property
    def holders(self) -> frozenset[str]:
        """Ids of the workers that held shards of this backend at the last round."""
        return self._shards.holders

    @property
    def held(self) -> Collection[str]:
        """Names of the shards held."""
        return self._shards.held

    def cancel_requested(self, run_id: str) -> None:
        """Read a run's record at the next tick: it may have been cancelled. Safe from any thread."""
        self._changes.notices.cancel_requested(run_id)

    def round(self, supervisors: Iterable[str], dead: Collection[str]) -> None:
        """Share the shards, and work on all their runs, reports and leftovers.

        Safe to repeat, and to run beside other workers. The arguments are those of
        :meth:`~workers.supervisor.shards.Shards.share`.
        """
        self._shards.share(supervisors, dead)
        self._changes.notices.take_cancels()  # all records are read now
        self._reports.repair()
        self._refresh()
        self._teardown.expedite(self._changes.run_ids(self._changes.take()))  # of cached runs, all are observed next
        self._work_in_portions(list(self._cache))
        run_ids = {record.id for record in self._cache}
        self._heartbeats.retain(run_ids)
        self._scaling.retain(run_ids)
        self._unclaimed.retain(self._cache)
        if (
            self._cache.complete and self._teardown.complete
        ):  # else infrastructure of an unread run looks like an orphan
            self._orphans.sweep(lambda: self._shards.held)
            self._users.sweep(list(self._cache), self._shards.held)

    @property
    def next_in(self) -> float:
        """Seconds until the next tick is needed; infinite if that isn't known."""
        return min(self._scaling.next_in, READ_INTERVAL if self._changes.has_unmatched else math.inf)

    def tick(self) -> None:
        """Act on what has changed since the last tick or round: reports, answers, infrastructure, cancel requests."""
        cancelled = self._take_cancelled()
        changes = self._changes.take()
        if self._changes.has_unmatched:
            changes |= self._changes.match()
        if None in changes:
            self._work_in_portions(list(self._cache))
        else:
            records = {record.id: record for record in [*cancelled, *self._changed_runs(changes)]}
            self._work(list(records.values()))

    def note_outage(self) -> None:
        """Note that the server was unavailable: no runner could report, and the server may have lost its users."""
        self._heartbeats.restart()
        self._users.expedite()

    def leave(self) -> None:
        """Make no more requests, and release the shards."""
        self._requests.shutdown()
        self._log_tails.shutdown()
        self._crash_reports.shutdown()
        self._unclaimed.shutdown()
        self._shards.release_all()

    def _take_cancelled(self) -> list[Record]:
        run_ids = self._changes.notices.take_cancels()
        return self._cache.reread(run_ids, self._shards.held) if run_ids else []

    def _changed_runs(self, changes: Iterable[str | None]) -> list[Record]:
        """Return the cached records of changed runs. The leftovers of these runs will be observed, too."""
        run_ids = self._changes.run_ids(changes)
        self._teardown.expedite(run_ids)
        return [record for run_id in run_ids if (record := self._cache.get(run_id)) is not None]

    def _refresh(self) -> None:
        """Read which runs the shards own, and the records of those that have changed."""
        runs = self._records.runs
        owned = {index: runs.members(index, limit=100_000) for index in map(indexes.owned, self._shards.held)}
        fresh = self._cache.refresh(owned)
        self._teardown.refresh(self._shards.held)
        self._changes.index(self._handles())
        if len(fresh) > LOGGED_READS:
            logger.info("Read %d runs of %s", len(fresh), self.family)

    def _handles(self) -> Iterator[tuple[str, Handle]]:
        for record in self._cache:
            if record.handle is not None:
                yield record.id, record.handle
        yield from self._teardown.handles()

    def _work_in_portions(self, records: Sequence[Record]) -> None:
        """Work on many runs. Changes that are reported meanwhile needn't wait for all of them."""
        for first in range(0, max(1, len(records)), PORTION):
            portion = {record.id: record for record in records[first : first + PORTION]}
            changes = self._changes.take() if first else set()
            if None in changes:
                self._changes.put_back_all()  # it concerns the earlier portions, too
            self._work(list((portion | {record.id: record for record in self._changed_runs(changes)}).values()))

    def _work(self, records: Sequence[Record]) -> None:
        """Handle answers, observe these runs, read all reports, and act on the observations."""
        now = self._clock.read()
        self._requests.handle_answers()
        ours = [record for record in records if record.owner in self._shards.held and not record.foreign]
        created = [record for record in ours if record.handle is not None]
        observations = self._observer.observe_runs(created)
        self._reports.read_all(now)  # after observing: what has ended reported before
        for before in created:
            record, observation = self._cache.get(before.id), observations.get(before.id)
            if record is None or record.attempt != before.attempt or record.id in self._reports.waiting:
                continue
            with self._isolation.run(record.id):
                if observation is not None:
                    observation = self._unclaimed.explained(record, observation)
                    self._act(record, judge(record, observation, now, silent=self._is_silent(record)), observation)
        for record in ours:
            if record.handle is None and self._cache.get(record.id) is record:
                with self._isolation.run(record.id):
                    self._attempt_requests.create(record)
        self._scaling.work(ours, now, ended=self._reports.waiting)
        self._log_tails.store(self._shards)
        self._crash_reports.store(self._shards)
        self._teardown.work(now)

    def _act(self, record: Record, judgement: Judgement, observation: Observation) -> None:
        if judgement.end is not None:
            self._end(record, judgement.end, observation)
            return
        if judgement.step is not None:
            self._writer.update(record, judgement.step)
        if judgement.delete:
            self._attempt_requests.delete(record)
        elif observation.incomplete:
            self._attempt_requests.restore(record)

    def _end(self, record: Record, outcome: Outcome, observation: Observation) -> None:
        log_tail = outcome.log_tail or self._log_tails.sent(record)
        step = partial(
            transitions.abandon,
            epoch=record.epoch,
            outcome=replace(outcome, log_tail=log_tail),
            here=self._callbacks_allowed(record),
            times=observation.times,
            corrected=told_to_stop(record.outcome),
        )
        if self._writer.update(record, step):
            failpoint("watch.judged", record.id)
            if not log_tail:
                self._log_tails.request(record)

    def _is_silent(self, record: Record) -> bool:
        """Return True if the runner has been silent for long; before it began, if its infrastructure was unseen."""
        silence = self._heartbeats.silence(record.id)
        if record.started_at is None:
            since = record.unknown_since
            silence = 0.0 if since is None else min(silence, self._clock.now() - since)
        return silence >= self._timing.node_lost

    def _callbacks_allowed(self, record: Record) -> bool:
        return on_exit.allowed(record.spec.environment, self._callbacks)

    def _is_wanted(self, run_id: str, attempt: int) -> bool:
        return needs_infrastructure(self._cache.get(run_id), attempt) or self._teardown.is_known(run_id, attempt)
