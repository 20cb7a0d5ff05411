"""Runs that wait for runs which they have submitted, in a pool where nobody else is: neither goes on.

Who submitted a run stands in its signed spec (:attr:`~dispatcher.runs.spec.Spec.parent`); whether that one waits for it
is known to its flow alone. So this is only ever said, by ``explain`` and to flows that wait; nothing is done about it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dispatcher.errors import DispatcherError
from dispatcher.records.base import Records
from dispatcher.records.workers import WorkerInfo
from dispatcher.runs import indexes
from dispatcher.runs.context import context
from dispatcher.runs.record import Record
from dispatcher.runs.routing import Route
from dispatcher.runs.states import State
from dispatcher.support.escaping import escaped

#: Seconds of waiting before the first look, and between two later ones at most.
FIRST, LONGEST = 5.0, 60.0

#: Most runs that one look reads: of those waited for, of a queue, and of those that hold processes.
MOST = 500

#: Runs that are named in one sentence.
NAMED = 5

#: What to do about it.
REMEDY = (
    "Remedy: more processes (`dispatcher worker --concurrency N`); or, for the runs that are waited for, a label with "
    "workers of its own; or submit them, end, and gather their results in a later run."
)

_told: tuple[str | None, int | None] = None, None  # the attempt to whose flow it was said last, in this process


@dataclass(frozen=True)
class Full:
    """No process is free for a run: all that serve its queue are held by runs which have submitted runs themselves.

    ``holders`` are those runs, ``queue`` is the one in which theirs wait.
    """

    queue: str
    holders: tuple[Record, ...]

    def sentences(self, record: Record | None = None) -> list[str]:
        """Return what there is to say of ``record`` among those that wait."""
        parent = "" if record is None else record.spec.parent
        named = [
            f"run {one.id} (flow {one.spec.flow!r}{', which submitted it' if one.id == parent else ''})"
            for one in sorted(self.holders, key=lambda one: one.id != parent)[:NAMED]
        ]
        more = f" and {len(self.holders) - NAMED} more" if len(self.holders) > NAMED else ""
        return [
            f"No process is free for it: all {len(self.holders)} that serve its queue are held by runs whose own runs "
            f"wait there: {', '.join(named)}{more}. As long as they wait for these, none of them goes on.",
            REMEDY,
        ]


def full(records: Records, route: Route, workers: Sequence[WorkerInfo]) -> Full | None:
    """Return who holds all processes that serve ``route``, if everyone of them waits for a run there, as far as is
    known.

    Args:
        records: where.
        route: of the run that waits.
        workers: those that live and serve it.
    """
    ids: list[str] = []
    for worker in workers:
        held = [run_id for run_id, _ in records.runs.members(indexes.owned(worker.id), limit=MOST)]
        if len(held) < worker.concurrency:
            return None
        ids += held
    if not ids or len(ids) > MOST:
        return None
    holders = [record for record in records.runs.get_many(ids) if record is not None]
    waiting = [run_id for run_id, _ in records.runs.members(indexes.waiting(route.queue), limit=MOST)]
    below = [*holders, *(record for record in records.runs.get_many(waiting) if record is not None)]
    parents = {record.spec.parent for record in below}
    return Full(route.queue, tuple(holders)) if parents.issuperset(record.id for record in holders) else None


class Lookout:
    """Tells a flow once, in its log, that what it waits for can't start while it waits.

    Make it where the wait begins, by :meth:`here`; look from any thread.
    """

    def __init__(self, records: Records, clock: Callable[[], float] = time.monotonic) -> None:
        self._records = records
        self._clock = clock
        self._attempt = context.run_id, context.attempt
        self._pause = FIRST
        self._next = clock() + FIRST

    @classmethod
    def here(cls, records: Records) -> Lookout | None:
        """One for a wait that begins now; None outside of flows, and where this flow was told already."""
        return None if context.run_id is None or _told == (context.run_id, context.attempt) else cls(records)

    def look(self, run_ids: Sequence[str]) -> None:
        """If it is time to, look at what is waited for. A server that is away is asked again later."""
        global _told  # noqa: PLW0603 - one flow at a time runs in a process
        if self._clock() < self._next or _told == self._attempt:
            return
        self._pause = min(2 * self._pause, LONGEST)
        self._next = self._clock() + self._pause
        try:
            said = stuck(self._records, run_ids)
        except DispatcherError:
            return
        if said:
            _told = self._attempt
            context.logger.warning("%s", said)


def stuck(records: Records, run_ids: Sequence[str]) -> str:
    """Say which of these runs waits behind those that wait for runs, and what to do; empty if none does."""
    queued = [
        record
        for record in records.runs.get_many(run_ids[:MOST])
        if record is not None and record.state is State.QUEUED
    ]
    if not queued:
        return ""
    live = records.workers.live()
    for route in dict.fromkeys(record.spec.route for record in queued):
        found = full(records, route, [worker for worker in live if worker.offer.serves(route)])
        if found is not None:
            record = next(record for record in queued if record.spec.route == route)
            return escaped(f"run {record.id} is waited for, and can't start. {' '.join(found.sentences(record))}")
    return ""
