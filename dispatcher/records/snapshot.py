"""A snapshot of a run, from which a worker decides how to claim it. See :meth:`Runs.snapshot`."""

from __future__ import annotations

from dataclasses import dataclass

from dispatcher.runs.record import Record


class WrongGuess(Exception):
    """A run isn't what it was taken for; nothing was done. ``snapshot`` is how it stands."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__(snapshot.record.id)
        self.snapshot = snapshot


@dataclass(frozen=True)
class Snapshot:
    """A run at the server's clock ``now``, as read; or, with a ``kind``, as runs of that kind look when accepted.

    Such a guess saves a round trip: only its id is the run's own, and ``now`` says nothing.
    """

    record: Record
    now: float
    kind: str = ""
