"""Ends of this process's runs that are told before anybody waits for them.

A process hears of all its runs by one topic, from its first wait on. What it is told of a run that nobody waits for yet
is kept, so that a later wait needs no reading. Used by :mod:`dispatcher.client.watcher`, under its lock.
"""

from __future__ import annotations

from collections.abc import Mapping

from dispatcher.records.events import ends
from dispatcher.support.ids import ending, new_id, own_ending

#: Ends that are kept: a few megabytes at most. Runs whose end isn't kept any more are read.
MOST = 2000


class Ends:
    """The ends that were heard by ``topic``, and since when none was missed."""

    def __init__(self) -> None:
        self._ending = own_ending()
        self.topic = ends(self._ending)
        self._since: str | None = None  # the last id before it was certain: ids of one process ascend
        self._kept: dict[str, Mapping[str, bytes]] = {}

    @property
    def are_heard(self) -> bool:
        """Return True if the topic is listened to."""
        return self._since is not None

    def begin(self) -> None:
        """From now on nothing is missed: the topic was subscribed to, or it was again after a lost connection."""
        self._since = new_id()

    def stop(self) -> None:
        """The topic is left."""
        self._since = None
        self._kept.clear()

    def is_ours(self, run_id: str) -> bool:
        """Return True if this process has submitted a run."""
        return ending(run_id) == self._ending

    def keep(self, run_id: str, told: Mapping[str, bytes]) -> None:
        """Keep the end of a run that nobody waits for.

        Args:
            run_id: the run.
            told: its record, but for what never changes; nothing if it is to be read.
        """
        if self._since is None or not self.is_ours(run_id):
            return
        self._kept[run_id] = told
        if len(self._kept) > MOST:
            oldest = next(iter(self._kept))
            del self._kept[oldest]
            self._since = max(self._since, oldest)

    def take(self, run_id: str) -> Mapping[str, bytes] | None:
        """Return what was told of a run's end; None if nothing was. Nothing in it: it has ended, and is to be read."""
        return self._kept.pop(run_id, None)

    def will_be_heard(self, run_id: str) -> bool:
        """Return True if the end of a run is still to come, as far as this process would have heard of it."""
        return self._since is not None and self.is_ours(run_id) and run_id > self._since and run_id not in self._kept
