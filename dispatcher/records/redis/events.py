"""Events in Redis: a stream per run, and one of all events. Durable subscribers are consumer groups of the latter."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

from dispatcher.errors import Malformed, ServerUnavailable
from dispatcher.records.events import Ended, Events, Listener
from dispatcher.records.malformed import MalformedEntries
from dispatcher.records.redis.connection.client import Client
from dispatcher.records.redis.connection.streams import block_words, entries_of, read_stream, repair
from dispatcher.records.redis.keys import Keys
from dispatcher.records.redis.listener import RedisListener
from dispatcher.records.redis.run_scripts.change import event_parsers
from dispatcher.records.redis.scripts import script
from dispatcher.runs.events import Event

#: The only consumer of each group, so that it receives again what it took and didn't acknowledge.
_CONSUMER = "one"

#: Tries to read the stream of all events.
_TRIES = 3

#: Most entries of a run that are read at once.
_MOST = 10_000


class RedisEvents(Events):
    """Streams. A lost group is recreated from the oldest event; its subscriber may receive events twice then."""

    def __init__(self, client: Client, keys: Keys, malformed: MalformedEntries) -> None:
        self._client = client
        self._keys = keys
        self._malformed = malformed
        self._joined: set[str] = set()
        self._listeners: set[RedisListener] = set()
        self._lock = threading.Lock()

    def of(self, run_id: str, *, after: str = "", block: float = 0.0) -> tuple[list[Event], str]:
        with self._malformed.leaving_out(f"events of run {run_id}", block):
            key = self._keys.events(run_id)
            while entries := read_stream(self._client, key, after=after, limit=_MOST, block=block):
                after = entries[-1][0]
                parsed = (
                    self._malformed.read(f"event {position} of run {run_id}", parse)
                    for position, fields in entries
                    for parse in event_parsers(fields)
                )
                if events := [event for event in parsed if event is not None]:
                    return events, after
        return [], after

    def take(self, subscriber: str, *, block: float, limit: int = 100) -> list[tuple[str, Event]]:
        for left in reversed(range(_TRIES)):
            try:
                # Pending events come first, and include those of a lost reply.
                return self._pending(subscriber, limit) or self._next(subscriber, limit, block)
            except ServerUnavailable:
                if not left:
                    raise
        raise AssertionError("the last try returns or raises")

    def acknowledge(self, subscriber: str, positions: Sequence[str]) -> None:
        if positions:
            self._client.one("XACK", self._keys.all_events, subscriber, *positions)

    def forget(self, subscriber: str) -> None:
        self._joined.discard(subscriber)
        # Of a missing stream this is an error, which doesn't matter: the group is gone, too.
        self._client.call([("XGROUP", "DESTROY", self._keys.all_events, subscriber)])
        self._client.one("SREM", self._keys.subscribers, subscriber)

    def repair(self) -> None:
        if repair(self._client, [self._keys.all_events]):
            self._malformed.note("among all events", Malformed("its position was far ahead of the clock"))

    def listen(self, ended: Ended | None = None) -> Listener:
        listener = RedisListener(
            self._client, self._keys, on_close=self._listeners.discard, ended=ended, malformed=self._malformed
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
            pending = self._read(subscriber, "0", limit, 0.0)
            events = self._parse(subscriber, pending)
            if events or not pending:
                return events

    def _next(self, subscriber: str, limit: int, block: float) -> list[tuple[str, Event]]:
        return self._parse(subscriber, self._read(subscriber, ">", limit, block))

    def _parse(self, subscriber: str, entries: Sequence[Any]) -> list[tuple[str, Event]]:
        """Return the events of entries; acknowledge those that are malformed or were trimmed."""
        parsed = [
            (
                position,
                None
                if fields is None
                else self._malformed.read(f"event {position}", partial(Event.from_fields, fields)),
            )
            for position, fields in entries
        ]
        self.acknowledge(subscriber, [position for position, event in parsed if event is None])
        return [(position, event) for position, event in parsed if event is not None]

    def _read(self, subscriber: str, start: str, limit: int, block: float) -> list[Any]:
        group = ("GROUP", subscriber, _CONSUMER, "COUNT", limit, *block_words(block), "STREAMS", self._keys.all_events)
        for _ in range(_TRIES):
            reply = self._client.call([("XREADGROUP", *group, start)], block=block, once=start == ">")[0]
            if not isinstance(reply, Exception) or not str(reply).startswith(("NOGROUP", "UNBLOCKED")):
                break
            self._join(subscriber)
        return entries_of(self._client.accepted([reply])[0])

    def _join(self, subscriber: str) -> None:
        keys = [self._keys.all_events, self._keys.subscribers]
        self._client.run(script("join"), keys, subscriber, int(subscriber in self._joined))
        self._joined.add(subscriber)
