"""The thread that listens: cancels of what this worker holds, and new queues."""

from __future__ import annotations

import time
from collections.abc import Callable

from dispatcher.records.base import Records
from dispatcher.records.hearing import Listener
from workers.queues import Queues

NEW_QUEUE = "queues"


class Ears:
    """Hears of things early; what it misses is found by the looks of others.

    Args:
        owner: the worker's id.
        queues: told what is known.
        every: seconds between two looks for new queues.
        wake: called when something of ours may have changed.
    """

    def __init__(
        self,
        open_records: Callable[[], Records],
        *,
        owner: str,
        queues: Queues,
        every: float,
        wake: Callable[[], None],
    ) -> None:
        self._open = open_records
        self._topics = (f"owner:{owner}", NEW_QUEUE)
        self._queues = queues
        self._every = every
        self._wake = wake
        self._records: Records | None = None
        self._listener: Listener | None = None
        self._next = 0.0

    def tick(self) -> float:
        """Listen until the next look for queues; never waits elsewhere."""
        if self._records is None:
            self._records = self._open()
        if self._listener is None:
            listener = self._records.events.listen()
            listener.watch(self._topics)
            self._listener = listener
        if time.monotonic() >= self._next:
            self._queues.learn(self._records.queues.known())
            self._next = time.monotonic() + self._every
        heard = self._listener.get(max(self._next - time.monotonic(), 0.0))
        if heard is not None:
            if heard[0] != NEW_QUEUE:
                self._wake()
            if heard[0] in {NEW_QUEUE, ""}:
                self._next = 0.0
        return 0.0

    def close(self) -> None:
        """Leave."""
        if self._listener is not None:
            self._listener.close()
        if self._records is not None:
            self._records.close()
