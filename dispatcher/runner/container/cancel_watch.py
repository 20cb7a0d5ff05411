"""Watch for a cancel in the run's record, in a container that isn't alone in its pod.

The deletion of such a pod gives all its containers the grace that the flow may need, and one that ignores SIGTERM uses
all of it. So the flow is stopped first, by this watch, and the pod is deleted afterwards.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping

from dispatcher.errors import DispatcherError
from dispatcher.records.base import Records
from dispatcher.runner.container.assignment import Assignment
from dispatcher.runs.states import State

#: The variable with the seconds between two reads; without it nothing is watched.
CANCEL_POLL = "DISPATCHER__RUN__CANCEL_POLL"


def watch_for_cancel(
    records: Records, assignment: Assignment, variables: Mapping[str, str], cancelled: Callable[[], None]
) -> None:
    """Start a thread that calls ``cancelled`` once the attempt is being cancelled."""
    interval = float(variables.get(CANCEL_POLL) or 0.0)

    def watch() -> None:
        while True:
            time.sleep(interval)
            with contextlib.suppress(DispatcherError):
                record, _ = records.runs.get(assignment.run_id)
                if record.state is State.CANCELLING and record.attempt == assignment.attempt:
                    return cancelled()

    if interval:
        threading.Thread(target=watch, name="dispatcher-cancel", daemon=True).start()
