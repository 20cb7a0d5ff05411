"""Ends of this process's own runs: what was told of them, so that a wait for one needs no reading.

A process hears of all its runs by one topic, from its first wait on. Used by :mod:`dispatcher.client.watcher`, under
its lock.
"""

from __future__ import annotations

from collections.abc import Mapping

from dispatcher.records.events import ends_topic
from dispatcher.support.ids import ending, is_run_id, new_id, own_ending

#: Ends that are remembered, and of each most fields and bytes of what was told. Runs of which more was told, or whose
#: end isn't remembered any more, are read. Anybody may tell of a run: this bounds what they make a process keep.
MOST = 2000
MOST_FIELDS, MOST_BYTES = 64, 8192


class Ends:
    """The ends that were heard by ``topic``, and since when none was missed."""

    def __init__(self) -> None:
        self._ending = own_ending()
        self.topic = ends_topic(self._ending)
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
        """Remember that a run has ended. Where two notices disagree about it, the record tells.

        Args:
            run_id: the run, as somebody calls it.
            told: its record, but for what never changes; nothing if a later wait is to read it.
        """
        if self._since is None or not is_run_id(run_id) or not self.is_ours(run_id):
            return
        small = len(told) <= MOST_FIELDS and sum(len(name) + len(value) for name, value in told.items()) <= MOST_BYTES
        before = self._kept.setdefault(run_id, told if small else {})
        if before and told and told != before:
            self._kept[run_id] = {}
        if len(self._kept) > MOST:
            oldest = next(iter(self._kept))
            del self._kept[oldest]
            self._since = max(self._since, oldest)

    def take(self, run_id: str) -> Mapping[str, bytes] | None:
        """Return what was told of a run's end, for who waits first; nothing if the run is to be read."""
        told = self._kept.get(run_id)
        if told:
            self._kept[run_id] = {}
        return told

    def will_be_heard(self, run_id: str) -> bool:
        """Return True if the end of a run is still to come, as far as this process would have heard of it."""
        return self._since is not None and self.is_ours(run_id) and run_id > self._since and run_id not in self._kept
