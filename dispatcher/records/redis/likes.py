"""What runs of a kind look like as they are accepted, learned from those read: so that the next one needn't be.

A guess is safe, however wrong: the script that commits on it compares kind and version, and puts in the times.
"""

from __future__ import annotations

import secrets
import time

from dispatcher.records.reading import Look
from dispatcher.runs.record import Record
from dispatcher.runs.states import State

#: Stands for the time of acceptance in a guess. Random, so that nothing else in a change reads the same.
ACCEPTED = 1e9 + secrets.randbelow(10**9) + secrets.randbelow(10**6) / 1e6

#: Seconds for which the server's clock is told by ours.
_CLOCK = 30.0

_MOST = 1000


class Likes:
    """Kinds by what doorbells tell of their runs."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, Record]] = {}
        self._ahead = 0.0  # the server's clock, less our monotonic one
        self._until = 0.0

    def clock(self, now: float) -> float:
        """Note the server's clock, as just told."""
        begun = time.monotonic()
        self._ahead, self._until = now - begun, begun + _CLOCK
        return now

    def guess(self, run_id: str, like: str) -> Look | None:
        """How a run probably looks, if one like it is known."""
        known, now = self._known.get(like), time.monotonic()
        if known is None or now > self._until:
            return None
        kind, record = known
        return Look(record.but(id=run_id), now + self._ahead, kind)

    def learn(self, like: str, kind: str, record: Record) -> None:
        """Note a run as read. One that must have started within some time is never guessed: its time isn't known."""
        if kind and record.version == 1 and record.state is State.QUEUED and record.start_by is None:
            if len(self._known) >= _MOST:
                self._known.clear()
            at = ACCEPTED
            self._known[like] = kind, record.but(created_at=at, queued_at=at, rung_at=at)

    def forget(self, kind: str) -> None:
        """A guess from it was wrong."""
        self._known = {like: known for like, known in self._known.items() if known[0] != kind}
