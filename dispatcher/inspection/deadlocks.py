"""Deadlocks of a full pool: runs that hold all processes and wait for runs which they have submitted.

A signed spec names the submitting run (:attr:`~dispatcher.runs.spec.Spec.parent`), but only its flow knows whether it
waits. So the deadlock is only reported, by ``explain`` and in the logs of waiting flows; nothing is ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dispatcher.errors import DispatcherError
from dispatcher.records.base import Records
from dispatcher.records.workers import WorkerInfo, serving
from dispatcher.runs import indexes
from dispatcher.runs.context import context
from dispatcher.runs.record import Record
from dispatcher.runs.routing import Route
from dispatcher.runs.states import State
from dispatcher.support.escaping import escaped

#: Seconds of waiting before the first check, and the most between two later ones.
FIRST_CHECK, MAX_INTERVAL = 5.0, 60.0

#: Most runs that one check reads: of the awaited ones, of a queue, and of those that hold processes.
MAX_READ = 500

#: Most runs that one sentence names.
MAX_NAMED = 5

#: The advice behind every report.
REMEDY = (
    "Remedy: more processes (`dispatcher worker --concurrency N`); or, for the awaited runs, a label with "
    "workers of its own; or submit them, end, and gather their results in a later run."
)

_warned: tuple[str | None, int | None] = None, None  # the last attempt of this process whose flow was warned


@dataclass(frozen=True)
class Deadlock:
    """All processes that serve a queue are held by runs whose own runs wait in it.

    ``holders`` are the runs that hold the processes.
    """

    holders: tuple[Record, ...]

    def sentences(self, record: Record | None = None) -> list[str]:
        """Return the report for ``record``, one of the waiting runs."""
        parent = "" if record is None else record.spec.parent
        named = [
            f"run {holder.id} (flow {holder.spec.flow!r}{', which submitted it' if holder.id == parent else ''})"
            for holder in sorted(self.holders, key=lambda holder: holder.id != parent)[:MAX_NAMED]
        ]
        more = f" and {len(self.holders) - MAX_NAMED} more" if len(self.holders) > MAX_NAMED else ""
        return [
            f"No process is free for it: all {len(self.holders)} that serve its queue are held by runs whose own runs "
            f"wait there: {', '.join(named)}{more}. None of them can go on while it waits for these.",
            REMEDY,
        ]


def find_deadlock(records: Records, route: Route, workers: Sequence[WorkerInfo]) -> Deadlock | None:
    """Return the runs that hold all processes of ``route``, if each of them has submitted a run that waits there.

    Args:
        records: the records to read.
        route: the route of the waiting run.
        workers: the live workers that serve it.
    """
    ids: list[str] = []
    for worker in workers:
        held = [run_id for run_id, _ in records.runs.members(indexes.owned(worker.id), limit=MAX_READ)]
        if len(held) < worker.concurrency:
            return None
        ids += held
    if not ids or len(ids) > MAX_READ:
        return None
    holders = [record for record in records.runs.get_many(ids) if record is not None]
    waiting = [run_id for run_id, _ in records.runs.members(indexes.waiting(route.queue), limit=MAX_READ)]
    candidates = [*holders, *(record for record in records.runs.get_many(waiting) if record is not None)]
    parents = {record.spec.parent for record in candidates}
    return Deadlock(tuple(holders)) if parents.issuperset(record.id for record in holders) else None


class Lookout:
    """Warns a flow once, in its log, that the runs it waits for can't start while it waits.

    Create it where the wait begins, by :meth:`here`; :meth:`look` may be called from any thread.
    """

    def __init__(self, records: Records, clock: Callable[[], float] = time.monotonic) -> None:
        self._records = records
        self._clock = clock
        self._attempt = context.run_id, context.attempt
        self._pause = FIRST_CHECK
        self._next = clock() + FIRST_CHECK

    @classmethod
    def here(cls, records: Records) -> Lookout | None:
        """Return a lookout for a wait that begins now; None outside of flows, and if this flow was warned already."""
        return None if context.run_id is None or _warned == (context.run_id, context.attempt) else cls(records)

    def look(self, run_ids: Sequence[str]) -> None:
        """Check the awaited runs, if a check is due. Where the server is away, the next check tries again."""
        global _warned  # noqa: PLW0603 - one flow at a time runs in a process
        if self._clock() < self._next or _warned == self._attempt:
            return
        self._pause = min(2 * self._pause, MAX_INTERVAL)
        self._next = self._clock() + self._pause
        try:
            report = stuck(self._records, run_ids)
        except DispatcherError:
            return
        if report:
            _warned = self._attempt
            context.logger.warning("%s", report)


def stuck(records: Records, run_ids: Sequence[str]) -> str:
    """Report the first of these runs that waits in such a deadlock, with advice; empty if none does."""
    queued = [
        record
        for record in records.runs.get_many(run_ids[:MAX_READ])
        if record is not None and record.state is State.QUEUED
    ]
    if not queued:
        return ""
    live = records.workers.live()
    for route in dict.fromkeys(record.spec.route for record in queued):
        deadlock = find_deadlock(records, route, serving(route, live))
        if deadlock is not None:
            record = next(record for record in queued if record.spec.route == route)
            return escaped(f"run {record.id} is awaited and can't start. {' '.join(deadlock.sentences(record))}")
    return ""
