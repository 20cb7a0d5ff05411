"""A run as seen when a worker decides about claiming it: the argument of :meth:`Runs.claim`."""

from __future__ import annotations

from dataclasses import dataclass

from dispatcher.runs.record import Record


@dataclass(frozen=True)
class Snapshot:
    """A run's record at the server's clock ``now``, as read; or, with a ``kind``, as predicted.

    A prediction is what runs of that kind look like when accepted, and saves a round trip. Only its id is the run's
    own, and ``now`` has no meaning.
    """

    record: Record
    now: float
    kind: str = ""


class WrongGuess(Exception):
    """The prediction of a run was wrong, and nothing was done. ``snapshot`` is the run as read."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__(snapshot.record.id)
        self.snapshot = snapshot
