"""People's callbacks for events of runs."""

from __future__ import annotations

import queue
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from dispatcher.runs.events import Event, Kind

Callback = Callable[[Event], object]


@dataclass
class Hook:
    """Somebody's callback for one kind of event of one run; each event once."""

    run_id: str
    kind: Kind
    call: Callback
    seen: set[str] = field(default_factory=set)
    over: bool = False

    def offer(self, event: Event, calls: queue.SimpleQueue[Callable[[], object] | None]) -> None:
        """Queue the call if the event is new and of our kind."""
        if event.kind is self.kind and event.id not in self.seen:
            self.seen.add(event.id)
            calls.put(partial(self.call, event))
        self.over = self.over or event.final
