"""The state that all memory records share: one lock, one clock, the indexes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class SharedState:
    """Lock, clock and indexes. The condition guards everything; a writer notifies it of entries others wait for."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.changed = threading.Condition(threading.RLock())
        self.indexes: dict[str, dict[str, float]] = {}

    def wait_for(self, read: Callable[[], list[T]], block: float) -> list[T]:
        """Return the entries that ``read`` returns; wait up to ``block`` seconds of real time for the first.

        ``read`` is called with the lock held.
        """
        end = time.monotonic() + block
        with self.changed:
            while not (entries := read()):
                left = end - time.monotonic()
                if left <= 0:
                    break
                self.changed.wait(left)
            return entries

    def place(self, index: str, run_id: str, score: float) -> None:
        """Add a run to an index, or move it there."""
        self.indexes.setdefault(index, {})[run_id] = score

    def leave(self, index: str, run_id: str) -> None:
        """Remove a run from an index, and the index if it is empty then."""
        members = self.indexes.get(index, {})
        members.pop(run_id, None)
        if not members:
            self.indexes.pop(index, None)
