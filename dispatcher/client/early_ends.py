"""Ends of this process's own runs that were announced before anybody waited, so that a later wait reads nothing.

From its first wait on, a process subscribes to one topic for the ends of all its runs. Used by
:mod:`dispatcher.client.watcher`, under its lock.
"""

from __future__ import annotations

from collections.abc import Mapping

from dispatcher.records.events import ends_topic
from dispatcher.support.ids import ending, is_run_id, new_id, own_ending

#: Most ends remembered, and of each most record fields and bytes. If there are more, the run is read instead. Anybody
#: who may publish can announce an end: this bounds the memory that they can use up.
MOST = 2000
MOST_FIELDS, MOST_BYTES = 64, 8192


class EarlyEnds:
    """The ends announced by ``topic`` and not used yet, and the time since which none can have been missed."""

    def __init__(self) -> None:
        self._ending = own_ending()
        self.topic = ends_topic(self._ending)
        self._since: str | None = None  # the last id from before the subscription: ids of one process ascend
        self._fields: dict[str, Mapping[str, bytes]] = {}

    @property
    def subscribed(self) -> bool:
        """Return True if the topic is subscribed to."""
        return self._since is not None

    def joined_topic(self) -> None:
        """Note that no end is missed from now on: the topic was subscribed to, the first time or after an outage."""
        self._since = new_id()

    def left_topic(self) -> None:
        """Note that the topic is left."""
        self._since = None
        self._fields.clear()

    def is_ours(self, run_id: str) -> bool:
        """Return True if this process has submitted the run."""
        return ending(run_id) == self._ending

    def keep(self, run_id: str, fields: Mapping[str, bytes]) -> None:
        """Remember that a run has ended. If two notices differ, neither counts: the record is read.

        Args:
            run_id: the run's id, as the notice has it.
            fields: the record's fields that may change; none if a later wait is to read it.
        """
        if self._since is None or not is_run_id(run_id) or not self.is_ours(run_id):
            return
        before = self._fields.setdefault(run_id, fields if _is_small(fields) else {})
        if before and fields and fields != before:
            self._fields[run_id] = {}
        if len(self._fields) > MOST:
            oldest = next(iter(self._fields))
            del self._fields[oldest]
            self._since = max(self._since, oldest)

    def take(self, run_id: str) -> Mapping[str, bytes] | None:
        """Return the fields announced with a run's end, to the first caller only; nothing if the run is to be read."""
        fields = self._fields.get(run_id)
        if fields:
            self._fields[run_id] = {}
        return fields

    def will_be_announced(self, run_id: str) -> bool:
        """Return True if the run's end is sure to be announced by the topic from now on."""
        return self._since is not None and self.is_ours(run_id) and run_id > self._since and run_id not in self._fields


def _is_small(fields: Mapping[str, bytes]) -> bool:
    return len(fields) <= MOST_FIELDS and sum(len(name) + len(value) for name, value in fields.items()) <= MOST_BYTES
