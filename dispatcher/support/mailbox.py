"""A queue between threads whose ``get`` keeps its timeout even if signals interrupt it."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """An unbounded queue between threads. ``put`` is safe in a signal handler.

    In Python 3.11 and 3.12, ``queue.SimpleQueue`` waits for ever if a signal arrives as its timeout ends. A put of
    ``queue.Queue`` or ``threading.Event`` may hang in a signal handler.
    """

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._empty = threading.Lock()  # held while the queue seems empty
        self._empty.acquire()

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self._items)

    def put(self, item: T) -> None:
        """Add ``item``. Never waits."""
        self._items.append(item)
        self._wake()

    def get(self, timeout: float | None = None) -> T:
        """Remove and return the oldest item.

        Args:
            timeout: seconds to wait for one; None waits without end.

        Raises:
            queue.Empty: no item came in time.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                item = self._items.popleft()
            except IndexError:
                if not self._empty.acquire(timeout=_remaining(until)):
                    raise queue.Empty from None
            else:
                if self._items:
                    self._wake()  # another reader
                return item

    def _wake(self) -> None:
        with suppress(RuntimeError):  # no reader waits
            self._empty.release()


def _remaining(until: float | None) -> float:
    """Return the remaining seconds in the form that ``Lock.acquire`` takes."""
    return -1 if until is None else min(max(until - time.monotonic(), 0.0), threading.TIMEOUT_MAX)
