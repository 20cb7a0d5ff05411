"""A change from one record of a run to the next, with its events and its doorbell.

Made by :mod:`dispatcher.runs.transitions`, committed by the records.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from dispatcher.runs.events import Event, EventKind
from dispatcher.runs.record import Record
from dispatcher.runs.routing import Route
from dispatcher.runs.use import Use

#: The Celery tasks that a doorbell names.
EXECUTE = "dispatcher.execute"
CALL_ON_EXIT = "dispatcher.call_on_exit"


@dataclass(frozen=True, kw_only=True)
class Ring:
    """A doorbell to ring: ``task`` on the run's queue. ``first`` puts it before all that wait there."""

    run_id: str
    task: str
    flow: str
    route: Route
    first: bool = False


@dataclass(frozen=True, kw_only=True)
class Change:
    """One atomic step: applied only if the record's version is still ``before.version`` (None: there is none)."""

    before: Record | None
    after: Record
    events: tuple[Event, ...] = ()
    ring: Ring | None = None
    use: Use | None = None  #: how this step uses the signed spec

    def then(self, following: Change | None) -> Change:
        """Return this step and the following one as one."""
        if following is None:
            return self
        events, ring = (*self.events, *following.events), following.ring or self.ring
        use = self.use if following.use is None else following.use.after(self.use)
        return Change(before=self.before, after=following.after, events=events, ring=ring, use=use)

    def marked(self, nonce: str) -> Change:
        """Return the same step with a nonce, by which its author recognises it in the record."""
        return replace(self, after=self.after.but(change=nonce))


def event(record: Record, kind: EventKind, now: float, **data: Any) -> Event:
    """Return an event of the record's attempt in its current state."""
    spec = record.spec
    return Event(
        run_id=record.id,
        attempt=record.attempt,
        kind=kind,
        state=record.state,
        time=now,
        flow=spec.flow,
        labels=spec.labels,
        data=data,
    )


def ring_for(record: Record, task: str = EXECUTE) -> Ring:
    """Return the doorbell of ``record``; an ``on_exit`` goes before all runs that wait."""
    spec = record.spec
    return Ring(run_id=record.id, task=task, flow=spec.flow, route=spec.route, first=task == CALL_ON_EXIT)
