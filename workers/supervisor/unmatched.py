"""Changes of infrastructure that match no known run yet. Usually their handle is about to be stored."""

from __future__ import annotations

import time
from collections.abc import Container, Mapping

from dispatcher.runs.attempt import shard_of

#: Seconds between two readings of the runs concerned, at least.
READ_INTERVAL = 0.25

#: Seconds for which a change is remembered.
REMEMBER = 5.0


class UnmatchedChanges:
    """Keys of handles that no known run has, each with the run that the backend reports.

    Args:
        family: of the shards that a worker may hold; see :func:`~dispatcher.runs.attempt.family`.
    """

    def __init__(self, family: str) -> None:
        self._family = family
        self._changes: dict[str, tuple[str, float]] = {}  # key → its run, and the monotonic time of the change
        self._read_at = 0.0

    def __bool__(self) -> bool:
        return bool(self._changes)

    def add(self, changes: Mapping[str, str], held: Container[str]) -> None:
        """Add changes, key → run; those of shards that aren't ``held`` are left to their holders."""
        at = time.monotonic()
        for key, run_id in changes.items():
            if run_id and shard_of(self._family, run_id) in held:
                self._changes.setdefault(key, (run_id, at))

    def due(self) -> set[str]:
        """Return the ids of the runs to read now; none within :data:`READ_INTERVAL` of the last time."""
        at = time.monotonic()
        if at - self._read_at < READ_INTERVAL:
            return set()
        self._read_at = at
        return {run_id for run_id, _ in self._changes.values()}

    def match(self, keys: Container[str], settled: Container[str]) -> set[str]:
        """Remove and return the changes whose key is among ``keys`` by now.

        Changes that will never match are removed, too: old ones, and those of ``settled`` runs.
        """
        matched = {key for key in self._changes if key in keys}
        oldest = time.monotonic() - REMEMBER
        self._changes = {
            key: (run_id, at)
            for key, (run_id, at) in self._changes.items()
            if key not in matched and run_id not in settled and at > oldest
        }
        return matched
