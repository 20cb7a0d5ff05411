"""A listener over one pub/sub connection, which it restores by itself after a loss."""

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
from dispatcher.records.redis.run_scripts.change import parse_final, parse_notice
from dispatcher.runs.events import Event
from dispatcher.support.mailbox import Mailbox

Notice = tuple[str, Event | None]

#: Seconds without a message after which the server is pinged. After twice as many the connection counts as lost.
_PING_AFTER = 10.0

#: From so many topics on, notices are gathered for so many seconds and handled together: handling one alone wakes three
#: threads, reads one record and unsubscribes from one topic.
_MANY, _GATHER_TIME = 100, 0.02

#: Most messages that are read before commands are sent, and most notices that wait for :meth:`RedisListener.get`. So a
#: flood neither delays commands nor fills memory. Dropped notices are treated as after a lost connection.
_AT_ONCE, MOST_WAITING = 1000, 10_000

#: First and longest pause, in seconds, before the next try to connect.
_RECONNECT_PAUSE, _LONGEST_PAUSE = 0.05, 2.0


class RedisListener(Listener):
    """One thread owns the connection. Others queue commands for it, wake it, and wait."""

    def __init__(
        self,
        client: Client,
        keys: Keys,
        *,
        on_close: Callable[[RedisListener], None],
        malformed: MalformedEntries,
        ended: Ended | None = None,
    ) -> None:
        self._malformed = malformed
        self._client = client
        self._keys = keys
        self._on_close = on_close
        self._ended = ended
        self._notices: Mailbox[Notice | None] = Mailbox()
        self._state = threading.Condition()
        self._wanted: set[str] = set()
        self._confirmed: set[str] = set()
        self._to_send: list[tuple[str, ...]] = []
        self._to_leave: set[str] = set()  # unsubscribed from with the next command, or when nothing else happens
        self._unconfirmed: dict[str, int] = {}
        self._failure: Exception | None = None
        self._closed = False
        self._connected = False
        self._resuming = False
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._wake_receiver.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="dispatcher-listener", daemon=True)
        self._thread.start()

    def watch(self, topics: Iterable[str], *, certain: bool = True) -> None:
        channels = {self._keys.topic(topic) for topic in topics}
        within = 3 * self._client.timeout
        with self._state:
            new = channels - self._wanted
            self._wanted |= new
            self._queue_command("SUBSCRIBE", new)
            if not certain:
                return
            if not self._state.wait_for(lambda: self._closed or channels <= self._confirmed, within):
                self._wanted -= new
                self._queue_command("UNSUBSCRIBE", new)
                error = self._failure or redis.TimeoutError()
                raise unavailable(error, self._client.shown, timeout=within)
            if self._closed:
                raise ServerUnavailable("this listener is closed")

    def unwatch(self, topics: Iterable[str]) -> None:
        with self._state:
            gone = {self._keys.topic(topic) for topic in topics} & self._wanted
            self._wanted -= gone
            self._confirmed -= gone
            self._to_leave |= gone
            if len(self._to_leave) >= _MANY:
                self._queue_command("UNSUBSCRIBE", set())

    def get(self, timeout: float) -> Notice | None:
        if self._closed:
            raise ServerUnavailable("this listener is closed")
        try:
            return self._notices.get(timeout=max(timeout, 0.0))
        except queue.Empty:
            return None

    def close(self) -> None:
        with self._state:
            if self._closed:
                return
            self._closed = True
            self._state.notify_all()
            self._wake_sender.send(b".")
        self._on_close(self)
        self._notices.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join(2 * self._client.timeout)

    def _queue_command(self, verb: str, channels: set[str]) -> None:
        """Queue a command for the thread, behind the postponed ones. Call with the lock held."""
        if self._to_leave:
            self._to_send.append(("UNSUBSCRIBE", *sorted(self._to_leave)))
            self._to_leave = set()
        if channels:
            self._to_send.append((verb, *sorted(channels)))
        if self._to_send and not self._closed:
            self._wake_sender.send(b".")

    def _run(self) -> None:
        pause = _RECONNECT_PAUSE
        while not self._closed:
            connection: Any = None
            try:
                connection = self._client.connection()
                connection.connect()
                pause = _RECONNECT_PAUSE
                self._serve(connection)
            except Exception as error:  # of any kind: the thread connects again
                with self._state:
                    self._failure = error
                    self._resuming = self._resuming or self._connected
                    self._confirmed.clear()
            finally:
                if connection is not None:
                    connection.disconnect()
            self._sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        self._wake_receiver.close()
        self._wake_sender.close()

    def _sleep(self, seconds: float) -> None:
        with self._state:
            self._state.wait_for(lambda: self._closed, seconds)

    def _serve(self, connection: Any) -> None:
        """Send and read over a new connection until it is lost or the listener is closed."""
        with self._state:
            self._connected = True
            self._failure = None
            self._unconfirmed.clear()
            self._to_leave.clear()
            self._to_send = [("SUBSCRIBE", *sorted(self._wanted))] if self._wanted else []
        with selectors.DefaultSelector() as selector, selectors.DefaultSelector() as gathering:
            selector.register(connection._sock, selectors.EVENT_READ)
            for each in (selector, gathering):
                each.register(self._wake_receiver, selectors.EVENT_READ)
            last_message = time.monotonic()
            pinged = False
            received = 0
            while not self._closed:
                self._send(connection)
                self._notify_resumed()
                ready = selector.select(_PING_AFTER if received < _AT_ONCE else 0)
                if any(key.fileobj is self._wake_receiver for key, _ in ready):
                    self._wake_receiver.recv(4096)
                if not ready:
                    with self._state:
                        self._queue_command("UNSUBSCRIBE", set())
                if received := self._read(connection):
                    last_message, pinged = time.monotonic(), False
                    if len(self._wanted) >= _MANY:
                        gathering.select(_GATHER_TIME)  # cut short by a queued command
                silence = time.monotonic() - last_message
                if silence >= 2 * _PING_AFTER:
                    raise redis.TimeoutError
                if silence >= _PING_AFTER and not pinged:
                    connection.send_command("PING")
                    pinged = True

    def _send(self, connection: Any) -> None:
        with self._state:
            commands, self._to_send = self._to_send, []
            for _, *channels in commands:
                for channel in channels:
                    self._unconfirmed[channel] = self._unconfirmed.get(channel, 0) + 1
        for command in commands:
            connection.send_command(*command)

    def _notify_resumed(self) -> None:
        """Add the notice that some may have been missed: after a flood, or a loss once all topics are confirmed."""
        with self._state:
            complete = self._wanted <= self._confirmed
            if complete and self._resuming and len(self._notices) <= MOST_WAITING:  # else the last one is this already
                self._notices.put(("", None))
            self._resuming = self._resuming and not complete

    def _read(self, connection: Any) -> int:
        """Handle the messages that have arrived; return their number. If it is :data:`_AT_ONCE`, there may be more."""
        received = 0
        while received < _AT_ONCE and connection.can_read(0):
            received += 1
            self._handle(connection.read_response())
        return received

    def _handle(self, reply: Any) -> None:
        if not isinstance(reply, list):
            return
        kind, channel = reply[0], reply[1].decode()
        if kind == b"message":
            if channel in self._wanted:
                self._handle_notice(channel.removeprefix(self._keys.topic_prefix), reply[2])
        elif kind in {b"subscribe", b"unsubscribe"}:
            self._handle_confirmation(channel, subscribed=kind == b"subscribe")

    def _handle_notice(self, topic: str, raw: bytes) -> None:
        """Queue a notice. One that can't be read gives its topic alone, so that the record is read."""
        read, ended = self._malformed.read, self._ended
        if ended is not None and is_ends(topic):
            final = read(f"final record in a notice to {topic}", partial(parse_final, raw))
            if final and read(f"final record in a notice to {topic}", partial(ended, *final)):
                return
        events = read(f"notice to {topic}", partial(parse_notice, raw))
        if len(self._notices) >= MOST_WAITING:
            self._resuming = True
            return
        for event in events or (None,):
            self._notices.put((topic, event))

    def _handle_confirmation(self, channel: str, *, subscribed: bool) -> None:
        """Note a confirmation. Only that of the last of several commands for a channel counts."""
        with self._state:
            open_commands = self._unconfirmed.pop(channel, 1) - 1
            if open_commands > 0:
                self._unconfirmed[channel] = open_commands
            elif subscribed and channel in self._wanted:
                self._confirmed.add(channel)
                self._state.notify_all()
