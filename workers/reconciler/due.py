"""Due times: retries that came due, ``start_within`` that passed, an ``on_exit`` that nobody took."""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import partial

from dispatcher.errors import Refused, UnknownRun
from dispatcher.failpoints import failpoint
from dispatcher.records.base import Records, Runs
from dispatcher.runs import indexes, transitions
from dispatcher.runs.change import Change
from dispatcher.runs.record import Record

logger = logging.getLogger(__name__)

#: Runs taken in one page.
PAGE = 500


def sweep_due(records: Records) -> int:
    """Apply the clock to all runs that it changes now; how many were looked at."""
    seen = 0
    while True:
        now = records.runs.now()
        due = records.runs.members(indexes.DUE, until=now, limit=PAGE)
        for run_id, _ in due:
            with suppress(Refused, UnknownRun):  # another came first
                failpoint("clock.due", run_id)
                after = records.runs.update(run_id, partial(_ticked, records.runs))
                failpoint("clock.ticked", run_id)
                logger.info("run %s: its time came, it is %s now", run_id, after.state)
        seen += len(due)
        if len(due) < PAGE:
            return seen


def _ticked(runs: Runs, record: Record, now: float) -> Change | None:
    """The clock's step; the end of a run whose signature doesn't hold, where the clock would repeat it."""
    change = transitions.tick(record, now)
    due = indexes.next_due(record)
    if change is None and due is not None and due <= now and (why := runs.vet(record, now)):
        return transitions.refuse(record, now, reason="SealBroken", message=why)
    return change
