"""Users' callbacks for events of runs, and the queue from which one thread calls them.

Used by :mod:`dispatcher.client.watcher`.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from dispatcher.runs.events import Event, EventKind

log = logging.getLogger(__name__)

Callback = Callable[[Event], object]


@dataclass
class Hook:
    """A callback for one kind of event of one run. Each event is delivered once."""

    run_id: str
    kind: EventKind
    callback: Callback
    delivered: set[str] = field(default_factory=set)
    over: bool = False


class Hooks:
    """The hooks of a client, by run. Call with the watcher's lock held, except :meth:`serve`."""

    def __init__(self) -> None:
        self.by_run: dict[str, list[Hook]] = {}
        self._calls: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()

    def add(self, hook: Hook) -> None:
        """Add a hook."""
        self.by_run.setdefault(hook.run_id, []).append(hook)

    def offer(self, events: Iterable[Event]) -> None:
        """Queue a call for each event that is new to a hook of its kind."""
        for event in events:
            for hook in self.by_run.get(event.run_id, []):
                if event.kind is hook.kind and event.id not in hook.delivered:
                    hook.delivered.add(event.id)
                    self._calls.put(partial(hook.callback, event))
                hook.over = hook.over or event.final

    def prune(self, run_id: str) -> None:
        """Remove the run's hooks that have got its last event."""
        if left := [hook for hook in self.by_run.pop(run_id, []) if not hook.over]:
            self.by_run[run_id] = left

    def stop(self) -> None:
        """Remove all hooks, and end :meth:`serve` after the queued calls."""
        self.by_run.clear()
        self._calls.put(None)

    def serve(self) -> None:
        """Make the queued calls until stopped. For a thread of its own, which no callback's exception ends."""
        while (call := self._calls.get()) is not None:
            try:
                call()
            except Exception:
                log.exception("A callback of a run raised")
