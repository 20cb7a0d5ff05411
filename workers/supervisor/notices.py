"""Notices from other threads for a supervisor's next tick: changed infrastructure, and cancel requests."""

from __future__ import annotations

import threading
from collections.abc import Callable

from dispatcher.support.ids import is_run_id


class Notices:
    """Mailbox of notices. Safe across threads.

    Args:
        wake: called after each notice, so that a tick follows.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._changes: dict[str | None, str] = {}
        self._cancels: set[str] = set()

    def infrastructure_changed(self, key: str | None, run_id: str) -> None:
        """Note that infrastructure has changed.

        Args:
            key: the key of its handle; None stands for all infrastructure.
            run_id: its run; empty if that isn't known.
        """
        with self._lock:
            self._changes[key] = run_id or self._changes.get(key, "")
        self._wake()

    def cancel_requested(self, run_id: str) -> None:
        """Note that a run may have been cancelled. Anybody may publish that, so only its record decides."""
        if is_run_id(run_id):
            with self._lock:
                self._cancels.add(run_id)
            self._wake()

    def take_changes(self) -> dict[str | None, str]:
        """Remove and return the keys of changed handles, each with its run."""
        with self._lock:
            changes, self._changes = self._changes, {}
        return changes

    def take_cancels(self) -> set[str]:
        """Remove and return the ids of runs that may have been cancelled."""
        with self._lock:
            cancels, self._cancels = self._cancels, set()
        return cancels
