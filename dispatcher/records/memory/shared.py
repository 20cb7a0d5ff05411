"""The parts that all nouns of the memory records share: one lock, one clock, the indexes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Shared:
    """One condition guards everything; whoever adds something that others may wait for notifies it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.changed = threading.Condition(threading.RLock())
        self.indexes: dict[str, dict[str, float]] = {}

    def wait_for(self, look: Callable[[], list[T]], block: float) -> list[T]:
        """Return what ``look`` finds, called under the lock; wait up to ``block`` seconds of real time for
        something."""
        end = time.monotonic() + block
        with self.changed:
            while not (found := look()):
                left = end - time.monotonic()
                if left <= 0:
                    break
                self.changed.wait(left)
            return found

    def place(self, index: str, run_id: str, score: float) -> None:
        """Put a run under an index, or move it there."""
        self.indexes.setdefault(index, {})[run_id] = score

    def leave(self, index: str, run_id: str) -> None:
        """Take a run from an index; an index without runs isn't kept."""
        held = self.indexes.get(index, {})
        held.pop(run_id, None)
        if not held:
            self.indexes.pop(index, None)
