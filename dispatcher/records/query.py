"""Queries of runs, by properties of their records."""

from __future__ import annotations

from dataclasses import dataclass

from dispatcher.runs.record import Record
from dispatcher.runs.states import State


@dataclass(frozen=True, kw_only=True)
class Query:
    """The criteria of :meth:`Runs.find`; None matches every run.

    ``since`` is the earliest time of creation, in seconds since the epoch.
    """

    state: State | None = None
    label: str | None = None
    flow: str | None = None
    tag: str | None = None
    since: float | None = None

    def matches(self, record: Record) -> bool:
        """Return True if ``record`` meets all criteria."""
        spec = record.spec
        return (
            (self.state is None or record.state is self.state)
            and (self.label is None or self.label in spec.labels)
            and (self.flow is None or self.flow == spec.flow)
            and (self.tag is None or self.tag in spec.tags)
            and (self.since is None or record.created_at >= self.since)
        )
