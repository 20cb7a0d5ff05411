"""A runner's claim on its attempt, and the waiting of a runner whose claim was refused.

Called only by :mod:`dispatcher.runner.container.child`. Imports little, because the attempt is claimed before the rest
of the runner is loaded.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from functools import partial

from dispatcher.errors import ClaimStands, DispatcherError, Refused, ServerUnavailable, UnknownRun
from dispatcher.records.base import Records
from dispatcher.runner.container.assignment import Assignment
from dispatcher.runner.container.report import Report, ReportKind
from dispatcher.runs import transitions
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.states import State
from dispatcher.support.failpoints import failpoint
from dispatcher.support.outages import MAX_OUTAGE, retry_while_unavailable

_POLL_INTERVAL = 2.0  # seconds between two reads of the record while standing by
_MOST_FORGERIES = 10  # forged claims that are replaced before the runner gives up


def claim(
    records: Records, assignment: Assignment, on_outage: Callable[[ServerUnavailable], None] | None = None
) -> Record | None:
    """Claim the attempt; None if it is closed, or another process holds it.

    Args:
        records: the records.
        assignment: the attempt.
        on_outage: called with each error while the server is away.

    Raises:
        ServerUnavailable: the server was away for ten minutes.
    """
    step = partial(transitions.claim_attempt, attempt=assignment.attempt, holder=assignment.holder)
    report = Report(
        run_id=assignment.run_id,
        attempt=assignment.attempt,
        kind=ReportKind.CLAIMED,
        outcome=Outcome(),
        holder=assignment.holder,
    )
    entry = report.to_entry(assignment.token)

    def try_claim() -> Record:
        record, at = _claim(records, assignment, entry)
        failpoint("container.claimed", record.id)
        change = step(record, at)  # as its supervisor will write it
        return record if change is None else change.after

    try:
        return retry_while_unavailable(try_claim, within=MAX_OUTAGE, on_outage=on_outage)
    except (Refused, UnknownRun):
        return None


def _claim(records: Records, assignment: Assignment, entry: Mapping[str, str]) -> tuple[Record, float]:
    """Claim the attempt, replacing claims that were made without its token."""
    claim = partial(
        records.runs.claim_attempt,
        assignment.run_id,
        attempt=assignment.attempt,
        holder=assignment.holder,
        shard=assignment.shard,
        entry=entry,
    )
    void = ""
    for _ in range(_MOST_FORGERIES):
        try:
            return claim(void=void)
        except ClaimStands as standing:
            if _is_genuine(standing.entry, assignment):
                raise
            void = standing.raw
    return claim(void=void)


def _is_genuine(entry: Mapping[str, str], assignment: Assignment) -> bool:
    try:
        report = Report.from_entry(entry, assignment.token)
    except (DispatcherError, KeyError, ValueError, TypeError, RecursionError):
        return False
    return (report.kind, report.run_id, report.attempt) == (
        ReportKind.CLAIMED,
        assignment.run_id,
        assignment.attempt,
    )


def stand_by(records: Records, assignment: Assignment) -> None:
    """Wait for the end of the attempt. To exit earlier would end the Job of the process that holds it.

    An attempt that is being cancelled before any runner has started it is held by nobody, and is waited for by nobody:
    a SIGTERM that came before this process handled it isn't repeated.
    """
    while True:
        with contextlib.suppress(ServerUnavailable):
            try:
                record, _ = records.runs.get(assignment.run_id)
            except UnknownRun:
                return
            if record.terminal or record.attempt != assignment.attempt or _cancelled_unstarted(record):
                return
        time.sleep(_POLL_INTERVAL)


def _cancelled_unstarted(record: Record) -> bool:
    return record.state is State.CANCELLING and record.started_at is None
