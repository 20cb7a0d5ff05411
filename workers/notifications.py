"""The thread that listens: cancels of what this worker and its shards hold, and new queues."""

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

#: Notices taken at once.
MOST = 1000


class NotificationListener:
    """Hears of things early; what it misses is found by the looks of others.

    Args:
        owner: the worker's id.
        queues: told what is known.
        every: seconds between two looks for new queues.
        wake: called when something of ours may have changed.
        supervision: told of cancels in the shards that it holds; None where there is none.
    """

    def __init__(
        self,
        open_records: Callable[[], Records],
        *,
        owner: str,
        queues: ConsumedQueues,
        every: float,
        wake: Callable[[], None],
        supervision: SupervisorManager | None = None,
    ) -> None:
        self._open = open_records
        self._topics = (f"{OWNER}{owner}", NEW_QUEUE)
        self._supervision = supervision
        self._shards: frozenset[str] = frozenset()  # topics
        self._queues = queues
        self._every = every
        self._wake = wake
        self._records: Records | None = None
        self._listener: Listener | None = None
        self._next = 0.0

    def tick(self) -> float:
        """Listen until the next look for queues; never waits elsewhere."""
        if self._records is None:
            self._records = self._open()
        if self._listener is None:
            listener = self._records.events.listen()
            listener.watch(self._topics)
            self._listener = listener
        if time.monotonic() >= self._next:
            self._queues.learn(self._records.queues.known())
            self._next = time.monotonic() + self._every
        self._follow(self._listener)
        topics = self._heard(self._listener, max(self._next - time.monotonic(), 0.0))
        if topics - {NEW_QUEUE}:
            self._wake()
        if topics & {NEW_QUEUE, ""}:
            self._next = 0.0
        return 0.0

    def _heard(self, listener: Listener, wait: float) -> set[str]:
        """The topics of all notices that are there, but for the shards', which are passed on; a flood is one look."""
        topics: set[str] = set()
        for _ in range(MOST):
            heard = listener.get(wait)
            if heard is None:
                break
            wait = 0.0
            topic, event = heard
            if self._supervision is None or topic not in self._shards:
                topics.add(topic)
            elif event is not None:
                self._supervision.cancel_requested(topic.removeprefix(OWNER), event.run_id)
        return topics

    def _follow(self, listener: Listener) -> None:
        """Hear of the shards that are held now; what is missed meanwhile is seen in the next round."""
        if self._supervision is None:
            return
        held = frozenset(f"{OWNER}{shard}" for shard in self._supervision.held)
        if held != self._shards:
            listener.unwatch(self._shards - held)
            listener.watch(held - self._shards, certain=False)
            self._shards = held

    def close(self) -> None:
        """Leave."""
        if self._listener is not None:
            self._listener.close()
        if self._records is not None:
            self._records.close()
