"""Changes heard from other threads between two ticks of a supervisor: changed infrastructure, and cancels."""

from __future__ import annotations

import threading
from collections.abc import Callable

from dispatcher.support.ids import is_run_id


class Notices:
    """Collects what is heard, until it is taken. Safe across threads.

    Args:
        wake: called where a tick would find something.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._changed: dict[str | None, str] = {}
        self._cancelled: set[str] = set()

    def heard(self, key: str | None, run_id: str) -> None:
        """Infrastructure has changed: the key of its handle, None for any, and its run, empty if that isn't known."""
        with self._lock:
            self._changed[key] = run_id or self._changed.get(key, "")
        self._wake()

    def cancelled(self, run_id: str) -> None:
        """Somebody says that a run is to be cancelled. Whoever may publish can say so: the record alone decides."""
        if is_run_id(run_id):
            with self._lock:
                self._cancelled.add(run_id)
            self._wake()

    def take(self) -> dict[str | None, str]:
        """Keys of handles that have changed, each with its run."""
        with self._lock:
            taken, self._changed = self._changed, {}
        return taken

    def take_cancelled(self) -> set[str]:
        """Ids of runs that are said to be cancelled."""
        with self._lock:
            taken, self._cancelled = self._cancelled, set()
        return taken
