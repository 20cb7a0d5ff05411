"""A run as seen when a worker decides about claiming it: the argument of :meth:`Runs.claim`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from dispatcher.runs.record import Record

T = TypeVar("T")


@dataclass(frozen=True)
class Snapshot:
    """A run's record at the server's clock ``now``, as read; or, with a ``kind``, as predicted.

    A prediction is what runs of that kind look like when accepted, and saves a round trip. Only its id is the run's
    own, and ``now`` has no meaning.
    """

    record: Record
    now: float
    kind: str = ""

    @property
    def predicted(self) -> bool:
        """Return True for a prediction."""
        return bool(self.kind)


class WrongPrediction(Exception):
    """The prediction of a run was wrong, and nothing was done. ``snapshot`` is the run as read."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__(snapshot.record.id)
        self.snapshot = snapshot


def start_with(snapshot: Snapshot, start: Callable[[Snapshot], T]) -> T:
    """Call ``start`` with a run, and again with the run as read if it was predicted wrongly; return the result.

    Args:
        snapshot: the run, as of :meth:`Runs.snapshot`.
        start: claims the run, and does nothing before that; what it raises passes through.
    """
    try:
        return start(snapshot)
    except WrongPrediction as wrong:
        snapshot = wrong.snapshot
    return start(snapshot)  # not in the handler above: a flow must find no exception being handled
