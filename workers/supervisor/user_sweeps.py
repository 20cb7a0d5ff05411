"""Periodic sweeps of the attempts' Redis users: every so often, and after an outage, since the server may lose them."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable

from dispatcher.runs.record import Record
from workers.attempt_users import AttemptUsers


class UserSweeps:
    """Sweeps of the shards held.

    Args:
        users: creates and removes users; None if attempts have none.
        family: of the shards.
        every: seconds between two sweeps.
    """

    def __init__(self, users: AttemptUsers | None, family: str, *, every: float) -> None:
        self._users = users
        self._family = family
        self._every = every
        self._next = 0.0

    def sweep(self, records: Iterable[Record], shards: Collection[str]) -> None:
        """Sweep, if a sweep is due.

        Raises:
            ServerUnavailable: no answer, or the worker may not.
        """
        if self._users is not None and shards and time.monotonic() >= self._next:
            self._users.sweep(records, self._family, shards)
            self._next = time.monotonic() + self._every

    def expedite(self) -> None:
        """Sweep in the next round."""
        self._next = 0.0
