"""The reports of runners in containers, and what they do to their runs: the runner reports, the supervisor decides."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial

from backends.base import Observation
from dispatcher.errors import LeasePassed, Malformed, Refused, SealBroken, ServerUnavailable, UnknownRun
from dispatcher.records.base import Step
from dispatcher.records.leases import Lease
from dispatcher.records.left_out import LeftOut
from dispatcher.records.rejections import What, count
from dispatcher.runner.container.report import Report, ReportKind
from dispatcher.runs import transitions
from dispatcher.runs.record import Record
from dispatcher.runs.states import Cause
from dispatcher.serialization import KeyRing
from dispatcher.support.failpoints import failpoint
from dispatcher.support.parsing import Fields
from workers.claims import token_of
from workers.supervisor.heartbeats import Pulse
from workers.supervisor.log_tails import Tails
from workers.supervisor.record_cache import Known
from workers.supervisor.trust import Trust
from workers.supervisor.verdicts import explainable, explained

logger = logging.getLogger(__name__)

#: Entries read at once.
PAGE = 1000

#: Seconds that an end waits which the runner can't explain: a node says why it stopped a pod once that has ended.
EXPLAINED = 5.0


class Reports:
    """Acts on the inboxes of the shards held.

    Args:
        trust: knows the records where the inboxes are, and judges those that aren't known yet.
        keys: the installation's.
        known: the runs watched; kept current.
        pulse: told of every sign of life.
        look: what is seen of a run's infrastructure just now, None if nothing is.
        tails: asked for the last lines of those that died.
        here: whether a process here may call a run's ``on_exit`` in the place of its dead runner.
    """

    def __init__(
        self,
        trust: Trust,
        keys: KeyRing,
        known: Known,
        pulse: Pulse,
        look: Callable[[Record], Observation | None],
        tails: Tails,
        here: Callable[[Record], bool],
    ) -> None:
        self._records = trust.records
        self._keys = keys
        self._known = known
        self._pulse = pulse
        self._look = look
        self._tails = tails
        self._here = here
        self._trust = trust
        self._left_out = LeftOut(trust.records.refusals)
        self._waiting: dict[str, tuple[Report, Lease, float]] = {}  # run → its end, until when it waits, monotonic

    @property
    def waiting(self) -> Collection[str]:
        """Runs whose end was reported, and waits for an explanation."""
        return self._waiting.keys()

    def explain(self, now: float) -> None:
        """End the runs of which by now it is known why their runners were told to stop, or won't be.

        Raises:
            LeasePassed: as :meth:`read`.
        """
        for run_id, (report, lease, until) in list(self._waiting.items()):
            record = self._known.get(run_id)
            if record is None or record.attempt != report.attempt:
                del self._waiting[run_id]
                continue
            seen = self._look(record)
            if explainable(record, report.outcome, seen, now) and time.monotonic() < until:
                continue
            del self._waiting[run_id]
            try:
                self._write(record, report, self._step(record, report, now), lease, now)
            except (Refused, UnknownRun, Malformed) as error:
                self._refuse(error)

    def repair(self, shards: Collection[str]) -> None:
        """Make inboxes usable again to which no runner can report any more."""
        for shard in self._records.inbox.repair(shards):
            self._left_out.note(
                f"what lay in the inbox of shard {shard}", Malformed("its id was far ahead of the clock")
            )

    def read(self, lease: Lease, now: float) -> None:
        """Act on all that a shard's runners have reported.

        Raises:
            LeasePassed: the shard has another holder, who will read them.
        """
        while entries := self._records.inbox.read(lease.name, limit=PAGE):
            for position, entry in entries:
                try:
                    self._act_on(entry, lease, now)
                    failpoint("inbox.acted", entry["run"])
                except LeasePassed:
                    raise
                except Malformed as error:
                    self._left_out.note(f"report {position} of shard {lease.name}", error)
                except (SealBroken, UnknownRun, Refused) as error:
                    self._refuse(error)
                except ServerUnavailable:
                    raise
                except Exception as error:  # whatever it is about this one: the others have their turn
                    self._refuse(error)
            self._records.inbox.drop(lease.name, until=entries[-1][0])
            failpoint("inbox.dropped")
            if len(entries) < PAGE:
                return

    def _refuse(self, error: Exception) -> None:
        count(self._records.refusals, What.REPORT)
        logger.warning("report refused: %s", error)

    def _act_on(self, entry: dict[str, str], lease: Lease, now: float) -> None:
        run_id = Fields(entry, "report").name("run")
        known = self._known.get(run_id)
        if known is not None:
            try:
                self._apply(known, entry, lease, now)
                return
            except LeasePassed:
                raise
            except (SealBroken, Refused):  # another attempt by now, or another owner: look again
                self._known.drop(known.id)
        record, now = self._records.runs.get(run_id)
        if why := self._trust.why_not(record):
            raise SealBroken(why)
        self._apply(record, entry, lease, now)

    def _apply(self, record: Record, entry: dict[str, str], lease: Lease, now: float) -> None:
        report = Report.from_entry(entry, token_of(self._keys, record))
        if report.attempt != record.attempt:
            raise Refused(f"attempt {report.attempt} of run {record.id} is closed")
        self._pulse.heard(record.id)
        if report.kind in {ReportKind.ALIVE, ReportKind.UNKNOWN}:
            return
        ours = record.owner == lease.name
        ends = report.kind in {ReportKind.EXITED, ReportKind.DIED}
        if ours and ends and explainable(record, report.outcome, self._look(record), now):
            self._known.put(record)
            self._waiting.setdefault(record.id, (report, lease, time.monotonic() + EXPLAINED))
            return
        at = _time(entry) if report.kind is ReportKind.CLAIMED else None
        self._write(record, report, self._step(record, report, now, at), lease, now)

    def _write(self, record: Record, report: Report, step: Step, lease: Lease, now: float) -> None:
        after = self._records.runs.update(record.id, step, record=record, now=now, lease=lease)
        if report.kind is ReportKind.DIED and after.version != record.version and not self._tails.sent(record):
            self._tails.ask(record)
        if after.owner == lease.name:
            self._known.put(after)
        else:
            self._known.drop(after.id)

    def _step(self, record: Record, report: Report, now: float, at: float | None = None) -> Step:
        told_to_stop = report.outcome.cause is Cause.PREEMPTED
        outcome = explained(record, report.outcome, self._look(record) if told_to_stop else None, now)
        if report.kind is ReportKind.CLAIMED:
            return partial(transitions.claim_attempt, attempt=report.attempt, holder=report.holder, at=at)
        if report.kind is ReportKind.SETTLED:
            return partial(transitions.settle, epoch=record.epoch, outcome=outcome)
        if report.kind is ReportKind.DIED:
            outcome = replace(outcome, log_tail=outcome.log_tail or self._tails.sent(record))
            return partial(transitions.abandon, epoch=record.epoch, outcome=outcome, here=self._here(record))
        return partial(
            transitions.finish,
            epoch=record.epoch,
            outcome=outcome,
            exit_call=report.exit_call,
            corrected=told_to_stop and (record.outcome is None or record.outcome.cause is Cause.PREEMPTED),
        )


def _time(entry: Mapping[str, str]) -> float | None:
    """When a claim was made, as the server's function noted beside the report; None if that can't be read."""
    with suppress(KeyError, ValueError):
        return float(entry["time"])
    return None
