"""The topics to which a client's listener is subscribed. Used by :mod:`dispatcher.client.watcher`, under its lock.

Each run of another process has a topic of its own. The ends of all runs of this process share one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from dispatcher.client.early_ends import EarlyEnds
from dispatcher.client.hooks import Hooks
from dispatcher.client.pending import PendingRuns
from dispatcher.errors import DispatcherError
from dispatcher.records.events import Listener

log = logging.getLogger(__name__)

#: Polls without a wait for a run of this process after which their topic is left.
IDLE_POLLS = 6


class Topics:
    """The subscriptions of a listener, for the runs that are pending or have hooks."""

    def __init__(self, listener: Listener, ends: EarlyEnds, pending: PendingRuns, hooks: Hooks) -> None:
        self.listener = listener
        self._ends = ends
        self._pending = pending
        self._hooks = hooks
        self._idle_polls = 0  # since a run of this process was last waited for

    def watch(self, topics: Sequence[str]) -> None:
        """Subscribe to these topics."""
        if topics:
            self.listener.watch(topics)

    def watch_ends(self, run_ids: Sequence[str]) -> None:
        """Subscribe to the ends of these runs: by the shared topic, and by one for each other run."""
        self._idle_polls = 0
        topics = [
            run_id
            for run_id in dict.fromkeys(run_ids)
            if run_id not in self._pending.futures and not self._ends.is_ours(run_id)
        ]
        if not self._ends.subscribed and any(map(self._ends.is_ours, run_ids)):
            self.watch([*topics, self._ends.topic])
            self._ends.joined_topic()
        else:
            self.watch(topics)

    def drop(self, run_ids: Iterable[str]) -> None:
        """Leave the topics of those runs that are neither pending nor hooked any more."""
        unhooked = [run_id for run_id in dict.fromkeys(run_ids) if run_id not in self._hooks.by_run]
        self._leave(
            [run_id for run_id in unhooked if run_id not in self._pending.futures or self._ends.is_ours(run_id)]
        )

    def drop_idle(self) -> None:
        """Leave the shared topic if nobody has waited for a run of this process for a while. Call once per poll."""
        waited = any(map(self._ends.is_ours, self._pending.futures))
        self._idle_polls = 0 if waited else self._idle_polls + 1
        if self._ends.subscribed and self._idle_polls >= IDLE_POLLS:
            self._leave([self._ends.topic])
            self._ends.left_topic()

    def _leave(self, topics: Sequence[str]) -> None:
        if topics:
            try:
                self.listener.unwatch(topics)
            except DispatcherError as error:
                log.debug("Could not unsubscribe from %d topics: %s", len(topics), error)
