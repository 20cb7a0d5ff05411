"""Notices over one pub/sub connection, resumed by itself after a loss."""

from __future__ import annotations

import queue
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import redis

from dispatcher.errors import ServerUnavailable
from dispatcher.records.events import Ended, Listener, is_ends
from dispatcher.records.malformed import MalformedEntries
from dispatcher.records.redis.connection.client import Client
from dispatcher.records.redis.connection.errors import unavailable
from dispatcher.records.redis.keys import Keys
from dispatcher.records.redis.run_scripts.change import rest, told
from dispatcher.runs.events import Event
from dispatcher.support.mailbox import Mailbox

Notice = tuple[str, Event | None]

#: After so many seconds of silence the server is asked for a word; after twice as many the connection counts as lost.
_SILENCE = 10.0

#: Who watches so many topics hears of them in portions, gathered for so many seconds: each notice taken alone wakes
#: three threads, and has one record read and one topic left.
_MANY, _GATHER = 100, 0.02

#: Messages that are read before anything is sent, and notices that wait to be taken: a flood delays nobody's wishes
#: and fills no memory. What is left out then is found as after a lost connection, by looking.
_AT_ONCE, MOST_HEARD = 1000, 10_000

#: First and longest pause, in seconds, before the next try to connect.
_PAUSE, _LONGEST_PAUSE = 0.05, 2.0


class RedisListener(Listener):
    """One thread owns the connection, sends and reads; others leave it their wishes, wake it, and wait."""

    def __init__(
        self,
        client: Client,
        keys: Keys,
        *,
        leave: Callable[[RedisListener], None],
        malformed: MalformedEntries,
        ended: Ended | None = None,
    ) -> None:
        self._malformed = malformed
        self._client = client
        self._keys = keys
        self._leave = leave
        self._ended = ended
        self._heard: Mailbox[Notice | None] = Mailbox()
        self._state = threading.Condition()
        self._wanted: set[str] = set()
        self._confirmed: set[str] = set()
        self._to_send: list[tuple[str, ...]] = []
        self._left: set[str] = set()  # to be left as something else is sent, or nothing happens: it is in no hurry
        self._unanswered: dict[str, int] = {}
        self._failure: Exception | None = None
        self._closed = False
        self._connected = False
        self._resuming = False
        self._woken, self._wake = socket.socketpair()
        self._woken.setblocking(False)
        self._thread = threading.Thread(target=self._work, name="dispatcher-listener", daemon=True)
        self._thread.start()

    def watch(self, topics: Iterable[str], *, certain: bool = True) -> None:
        channels = {self._keys.topic(topic) for topic in topics}
        within = 3 * self._client.timeout
        with self._state:
            new = channels - self._wanted
            self._wanted |= new
            self._ask("SUBSCRIBE", new)
            if not certain:
                return
            if not self._state.wait_for(lambda: self._closed or channels <= self._confirmed, within):
                self._wanted -= new
                self._ask("UNSUBSCRIBE", new)
                error = self._failure or redis.TimeoutError()
                raise unavailable(error, self._client.shown, timeout=within)
            if self._closed:
                raise ServerUnavailable("this listener is closed")

    def unwatch(self, topics: Iterable[str]) -> None:
        with self._state:
            gone = {self._keys.topic(topic) for topic in topics} & self._wanted
            self._wanted -= gone
            self._confirmed -= gone
            self._left |= gone
            if len(self._left) >= _MANY:
                self._ask("UNSUBSCRIBE", set())

    def get(self, timeout: float) -> Notice | None:
        if self._closed:
            raise ServerUnavailable("this listener is closed")
        try:
            return self._heard.get(timeout=max(timeout, 0.0))
        except queue.Empty:
            return None

    def close(self) -> None:
        with self._state:
            if self._closed:
                return
            self._closed = True
            self._state.notify_all()
            self._wake.send(b".")
        self._leave(self)
        self._heard.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join(2 * self._client.timeout)

    def _ask(self, verb: str, channels: set[str]) -> None:
        """Have the thread send a command, behind what was put off; called under the lock."""
        if self._left:
            self._to_send.append(("UNSUBSCRIBE", *sorted(self._left)))
            self._left = set()
        if channels:
            self._to_send.append((verb, *sorted(channels)))
        if self._to_send and not self._closed:
            self._wake.send(b".")

    def _work(self) -> None:
        pause = _PAUSE
        while not self._closed:
            connection: Any = None
            try:
                connection = self._client.connection()
                connection.connect()
                pause = _PAUSE
                self._serve(connection)
            except Exception as error:  # whatever it was, the thread lives on and connects again
                with self._state:
                    self._failure = error
                    self._resuming = self._resuming or self._connected
                    self._confirmed.clear()
            finally:
                if connection is not None:
                    connection.disconnect()
            self._rest(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        self._woken.close()
        self._wake.close()

    def _rest(self, seconds: float) -> None:
        with self._state:
            self._state.wait_for(lambda: self._closed, seconds)

    def _serve(self, connection: Any) -> None:
        """Speak with the server over a new connection until it is lost, or we close."""
        with self._state:
            self._connected = True
            self._failure = None
            self._unanswered.clear()
            self._left.clear()
            self._to_send = [("SUBSCRIBE", *sorted(self._wanted))] if self._wanted else []
        with selectors.DefaultSelector() as selector, selectors.DefaultSelector() as gathering:
            selector.register(connection._sock, selectors.EVENT_READ)
            for one in (selector, gathering):
                one.register(self._woken, selectors.EVENT_READ)
            last_word = time.monotonic()
            asked = False
            heard = 0
            while not self._closed:
                self._send(connection)
                self._tell_resumed()
                ready = selector.select(_SILENCE if heard < _AT_ONCE else 0)
                if any(key.fileobj is self._woken for key, _ in ready):
                    self._woken.recv(4096)
                if not ready:
                    with self._state:
                        self._ask("UNSUBSCRIBE", set())
                if heard := self._read(connection):
                    last_word, asked = time.monotonic(), False
                    if len(self._wanted) >= _MANY:
                        gathering.select(_GATHER)  # cut short by who wishes something
                silence = time.monotonic() - last_word
                if silence >= 2 * _SILENCE:
                    raise redis.TimeoutError
                if silence >= _SILENCE and not asked:
                    connection.send_command("PING")
                    asked = True

    def _send(self, connection: Any) -> None:
        with self._state:
            commands, self._to_send = self._to_send, []
            for _, *channels in commands:
                for channel in channels:
                    self._unanswered[channel] = self._unanswered.get(channel, 0) + 1
        for command in commands:
            connection.send_command(*command)

    def _tell_resumed(self) -> None:
        """After a loss, once all is subscribed again, and after a flood: something may have been missed."""
        with self._state:
            whole = self._wanted <= self._confirmed
            if whole and self._resuming and len(self._heard) <= MOST_HEARD:  # if there are more, the last is this one
                self._heard.put(("", None))
            self._resuming = self._resuming and not whole

    def _read(self, connection: Any) -> int:
        """Take what has arrived; how many messages that was. If as many as are read at once, there may be more."""
        heard = 0
        while heard < _AT_ONCE and connection.can_read(0):
            heard += 1
            self._take(connection.read_response())
        return heard

    def _take(self, reply: Any) -> None:
        if not isinstance(reply, list):
            return
        kind, channel = reply[0], reply[1].decode()
        if kind == b"message":
            if channel in self._wanted:
                self._hear(channel.removeprefix(self._keys.topic_prefix), reply[2])
        elif kind in {b"subscribe", b"unsubscribe"}:
            self._answered(channel, subscribed=kind == b"subscribe")

    def _hear(self, topic: str, raw: bytes) -> None:
        """Take a notice; of one that can't be read, the topic: something may have happened, and a look tells."""
        read, ended = self._malformed.read, self._ended
        if ended is not None and is_ends(topic):
            added = read(f"end told to {topic}", partial(rest, raw))
            if added and read(f"end told to {topic}", partial(ended, *added)):
                return
        events = read(f"notice to {topic}", partial(told, raw))
        if len(self._heard) >= MOST_HEARD:
            self._resuming = True
            return
        for event in events or (None,):
            self._heard.put((topic, event))

    def _answered(self, channel: str, *, subscribed: bool) -> None:
        """Only the answer to the last of several wishes counts."""
        with self._state:
            left = self._unanswered.pop(channel, 1) - 1
            if left > 0:
                self._unanswered[channel] = left
            elif subscribed and channel in self._wanted:
                self._confirmed.add(channel)
                self._state.notify_all()
