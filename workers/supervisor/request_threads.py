"""Thread pool for API requests, so that a slow call never delays a supervisor's loop.

An executor of :mod:`concurrent.futures` doesn't serve here: the interpreter joins its threads at exit, so that a
request that hangs would keep the worker from ending.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

#: Kind of a request, and its object. Requests with the same key never run concurrently.
Key = tuple[Any, ...]


class RequestThreads:
    """Runs calls on daemon threads, started on demand; results are collected on the supervisor's thread.

    Args:
        count: the most threads.
        wake: called on such a thread when a result is ready.
    """

    def __init__(self, count: int, wake: Callable[[], None]) -> None:
        self._count = count
        self._wake = wake
        self._pending: set[Key] = set()
        self._calls: queue.SimpleQueue[tuple[Key, Callable[[], Any]] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[Key, Any]] = queue.SimpleQueue()
        self._threads = 0

    def is_pending(self, key: Key) -> bool:
        """Return True if a call with this key runs, or its result wasn't collected yet."""
        return key in self._pending

    def submit(self, key: Key, call: Callable[[], Any]) -> bool:
        """Have a thread call ``call``. Return False, and do nothing, while one with the same key is pending."""
        if key in self._pending:
            return False
        self._pending.add(key)
        self._calls.put((key, call))
        if self._threads < min(self._count, len(self._pending)):
            self._threads += 1
            threading.Thread(target=self._work, name="dispatcher-request", daemon=True).start()
        return True

    def results(self) -> list[tuple[Key, Any]]:
        """Collect the calls that have ended: their keys, each with the result or the exception."""
        results: list[tuple[Key, Any]] = []
        while True:
            try:
                results.append(self._results.get_nowait())
            except queue.Empty:
                self._pending.difference_update(key for key, _ in results)
                return results

    def shutdown(self) -> None:
        """Let idle threads end; running calls aren't waited for."""
        for _ in range(self._threads):
            self._calls.put(None)

    def _work(self) -> None:
        while (item := self._calls.get()) is not None:
            key, call = item
            try:
                result = call()
            except Exception as error:
                result = error
            self._results.put((key, result))
            self._wake()
