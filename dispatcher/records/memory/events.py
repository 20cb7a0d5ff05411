"""Events in this process, and who hears of them."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from dispatcher.errors import ServerUnavailable
from dispatcher.records.effects import EVENTS_KEPT
from dispatcher.records.events import Ended, Events, Listener
from dispatcher.records.memory.shared import Shared
from dispatcher.runs.events import Event
from dispatcher.support.mailbox import Mailbox

Notice = tuple[str, Event | None]


@dataclass
class _Subscriber:
    next: int  #: the first position not taken yet
    taken: dict[int, Event] = field(default_factory=dict)


class MemoryEvents(Events):
    """Lists of events; a position is a number in text."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._of: dict[str, list[Event]] = {}
        self._all: dict[int, Event] = {}
        self._next = 1
        self._subscribers: dict[str, _Subscriber] = {}
        self._listeners: list[MemoryListener] = []

    def repair(self) -> None:
        """Positions are given by this class alone."""

    def of(self, run_id: str, *, after: str = "", block: float = 0.0) -> tuple[list[Event], str]:
        start = int(after or 0)
        found = self._shared.wait_for(lambda: self._of.get(run_id, [])[start:], block)
        return found, str(start + len(found)) if found else after

    def take(self, subscriber: str, *, block: float, limit: int = 100) -> list[tuple[str, Event]]:
        with self._shared.changed:
            one = self._subscribers.setdefault(subscriber, _Subscriber(self._next))
            if one.taken:
                return [(str(position), event) for position, event in list(one.taken.items())[:limit]]
        found = self._shared.wait_for(lambda: self._give(one, limit), block)
        return [(str(position), event) for position, event in found]

    def acknowledge(self, subscriber: str, positions: Iterable[str]) -> None:
        with self._shared.changed:
            if (one := self._subscribers.get(subscriber)) is not None:
                for position in positions:
                    one.taken.pop(int(position), None)

    def forget(self, subscriber: str) -> None:
        with self._shared.changed:
            self._subscribers.pop(subscriber, None)

    def listen(self, ended: Ended | None = None) -> Listener:
        listener = MemoryListener(self._drop)
        with self._shared.changed:
            self._listeners.append(listener)
        return listener

    def add(self, events: Iterable[Event]) -> None:
        """Keep events, of their run and among all."""
        for event in events:
            self._of.setdefault(event.run_id, []).append(event)
            self._all[self._next] = event
            self._next += 1
        self._shared.changed.notify_all()

    def tell(self, topic: str, event: Event | None) -> None:
        """Tell who listens."""
        for listener in self._listeners:
            listener.hear(topic, event)

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
            for one in self._subscribers.values():
                one.taken.pop(position, None)

    def close(self) -> None:
        """Close every listener."""
        for listener in list(self._listeners):
            listener.close()

    def _give(self, one: _Subscriber, limit: int) -> list[tuple[int, Event]]:
        found = [(p, self._all[p]) for p in range(one.next, self._next) if p in self._all][:limit]
        if found:
            one.taken.update(found)
            one.next = found[-1][0] + 1
        return found

    def _drop(self, listener: MemoryListener) -> None:
        with self._shared.changed:
            if listener in self._listeners:
                self._listeners.remove(listener)


class MemoryListener(Listener):
    """A queue of notices."""

    def __init__(self, leave: Callable[[MemoryListener], None]) -> None:
        self._leave = leave
        self._topics: set[str] = set()
        self._heard: Mailbox[Notice | None] = Mailbox()
        self._closed = False

    def watch(self, topics: Iterable[str], *, certain: bool = True) -> None:
        self._topics = self._topics | set(topics)

    def unwatch(self, topics: Iterable[str]) -> None:
        self._topics = self._topics - set(topics)

    def get(self, timeout: float) -> Notice | None:
        if self._closed:
            raise ServerUnavailable("this listener is closed")
        try:
            return self._heard.get(timeout=max(timeout, 0.0))
        except queue.Empty:
            return None

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._leave(self)
            self._heard.put(None)

    def hear(self, topic: str, event: Event | None) -> None:
        """Take a notice if it is wanted."""
        if topic in self._topics:
            self._heard.put((topic, event))
