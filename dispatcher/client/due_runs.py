"""Changes of runs that time alone causes (``start_within``, retries), made by a waiting client where no worker lives.

Used by :mod:`dispatcher.client.watcher`; elsewhere the workers' reconciler makes them.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from dispatcher.errors import Refused, UnknownRun
from dispatcher.records.base import Records
from dispatcher.runs import indexes
from dispatcher.runs.record import Record
from dispatcher.runs.transitions import tick

#: Seconds by which a change may be overdue before a client makes it.
OVERDUE = 2.0


def advance_due(records: Records, runs: Iterable[Record | None]) -> None:
    """Advance those of the runs that are due, unless a worker lives, which does so itself."""
    due = {record.id: at for record in runs if record is not None and (at := indexes.next_due(record)) is not None}
    if not due or records.workers.live():
        return
    now = records.runs.now()
    for run_id, at in due.items():
        if at + OVERDUE <= now:
            with suppress(Refused, UnknownRun):  # somebody else was faster
                records.runs.update(run_id, tick)
