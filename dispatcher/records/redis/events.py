"""Events in Redis: a stream per run, and one of all for durable subscribers, each a consumer group."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

from dispatcher.errors import Malformed, ServerUnavailable
from dispatcher.records.events import Ended, Events, Listener
from dispatcher.records.malformed import MalformedEntries
from dispatcher.records.redis.connection.client import Client
from dispatcher.records.redis.connection.streams import blocking, entries, read_stream, repair
from dispatcher.records.redis.keys import Keys
from dispatcher.records.redis.listener import RedisListener
from dispatcher.records.redis.run_scripts.change import kept
from dispatcher.records.redis.scripts import script
from dispatcher.runs.events import Event

#: The one consumer of a subscriber's group: what it took and didn't acknowledge is its own to take again.
_CONSUMER = "one"

_TRIES = 3


class RedisEvents(Events):
    """Streams. A group that vanished is made again from the start of what is kept: events then come twice."""

    def __init__(self, client: Client, keys: Keys, malformed: MalformedEntries) -> None:
        self._client = client
        self._keys = keys
        self._malformed = malformed
        self._known: set[str] = set()
        self._listeners: set[RedisListener] = set()
        self._lock = threading.Lock()

    def of(self, run_id: str, *, after: str = "", block: float = 0.0) -> tuple[list[Event], str]:
        while found := read_stream(self._client, self._keys.events(run_id), after=after, limit=10000, block=block):
            after = found[-1][0]
            read = (
                self._malformed.read(f"event {position} of run {run_id}", one)
                for position, fields in found
                for one in kept(fields)
            )
            if events := [event for event in read if event is not None]:
                return events, after
        return [], after

    def take(self, subscriber: str, *, block: float, limit: int = 100) -> list[tuple[str, Event]]:
        for left in reversed(range(_TRIES)):
            try:
                # Pending ones first, also after a lost reply: what it held is pending now.
                return self._pending(subscriber, limit) or self._next(subscriber, limit, block)
            except ServerUnavailable:
                if not left:
                    raise
        raise AssertionError("the last try returns or raises")

    def acknowledge(self, subscriber: str, positions: Sequence[str]) -> None:
        if positions:
            self._client.one("XACK", self._keys.all_events, subscriber, *positions)

    def forget(self, subscriber: str) -> None:
        self._known.discard(subscriber)
        # A group of a stream that isn't there is an error, and gone all the same.
        self._client.call([("XGROUP", "DESTROY", self._keys.all_events, subscriber)])
        self._client.one("SREM", self._keys.subscribers, subscriber)

    def repair(self) -> None:
        if repair(self._client, [self._keys.all_events]):
            self._malformed.note("what lay among all events", Malformed("its position was far ahead of the clock"))

    def listen(self, ended: Ended | None = None) -> Listener:
        listener = RedisListener(
            self._client, self._keys, leave=self._listeners.discard, ended=ended, malformed=self._malformed
        )
        with self._lock:
            self._listeners.add(listener)
        return listener

    def close(self) -> None:
        """Close every listener."""
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener.close()

    def _pending(self, subscriber: str, limit: int) -> list[tuple[str, Event]]:
        while True:
            found = self._read(subscriber, "0", limit, 0.0)
            readable = self._readable(subscriber, found)
            if readable or not found:
                return readable

    def _next(self, subscriber: str, limit: int, block: float) -> list[tuple[str, Event]]:
        return self._readable(subscriber, self._read(subscriber, ">", limit, block))

    def _readable(self, subscriber: str, found: Sequence[Any]) -> list[tuple[str, Event]]:
        """Those that can be read; the others, and those that were trimmed, are never given again."""
        read = [
            (
                position,
                None
                if fields is None
                else self._malformed.read(f"event {position}", partial(Event.from_fields, fields)),
            )
            for position, fields in found
        ]
        self.acknowledge(subscriber, [position for position, event in read if event is None])
        return [(position, event) for position, event in read if event is not None]

    def _read(self, subscriber: str, start: str, limit: int, block: float) -> list[Any]:
        group = ("GROUP", subscriber, _CONSUMER, "COUNT", limit, *blocking(block), "STREAMS", self._keys.all_events)
        for _ in range(_TRIES):
            reply = self._client.call([("XREADGROUP", *group, start)], block=block, once=start == ">")[0]
            if not isinstance(reply, Exception) or not str(reply).startswith(("NOGROUP", "UNBLOCKED")):
                break
            self._join(subscriber)
        return entries(self._client.accepted([reply])[0])

    def _join(self, subscriber: str) -> None:
        keys = [self._keys.all_events, self._keys.subscribers]
        self._client.run(script("join"), keys, subscriber, int(subscriber in self._known))
        self._known.add(subscriber)
