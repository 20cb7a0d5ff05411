"""What runners in containers report, and what it does to their runs: the runner reports, the supervisor decides."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from backends.base import Observation
from dispatcher.errors import LeasePassed, Refused, SealBroken, UnknownRun
from dispatcher.failpoints import failpoint
from dispatcher.payload import KeyRing
from dispatcher.records.base import Lease, Records, Step
from dispatcher.runner.report import About, Report, attempt_token
from dispatcher.runs import transitions
from dispatcher.runs.record import Record
from dispatcher.runs.states import Cause
from workers.supervisor.known import Known
from workers.supervisor.pulse import Pulse
from workers.supervisor.verdicts import explained

logger = logging.getLogger(__name__)

#: Entries read at once.
PAGE = 1000


class Reports:
    """Acts on the inboxes of the shards held.

    Args:
        records: where the inboxes are.
        keys: the installation's.
        known: the runs watched; kept current.
        pulse: told of every sign of life.
        look: what is seen of a run's infrastructure just now, None if nothing is.
        here: whether a process here may call a run's ``on_exit`` in the place of its dead runner.
    """

    def __init__(
        self,
        records: Records,
        keys: KeyRing,
        known: Known,
        pulse: Pulse,
        look: Callable[[Record], Observation | None],
        here: Callable[[Record], bool],
    ) -> None:
        self._records = records
        self._keys = keys
        self._known = known
        self._pulse = pulse
        self._look = look
        self._here = here

    def read(self, lease: Lease, now: float) -> None:
        """Act on all that a shard's runners have reported.

        Raises:
            LeasePassed: the shard has another holder, who will read them.
        """
        while entries := self._records.inbox.read(lease.name, limit=PAGE):
            for _, entry in entries:
                try:
                    self._act_on(entry, lease, now)
                    failpoint("inbox.acted", entry["run"])
                except LeasePassed:
                    raise
                except (SealBroken, UnknownRun, Refused, KeyError, ValueError) as error:
                    logger.warning("report refused: %s", error)
            self._records.inbox.drop(lease.name, until=entries[-1][0])
            failpoint("inbox.dropped")
            if len(entries) < PAGE:
                return

    def _act_on(self, entry: dict[str, str], lease: Lease, now: float) -> None:
        known = self._known.get(entry["run"])
        if known is not None:
            try:
                self._apply(known, entry, lease, now)
                return
            except LeasePassed:
                raise
            except (SealBroken, Refused):  # another attempt by now, or another owner: look again
                self._known.drop(known.id)
        record, now = self._records.runs.get(entry["run"])
        self._apply(record, entry, lease, now)

    def _apply(self, record: Record, entry: dict[str, str], lease: Lease, now: float) -> None:
        report = Report.from_entry(entry, self._token(record))
        if report.attempt != record.attempt:
            raise Refused(f"attempt {report.attempt} of run {record.id} is closed")
        self._pulse.heard(record.id)
        if report.about is About.ALIVE:
            return
        after = self._records.runs.update(
            record.id, self._step(record, report, now), record=record, now=now, lease=lease
        )
        if after.owner == lease.name:
            self._known.put(after)
        else:
            self._known.drop(after.id)

    def _step(self, record: Record, report: Report, now: float) -> Step:
        told_to_stop = report.outcome.cause is Cause.PREEMPTED
        outcome = explained(record, report.outcome, self._look(record) if told_to_stop else None, now)
        if report.about is About.SETTLED:
            return partial(transitions.settle, epoch=record.epoch, outcome=outcome)
        if report.about is About.DIED:
            return partial(transitions.abandon, epoch=record.epoch, outcome=outcome, here=self._here(record))
        return partial(transitions.finish, epoch=record.epoch, outcome=outcome, exit_call=report.exit_call)

    def _token(self, record: Record) -> str:
        if record.request is None:
            raise Refused(f"attempt {record.attempt} of run {record.id} is closed")
        key = self._keys.run_key(record.id, record.spec.key_id)
        return attempt_token(key, attempt=record.attempt, epoch=record.request["epoch"])
