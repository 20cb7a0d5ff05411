"""Events in this process, their subscribers and listeners."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from dispatcher.errors import ServerUnavailable
from dispatcher.records.effects import EVENTS_KEPT
from dispatcher.records.events import Ended, Events, Listener
from dispatcher.records.memory.shared import SharedState
from dispatcher.runs.events import Event
from dispatcher.support.mailbox import Mailbox

Notice = tuple[str, Event | None]


@dataclass
class _Subscriber:
    next: int  #: the first position not taken yet
    taken: dict[int, Event] = field(default_factory=dict)


class MemoryEvents(Events):
    """Lists of events; a position is a number as text."""

    def __init__(self, shared: SharedState) -> None:
        self._shared = shared
        self._of: dict[str, list[Event]] = {}
        self._all: dict[int, Event] = {}
        self._next = 1
        self._subscribers: dict[str, _Subscriber] = {}
        self._listeners: list[MemoryListener] = []

    def repair(self) -> None:
        """Nothing to repair: nobody else adds entries."""

    def of(self, run_id: str, *, after: str = "", block: float = 0.0) -> tuple[list[Event], str]:
        start = int(after or 0)
        events = self._shared.wait_for(lambda: self._of.get(run_id, [])[start:], block)
        return events, str(start + len(events)) if events else after

    def take(self, subscriber: str, *, block: float, limit: int = 100) -> list[tuple[str, Event]]:
        with self._shared.changed:
            state = self._subscribers.setdefault(subscriber, _Subscriber(self._next))
            if state.taken:
                return [(str(position), event) for position, event in list(state.taken.items())[:limit]]
        taken = self._shared.wait_for(lambda: self._take_next(state, limit), block)
        return [(str(position), event) for position, event in taken]

    def acknowledge(self, subscriber: str, positions: Iterable[str]) -> None:
        with self._shared.changed:
            if (state := self._subscribers.get(subscriber)) is not None:
                for position in positions:
                    state.taken.pop(int(position), None)

    def forget(self, subscriber: str) -> None:
        with self._shared.changed:
            self._subscribers.pop(subscriber, None)

    def listen(self, ended: Ended | None = None) -> Listener:
        listener = MemoryListener(self._drop)
        with self._shared.changed:
            self._listeners.append(listener)
        return listener

    def add(self, events: Iterable[Event]) -> None:
        """Add events, to those of their run and to all."""
        for event in events:
            self._of.setdefault(event.run_id, []).append(event)
            self._all[self._next] = event
            self._next += 1
        self._shared.changed.notify_all()

    def publish(self, topic: str, event: Event | None) -> None:
        """Send a notice to all listeners of a topic."""
        for listener in self._listeners:
            listener.offer(topic, event)

    def purge(self, run_id: str) -> None:
        """Drop the events of a run; durable subscribers keep theirs."""
        self._of.pop(run_id, None)

    def count(self) -> int:
        """Count the runs that have events."""
        return len(self._of)

    def trim(self) -> None:
        """Drop events that are too old for durable subscribers."""
        oldest = self._shared.clock() - EVENTS_KEPT
        for position in [p for p, event in self._all.items() if event.time < oldest]:
            del self._all[position]
            for state in self._subscribers.values():
                state.taken.pop(position, None)

    def close(self) -> None:
        """Close every listener."""
        for listener in list(self._listeners):
            listener.close()

    def _take_next(self, state: _Subscriber, limit: int) -> list[tuple[int, Event]]:
        taken = [(p, self._all[p]) for p in range(state.next, self._next) if p in self._all][:limit]
        if taken:
            state.taken.update(taken)
            state.next = taken[-1][0] + 1
        return taken

    def _drop(self, listener: MemoryListener) -> None:
        with self._shared.changed:
            if listener in self._listeners:
                self._listeners.remove(listener)


class MemoryListener(Listener):
    """A queue of notices."""

    def __init__(self, on_close: Callable[[MemoryListener], None]) -> None:
        self._on_close = on_close
        self._topics: set[str] = set()
        self._notices: Mailbox[Notice | None] = Mailbox()
        self._closed = False

    def watch(self, topics: Iterable[str], *, certain: bool = True) -> None:
        self._topics = self._topics | set(topics)

    def unwatch(self, topics: Iterable[str]) -> None:
        self._topics = self._topics - set(topics)

    def get(self, timeout: float) -> Notice | None:
        if self._closed:
            raise ServerUnavailable("this listener is closed")
        try:
            return self._notices.get(timeout=max(timeout, 0.0))
        except queue.Empty:
            return None

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._on_close(self)
            self._notices.put(None)

    def offer(self, topic: str, event: Event | None) -> None:
        """Queue a notice if its topic is watched."""
        if topic in self._topics:
            self._notices.put((topic, event))
