"""A runner's claim on its attempt, and the loser's part. Imports little: the claim comes before all else is loaded.

Called by :mod:`dispatcher.runner.container.child` alone.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from functools import partial

from dispatcher.errors import ClaimStands, DispatcherError, Refused, ServerUnavailable, UnknownRun
from dispatcher.records.base import Records
from dispatcher.runner.container.assignment import Assignment
from dispatcher.runner.container.report import About, Report
from dispatcher.runs import transitions
from dispatcher.runs.record import Outcome, Record
from dispatcher.support.failpoints import failpoint
from dispatcher.support.outages import MAX_OUTAGE, retry_while_unavailable

_LOOK = 2.0  # seconds between two looks of a loser
_FORGED = 10  # claims of others that are passed over


def claim(records: Records, mine: Assignment) -> Record | None:
    """Claim the attempt; None if it is closed, or another start of a process holds it.

    Raises:
        ServerUnavailable: the server was away for ten minutes.
    """
    step = partial(transitions.claim_attempt, attempt=mine.attempt, holder=mine.holder)
    report = Report(
        run_id=mine.run_id, attempt=mine.attempt, about=About.CLAIMED, outcome=Outcome(), holder=mine.holder
    )
    entry = report.to_entry(mine.token)

    def claimed() -> Record:
        record, at = _claim(records, mine, entry)
        failpoint("container.claimed", record.id)
        change = step(record, at)  # as its supervisor will write it
        return record if change is None else change.after

    try:
        return retry_while_unavailable(claimed, within=MAX_OUTAGE)
    except (Refused, UnknownRun):
        return None


def _claim(records: Records, mine: Assignment, entry: Mapping[str, str]) -> tuple[Record, float]:
    """The claim; over one that somebody without the attempt's token has put there."""
    claim = partial(
        records.runs.claim, mine.run_id, attempt=mine.attempt, holder=mine.holder, shard=mine.shard, entry=entry
    )
    void = ""
    for _ in range(_FORGED):
        try:
            return claim(void=void)
        except ClaimStands as stands:
            if _is_genuine(stands.entry, mine):
                raise
            void = stands.raw
    return claim(void=void)


def _is_genuine(entry: Mapping[str, str], mine: Assignment) -> bool:
    try:
        report = Report.from_entry(entry, mine.token)
    except (DispatcherError, KeyError, ValueError, TypeError, RecursionError):
        return False
    return (report.about, report.run_id, report.attempt) == (About.CLAIMED, mine.run_id, mine.attempt)


def stand_by(records: Records, mine: Assignment) -> None:
    """Wait for the end of the attempt: ending first would end the rightful one's Job."""
    while True:
        with contextlib.suppress(ServerUnavailable):
            try:
                record, _ = records.runs.get(mine.run_id)
            except UnknownRun:
                return
            if record.terminal or record.attempt != mine.attempt:
                return
        time.sleep(_LOOK)
