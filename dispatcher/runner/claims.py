"""A runner's claim on its attempt, and the loser's part. Imports little: the claim comes before all else is loaded.

Called by :mod:`dispatcher.runner.child` alone.
"""

from __future__ import annotations

import contextlib
import time
from functools import partial

from dispatcher.errors import Refused, ServerUnavailable, UnknownRun
from dispatcher.failpoints import failpoint
from dispatcher.records.base import Records
from dispatcher.runner.assignment import Assignment
from dispatcher.runner.patience import PATIENCE, patiently
from dispatcher.runs import transitions
from dispatcher.runs.record import Record

_LOOK = 2.0  # seconds between two looks of a loser


def claim(records: Records, mine: Assignment) -> Record | None:
    """Claim the attempt; None if it is closed, or another start of a process holds it.

    Raises:
        ServerUnavailable: the server was away for ten minutes.
    """
    step = partial(transitions.claim_attempt, attempt=mine.attempt, holder=mine.holder)

    def claimed() -> Record:
        record = records.runs.update(mine.run_id, step)
        failpoint("container.claimed", record.id)
        return record

    try:
        return patiently(claimed, patience=PATIENCE)
    except (Refused, UnknownRun):
        return None


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
