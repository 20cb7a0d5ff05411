"""The thread that listens for cancel requests of the worker's runs and shards, and for new queues.

Only an optimisation: the polls of monitor and supervisors find what a lost notification would have reported.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from dispatcher.records.base import Records
from dispatcher.records.events import Listener
from workers.queues import ConsumedQueues

if TYPE_CHECKING:
    from workers.supervisor.manager import SupervisorManager

NEW_QUEUE = "queues"
OWNER = "owner:"

#: Notifications taken at once.
MAX_BATCH = 1000


class NotificationListener:
    """Listens on a connection of its own.

    Args:
        open_records: opens the records, at the first tick.
        owner: the worker's id.
        queues: receive the registry of queues.
        every: seconds between two readings of that registry.
        wake: called when a run of this worker may have been cancelled.
        supervisors: receive cancel requests of the shards that they hold; None if there are none.
    """

    def __init__(
        self,
        open_records: Callable[[], Records],
        *,
        owner: str,
        queues: ConsumedQueues,
        every: float,
        wake: Callable[[], None],
        supervisors: SupervisorManager | None = None,
    ) -> None:
        self._open = open_records
        self._topics = (f"{OWNER}{owner}", NEW_QUEUE)
        self._supervisors = supervisors
        self._shards: frozenset[str] = frozenset()  # topics
        self._queues = queues
        self._every = every
        self._wake = wake
        self._records: Records | None = None
        self._listener: Listener | None = None
        self._next_reading = 0.0

    def tick(self) -> float:
        """Listen until the registry of queues is to be read again. Return 0.0, since it has waited enough."""
        if self._records is None:
            self._records = self._open()
        if self._listener is None:
            listener = self._records.events.listen()
            listener.watch(self._topics)
            self._listener = listener
        if time.monotonic() >= self._next_reading:
            self._queues.learn(self._records.queues.known())
            self._next_reading = time.monotonic() + self._every
        self._watch_shards(self._listener)
        topics = self._receive(self._listener, max(self._next_reading - time.monotonic(), 0.0))
        if topics - {NEW_QUEUE}:
            self._wake()
        if topics & {NEW_QUEUE, ""}:
            self._next_reading = 0.0
        return 0.0

    def _receive(self, listener: Listener, wait: float) -> set[str]:
        """Return the topics of all pending notifications, so that a flood causes one poll. Those of shards are passed
        on instead."""
        topics: set[str] = set()
        for _ in range(MAX_BATCH):
            notification = listener.get(wait)
            if notification is None:
                break
            wait = 0.0
            topic, event = notification
            if self._supervisors is None or topic not in self._shards:
                topics.add(topic)
            elif event is not None:
                self._supervisors.cancel_requested(topic.removeprefix(OWNER), event.run_id)
        return topics

    def _watch_shards(self, listener: Listener) -> None:
        """Watch the shards that are held now. What is missed meanwhile is found by the next round."""
        if self._supervisors is None:
            return
        held = frozenset(f"{OWNER}{shard}" for shard in self._supervisors.held)
        if held != self._shards:
            listener.unwatch(self._shards - held)
            listener.watch(held - self._shards, certain=False)
            self._shards = held

    def close(self) -> None:
        """Close the connections."""
        if self._listener is not None:
            self._listener.close()
        if self._records is not None:
            self._records.close()
