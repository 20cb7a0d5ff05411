"""``memory://``: each flow runs in the submitting process, during its submit, through the same states and scripts.

For tests and debuggers. Nothing watches the process, so ``timeout`` and ``cancel`` can't end a flow here.
"""

from __future__ import annotations

import os
import time

from dispatcher.client.session import Link
from dispatcher.records.snapshot import Snapshot
from dispatcher.runs.record import Record
from dispatcher.runs.states import State
from dispatcher.runs.transitions import tick
from dispatcher.support.ids import new_id


def run_here(link: Link, record: Record) -> Record:
    """Run all attempts of ``record``, waiting between them as its policy says; the terminal record."""
    from dispatcher.runner.in_process import run_attempt

    owner = f"inline-{os.getpid()}"
    link.records.runs.check = link.keys.check
    while not record.terminal:
        record, now = link.records.runs.get(record.id)
        if record.state is State.QUEUED:
            holder = f"{owner}-{new_id()}"
            run_attempt(link.records, link.keys, link.settings, Snapshot(record, now), owner=owner, holder=holder)
        elif record.state is State.AWAITING_RETRY:
            time.sleep(max(0.0, (record.due_at or now) - now))
            link.records.runs.update(record.id, tick)
        else:
            return record
    return record
