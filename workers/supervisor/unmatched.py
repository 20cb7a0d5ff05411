"""Changes that belong to no run that a supervisor knows: most of it was created a moment ago."""

from __future__ import annotations

import time
from collections.abc import Container, Mapping

from dispatcher.runs.attempt import shard_of

#: Seconds between two readings of the same run, at least: its handle is about to be stored.
SOON = 0.25

#: Seconds for which a change is remembered.
REMEMBER = 5.0


class UnmatchedChanges:
    """Keys of handles that nobody here knows, each with the run that it is said to belong to.

    Args:
        family: of the shards that a worker may hold; see :func:`~dispatcher.runs.attempt.family`.
    """

    def __init__(self, family: str) -> None:
        self._family = family
        self._heard: dict[str, tuple[str, float]] = {}  # key → run, and when it was heard, monotonic
        self._read_at = 0.0

    def __bool__(self) -> bool:
        return bool(self._heard)

    def note(self, changes: Mapping[str, str], held: Container[str]) -> None:
        """These have changed; what other shards than those held answer for is left to them."""
        at = time.monotonic()
        for key, run_id in changes.items():
            if run_id and shard_of(self._family, run_id) in held:
                self._heard.setdefault(key, (run_id, at))

    def due(self) -> set[str]:
        """Ids of the runs to be read now; none before that makes sense again."""
        at = time.monotonic()
        if at - self._read_at < SOON:
            return set()
        self._read_at = at
        return {run_id for run_id, _ in self._heard.values()}

    def met(self, keys: Container[str], settled: Container[str]) -> set[str]:
        """Those that are among ``keys`` by now. They are strangers no more; nor is what was heard long ago, or of runs
        that are ``settled``: nothing more will be known of them."""
        known = {key for key in self._heard if key in keys}
        long_ago = time.monotonic() - REMEMBER
        self._heard = {
            key: (run_id, at)
            for key, (run_id, at) in self._heard.items()
            if key not in known and run_id not in settled and at > long_ago
        }
        return known
