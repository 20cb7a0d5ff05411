"""Queues and the state of one run, gathered from the records. Used by the client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dispatcher.errors import Refused
from dispatcher.inspection.deadlocks import find_deadlock
from dispatcher.inspection.explain import explain
from dispatcher.inspection.holders import owned_by_shard, shard_holders
from dispatcher.inspection.waiting import why_waiting
from dispatcher.records.base import Records
from dispatcher.records.workers import WorkerInfo, serving
from dispatcher.runs import indexes
from dispatcher.runs.record import Record
from dispatcher.runs.routing import Route
from dispatcher.runs.states import State
from dispatcher.runs.transitions import tick


@dataclass(frozen=True, kw_only=True)
class QueueInfo:
    """A queue.

    ``waiting`` is the number of runs that wait in it, ``last_used`` is in seconds since the epoch, and ``workers`` are
    the live workers that serve it.
    """

    name: str
    route: Route
    waiting: int
    last_used: float
    workers: tuple[WorkerInfo, ...]


def queues(records: Records) -> list[QueueInfo]:
    """Return the known queues, sorted by name."""
    live = records.workers.live()
    return [
        QueueInfo(
            name=name,
            route=route,
            waiting=records.runs.count(indexes.waiting(name)),
            last_used=last_used,
            workers=tuple(serving(route, live)),
        )
        for name, (route, last_used) in sorted(records.queues.known().items())
    ]


def waits(
    records: Records, runs: Sequence[Record], now: float, *, holders: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return why runs wait, by id, in a few words; empty for one that doesn't. Reads the live workers if one is queued,
    or is watched by a worker.

    Args:
        records: the workers.
        runs: the runs, as read.
        now: the server's clock, in seconds since the epoch.
        holders: of the shards that own these runs, as :func:`shard_holders` returns them; None: they are read.
    """
    if not any(record.state is State.QUEUED or owned_by_shard(record) for record in runs):
        return {record.id: why_waiting(record, now=now) for record in runs}
    workers = records.workers.live()
    live = {worker.id for worker in workers}
    held = shard_holders(records, runs) if holders is None else holders
    watched = {shard: holder for shard, holder in held.items() if holder in live}
    return {record.id: why_waiting(record, now=now, workers=workers, holders=watched) for record in runs}


def explained(records: Records, run_id: str) -> list[str]:
    """Return sentences about a run. Where no worker lives, apply a ``start_within`` that is over first.

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
    depth = records.runs.count(indexes.waiting(record.spec.route.queue)) if not record.terminal else None
    known_queues, deadlock = records.queues.known(), None
    if record.state is State.QUEUED:
        deadlock = find_deadlock(records, record.spec.route, serving(record.spec.route, workers))
    return explain(
        record,
        now=now,
        workers=workers,
        queues=known_queues,
        depth=depth,
        deadlock=deadlock,
        holders=shard_holders(records, [record]),
    )
