"""Changes of runs that time alone brings (``start_within``, retries): made by who waits, where no worker lives."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from dispatcher.errors import Refused, UnknownRun
from dispatcher.records.base import Records
from dispatcher.runs import indexes
from dispatcher.runs.record import Record
from dispatcher.runs.transitions import tick

#: Seconds by which the clock may be late before a waiting client does a reconciler's work.
LATE = 2.0


def advance(records: Records, found: Iterable[Record | None]) -> None:
    """Move on those of the runs ``found`` that are due, unless a worker lives, which does so itself."""
    due = {one.id: at for one in found if one is not None and (at := indexes.next_due(one)) is not None}
    if not due or records.workers.live():
        return
    now = records.runs.now()
    for run_id, at in due.items():
        if at + LATE <= now:
            with suppress(Refused, UnknownRun):  # another came first
                records.runs.update(run_id, tick)
