"""The client's answers on queues and on one run's wait, gathered from the records."""

from __future__ import annotations

from dataclasses import dataclass

from dispatcher.errors import Refused
from dispatcher.inspection.explain import explain, serving
from dispatcher.inspection.waiting_parents import full
from dispatcher.records.base import Records
from dispatcher.records.workers import WorkerInfo
from dispatcher.runs import indexes
from dispatcher.runs.routing import Route
from dispatcher.runs.states import State
from dispatcher.runs.transitions import tick


@dataclass(frozen=True, kw_only=True)
class QueueInfo:
    """A queue: its name and route, how many runs wait in it, when it was last used (seconds since the epoch), and the
    live workers that serve it."""

    name: str
    route: Route
    waiting: int
    last_used: float
    workers: tuple[WorkerInfo, ...]


def queues(records: Records) -> list[QueueInfo]:
    """The queues known, by name."""
    live = records.workers.live()
    return [
        QueueInfo(
            name=name,
            route=route,
            waiting=records.runs.count(indexes.waiting(name)),
            last_used=used,
            workers=tuple(serving(route, live)),
        )
        for name, (route, used) in sorted(records.queues.known().items())
    ]


def explained(records: Records, run_id: str) -> list[str]:
    """Sentences about a run; where no worker lives, what the clock alone does is done first (``start_within``).

    Raises:
        UnknownRun: there is no such run.
    """
    record, now = records.runs.get(run_id)
    workers = records.workers.live()
    due = indexes.next_due(record)
    if due is not None and due <= now and not workers:
        try:
            record = records.runs.update(run_id, tick, record=record, now=now)
        except Refused:
            record, now = records.runs.get(run_id)
    behind = records.runs.count(indexes.waiting(record.spec.route.queue)) if not record.terminal else None
    known, stands = records.queues.known(), None
    if record.state is State.QUEUED:
        stands = full(records, record.spec.route, serving(record.spec.route, workers))
    return explain(record, now=now, workers=workers, queues=known, depth=behind, full=stands)
