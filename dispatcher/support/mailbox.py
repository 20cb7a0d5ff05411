"""A queue whose ``get`` keeps its timeout though signals interrupt it."""

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

    ``queue.SimpleQueue`` waits for ever in Python 3.11 and 3.12 where a signal arrives as its timeout ends; the puts of
    ``queue.Queue`` and ``threading.Event`` may hang in a signal handler.
    """

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._empty = threading.Lock()  # held while nothing is known to be there
        self._empty.acquire()

    def __len__(self) -> int:
        """Return how many items are there."""
        return len(self._items)

    def put(self, item: T) -> None:
        """Add ``item``; never waits."""
        self._items.append(item)
        self._tell()

    def get(self, timeout: float | None = None) -> T:
        """The oldest item.

        Args:
            timeout: seconds to wait for one; None: without end.

        Raises:
            queue.Empty: there was none.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                item = self._items.popleft()
            except IndexError:
                if not self._empty.acquire(timeout=_left(until)):
                    raise queue.Empty from None
            else:
                if self._items:
                    self._tell()  # another reader
                return item

    def _tell(self) -> None:
        with suppress(RuntimeError):  # nobody waits
            self._empty.release()


def _left(until: float | None) -> float:
    """Seconds left, as ``Lock.acquire`` takes them."""
    return -1 if until is None else min(max(until - time.monotonic(), 0.0), threading.TIMEOUT_MAX)
