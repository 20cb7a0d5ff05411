"""``memory://``: each flow runs in the submitting process, during its submit, through the same states and scripts.

For tests and debuggers. Nothing watches the process, so ``timeout`` and ``cancel`` can't end a flow here. The flow uses
the modules of this process, as they were imported, and not the files that a worker would get: a submit packs those, but
a file that is missing there isn't missed here.
"""

from __future__ import annotations

import os
import time

from dispatcher.client.session import ClientSession
from dispatcher.records.snapshot import Snapshot
from dispatcher.runs.record import Record
from dispatcher.runs.states import State
from dispatcher.runs.transitions import tick
from dispatcher.support.ids import new_id


def run_inline(session: ClientSession, record: Record) -> Record:
    """Run all attempts of a run, waiting between them as its retry policy says, and return its terminal record."""
    from dispatcher.runner.in_process import run_attempt

    owner, records = f"inline-{os.getpid()}", session.records
    records.runs.check = session.keys.check
    while not record.terminal:
        record, now = records.runs.get(record.id)
        if record.state is State.QUEUED:
            holder = f"{owner}-{new_id()}"
            run_attempt(records, session.keys, session.settings, Snapshot(record, now), owner=owner, holder=holder)
        elif record.state is State.AWAITING_RETRY:
            time.sleep(max(0.0, (record.due_at or now) - now))
            records.runs.update(record.id, tick)
        else:
            return record
    return record
