"""A few threads that make requests for a supervisor, so that none of them is ever in the way of what it sees."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

#: What is done, for whom: no two requests of one key are under way at once.
Key = tuple[Any, ...]


class RequestThreads:
    """Runs calls on daemon threads, started as they are needed; results are taken on the supervisor's own thread.

    Args:
        count: how many at most.
        wake: called, on such a thread, when a result is there.
    """

    def __init__(self, count: int, wake: Callable[[], None]) -> None:
        self._count = count
        self._wake = wake
        self._busy: set[Key] = set()
        self._asked: queue.SimpleQueue[tuple[Key, Callable[[], Any]] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[Key, Any]] = queue.SimpleQueue()
        self._threads = 0

    def busy(self, key: Key) -> bool:
        """Return True if a call of this key is under way, or its result wasn't taken yet."""
        return key in self._busy

    def give(self, key: Key, call: Callable[[], Any]) -> bool:
        """Have a thread call it; False if one of this key is under way."""
        if key in self._busy:
            return False
        self._busy.add(key)
        self._asked.put((key, call))
        if self._threads < min(self._count, len(self._busy)):
            self._threads += 1
            threading.Thread(target=self._work, name="dispatcher-hand", daemon=True).start()
        return True

    def done(self) -> list[tuple[Key, Any]]:
        """Return what came of calls since the last time: keys, each with a result or an exception."""
        found: list[tuple[Key, Any]] = []
        while True:
            try:
                found.append(self._done.get_nowait())
            except queue.Empty:
                self._busy.difference_update(key for key, _ in found)
                return found

    def stop(self) -> None:
        """Let threads end; calls under way aren't waited for."""
        for _ in range(self._threads):
            self._asked.put(None)

    def _work(self) -> None:
        while (asked := self._asked.get()) is not None:
            key, call = asked
            try:
                result = call()
            except Exception as error:
                result = error
            self._done.put((key, result))
            self._wake()
