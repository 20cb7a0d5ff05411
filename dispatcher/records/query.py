"""Queries of runs: by what they have in common, and one as seen at a moment."""

from __future__ import annotations

from dataclasses import dataclass

from dispatcher.runs.record import Record
from dispatcher.runs.states import State


@dataclass(frozen=True, kw_only=True)
class Query:
    """The criteria of :meth:`Runs.find`; None asks nothing. ``since`` is in seconds since the epoch (creation)."""

    state: State | None = None
    label: str | None = None
    flow: str | None = None
    tag: str | None = None
    since: float | None = None

    def matches(self, record: Record) -> bool:
        """Return True if ``record`` is one of them."""
        spec = record.spec
        return (
            (self.state is None or record.state is self.state)
            and (self.label is None or self.label in spec.labels)
            and (self.flow is None or self.flow == spec.flow)
            and (self.tag is None or self.tag in spec.tags)
            and (self.since is None or record.created_at >= self.since)
        )
