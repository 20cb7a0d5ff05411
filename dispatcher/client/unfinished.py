"""Words for the message of a wait that ended before its run: the run's state, and why it waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dispatcher.errors import DispatcherError
from dispatcher.runs.states import State

if TYPE_CHECKING:
    from dispatcher.client.run import Run
    from dispatcher.client.session import ClientSession
    from dispatcher.runs.record import Record


def standing(session: ClientSession, record: Record) -> str:
    """Return the state of a run and, if it waits, the reason.

    Raises:
        ServerUnavailable: the server can't be reached.
    """
    from dispatcher.inspection.deadlocks import stuck
    from dispatcher.inspection.queues import waits

    if record.state is State.QUEUED:
        why = session.missing_worker(record.spec.route) or stuck(session.records, [record.id])
        return f"it is {record.state}{'. ' + why if why else ''}"
    why = "" if record.terminal else waits(session.records, [record], session.records.runs.now())[record.id]
    return f"it is {record.state}{': ' + why if why else ''}"


def standing_of(run: Run[Any]) -> str:
    """Return what :func:`standing` does of a run as it is now; empty if it can't be read."""
    try:
        record, _ = run.session.records.runs.get(run.id)
        return f"run {run.id} of flow {record.spec.flow!r}: {standing(run.session, record)}"
    except DispatcherError:
        return ""
