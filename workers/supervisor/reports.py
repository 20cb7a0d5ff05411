"""Reports of runners in containers, and the transitions that they cause: the runner reports, the supervisor decides."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial

from dispatcher.errors import LeasePassed, Malformed, Refused, SealBroken, ServerUnavailable, UnknownRun
from dispatcher.records.leases import Lease
from dispatcher.records.malformed import MalformedEntries
from dispatcher.records.rejections import Rejected, count_rejection
from dispatcher.records.runs import Transition
from dispatcher.runner.container.report import Report, ReportKind
from dispatcher.runs import transitions
from dispatcher.runs.record import Record
from dispatcher.runs.states import Cause, State
from dispatcher.serialization import KeyRing
from dispatcher.support.failpoints import failpoint
from dispatcher.support.log_throttle import LogThrottle
from dispatcher.support.parsing import Fields
from workers.claims import token_of
from workers.supervisor.heartbeats import Heartbeats
from workers.supervisor.judgement import explainable, explained, told_to_stop
from workers.supervisor.log_tails import LogTails
from workers.supervisor.observer import Observer
from workers.supervisor.record_verifier import RecordVerifier
from workers.supervisor.record_writer import RecordWriter

logger = logging.getLogger(__name__)

#: Entries read at once.
PAGE = 1000

#: Seconds for which the end of a flow that failed, perhaps of a worker's loss, waits for that one's reason. A node
#: reports it some time after the connection was lost, and no event may follow the run's last one.
LOSS_TIMEOUT = 6.0

_SIGNS_OF_LIFE = frozenset({ReportKind.ALIVE, ReportKind.WORKERS, ReportKind.UNKNOWN})

#: Seconds for which an end waits that the runner can't explain. A node reports why it stopped a pod only after its end,
#: and a Job's controller only after its pods are gone, which took a busy node more than 5 s.
EXPLANATION_TIMEOUT = 20.0


class Reports:
    """Reader of the inboxes of the shards held.

    Args:
        verifier: of records that aren't cached; it knows where the inboxes are.
        keys: the installation's.
        writer: of the runs' records, with their cache and the shards.
        heartbeats: records each sign of life.
        observer: of the infrastructure.
        log_tails: reads the last lines of runners that died.
        callbacks_allowed: whether a process here may call a run's ``on_exit`` in place of its dead runner.
    """

    def __init__(
        self,
        verifier: RecordVerifier,
        keys: KeyRing,
        writer: RecordWriter,
        heartbeats: Heartbeats,
        observer: Observer,
        log_tails: LogTails,
        callbacks_allowed: Callable[[Record], bool],
    ) -> None:
        self._records = verifier.records
        self._verifier = verifier
        self._keys = keys
        self._writer = writer
        self._cache = writer.cache
        self._heartbeats = heartbeats
        self._observer = observer
        self._log_tails = log_tails
        self._callbacks_allowed = callbacks_allowed
        self._malformed = MalformedEntries(verifier.records.rejections)
        self._throttle = LogThrottle(logger)
        # run → its end with the report's time, until when it waits, monotonic
        self._waiting: dict[str, tuple[Report, float | None, Lease, float]] = {}
        #: Whether the reason of a loss of a run's workers may be found soon.
        self.explains_losses: Callable[[Record], bool] = lambda record: False

    @property
    def waiting(self) -> Collection[str]:
        """Ids of the runs whose end was reported, and waits for an explanation."""
        return self._waiting.keys()

    def repair(self) -> None:
        """Make inboxes usable again to which no runner can report any more."""
        for shard in self._records.inbox.repair(self._writer.shards.held):
            self._malformed.note(f"inbox of shard {shard}", Malformed("its id was far ahead of the clock"))

    def read_all(self, now: float) -> None:
        """Act on all reports of the shards held, and on ends that have waited long enough. ``now`` is the server's."""
        shards = self._writer.shards.held
        if self._records.inbox.wait(shards, block=0.0):
            for shard in shards:
                lease = self._writer.shards.lease(shard)
                try:
                    if lease is not None:
                        self._read_inbox(lease, now)
                except LeasePassed as error:
                    self._writer.lose_shard(shard, error)
                except Malformed as error:
                    self._throttle.warn(f"The inbox of shard {shard} can't be read", error)
        self._explain(now)
        self._heartbeats.all_read()

    def _explain(self, now: float) -> None:
        """End the waiting runs of which the reason is known by now, or won't be."""
        for run_id, (report, at, lease, until) in list(self._waiting.items()):
            record = self._cache.get(run_id)
            if record is None or record.attempt != report.attempt:
                del self._waiting[run_id]
                continue
            if time.monotonic() < until and self._pause_of(record, report, now):
                continue
            del self._waiting[run_id]
            try:
                self._write(record, report, self._step(record, report, now, at), lease, now)
            except LeasePassed as error:
                logger.warning("Run %s is left to the new holder of its shard: %s", run_id, error)
            except (Refused, UnknownRun, Malformed) as error:
                self._reject(error)

    def _read_inbox(self, lease: Lease, now: float) -> None:
        """Act on all reports of a shard's runners.

        Raises:
            LeasePassed: the shard has another holder, who will read them.
        """
        while entries := self._records.inbox.read(lease.name, limit=PAGE):
            for position, entry in entries:
                try:
                    self._act_on(entry, lease, now)
                    failpoint("inbox.acted", entry["run"])
                except (LeasePassed, ServerUnavailable):
                    raise
                except Malformed as error:
                    self._malformed.note(f"report {position} of shard {lease.name}", error)
                except Exception as error:  # of whatever kind: it must not hold up the other reports
                    self._reject(error)
            self._records.inbox.drop(lease.name, until=entries[-1][0])
            failpoint("inbox.dropped")
            if len(entries) < PAGE:
                return

    def _reject(self, error: Exception) -> None:
        count_rejection(self._records.rejections, Rejected.REPORT)
        self._throttle.warn("Report refused", error, kind=f"report: {type(error).__name__}")

    def _act_on(self, entry: dict[str, str], lease: Lease, now: float) -> None:
        run_id = Fields(entry, "report").name("run")
        cached = self._cache.get(run_id)
        if cached is not None:
            try:
                self._apply(cached, entry, lease, now)
                return
            except LeasePassed:
                raise
            except (SealBroken, Refused):  # another attempt by now, or another owner: read the record
                self._cache.drop(run_id)
        record, now = self._records.runs.get(run_id)
        if problem := self._verifier.problem(record):
            raise SealBroken(problem)
        self._apply(record, entry, lease, now)

    def _apply(self, record: Record, entry: dict[str, str], lease: Lease, now: float) -> None:
        report = Report.from_entry(entry, token_of(self._keys, record))
        if report.attempt != record.attempt:
            raise Refused(f"attempt {report.attempt} of run {record.id} is closed")
        self._heartbeats.received(record.id)
        if report.workers is not None:
            self._heartbeats.workers_reported(record, report.workers)
        if report.kind in _SIGNS_OF_LIFE:
            return
        if record.owner == lease.name and (pause := self._pause_of(record, report, now)):
            self._cache.put(record)
            self._waiting.setdefault(record.id, (report, _time(entry), lease, time.monotonic() + pause))
            if not told_to_stop(report.outcome):  # no later finding changes it
                settle = partial(transitions.settle, epoch=record.epoch, outcome=report.outcome, at=_time(entry))
                self._write(record, report, settle, lease, now)
            return
        at = _time(entry)
        self._write(record, report, self._step(record, report, now, at), lease, now)

    def _pause_of(self, record: Record, report: Report, now: float) -> float:
        """Return the seconds for which an end waits at most until its reason can be known; 0: it needn't wait."""
        if report.kind in {ReportKind.EXITED, ReportKind.DIED}:
            if explainable(record, report.outcome, self._observer.observe(record.handle), now):
                return EXPLANATION_TIMEOUT
            failed = report.kind is ReportKind.EXITED and report.outcome.cause is Cause.USER_ERROR
            if failed and record.state is State.RUNNING and self.explains_losses(record):
                return LOSS_TIMEOUT
        return 0.0

    def _write(self, record: Record, report: Report, step: Transition, lease: Lease, now: float) -> None:
        after = self._records.runs.update(record.id, step, record=record, now=now, lease=lease)
        if report.kind is ReportKind.DIED and after.version != record.version and not self._log_tails.sent(record):
            self._log_tails.request(record)
        self._writer.keep(after, lease.name)

    def _step(self, record: Record, report: Report, now: float, at: float | None = None) -> Transition:
        preempted = report.outcome.cause is Cause.PREEMPTED
        observation = self._observer.observe(record.handle) if preempted else None
        ends = report.kind in {ReportKind.EXITED, ReportKind.DIED}
        outcome = explained(record, report.outcome, observation, now, final=ends)
        corrected = preempted and (record.outcome is None or told_to_stop(record.outcome))
        if report.kind is ReportKind.CLAIMED:
            return partial(transitions.claim_attempt, attempt=report.attempt, holder=report.holder, at=at)
        if report.kind is ReportKind.SETTLED:
            return partial(transitions.settle, epoch=record.epoch, outcome=outcome, at=at)
        if report.kind is ReportKind.DIED and report.exit_call is None:
            outcome = replace(outcome, log_tail=outcome.log_tail or self._log_tails.sent(record))
            here = self._callbacks_allowed(record)
            return partial(
                transitions.abandon, epoch=record.epoch, outcome=outcome, here=here, corrected=corrected, at=at
            )
        return partial(
            transitions.finish,
            epoch=record.epoch,
            outcome=outcome,
            exit_call=report.exit_call,
            corrected=corrected,
            at=at,
        )


def _time(entry: Mapping[str, str]) -> float | None:
    """Return when a report was made, as the server noted it beside it; None if that can't be read."""
    with suppress(KeyError, ValueError):
        return float(entry["time"])
    return None
