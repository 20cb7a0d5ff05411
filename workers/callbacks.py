"""``on_exit`` when the runner could not call it: its process died, so a fresh pool process does."""

from __future__ import annotations

from dispatcher.runs.record import Record
from workers.pool import Here


def call_on_exit(here: Here, run_id: str) -> Record:
    """Take the ``on_exit`` that is due, call it and end the attempt; the record after that.

    Raises:
        UnknownRun: there is no such run.
        Refused: another process took it, none is due, or this worker doesn't serve it.
    """
    from dispatcher.runner import attempt

    record, now = here.records.runs.get(run_id)
    here.check(record)
    return attempt.call_on_exit(
        here.records, here.keys, here.settings, record, now, owner=here.worker, holder=here.holder
    )
