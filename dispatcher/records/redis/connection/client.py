"""The client of the server: explicit timeouts, bounded retries, one kind of error. For ``records/redis`` alone.

redis-py manages the connections and the protocol. Its own retries are off, because only this module knows whether a
command may have been executed. Blocking reads have a longer timeout than other commands.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from dispatcher.errors import InvalidSettings, Malformed
from dispatcher.records.redis.connection.errors import (
    HOPELESS,
    LOST,
    PASSING,
    NotLoaded,
    ServerBusy,
    is_busy,
    is_missing,
    is_of_an_entry,
    unavailable,
)
from dispatcher.records.redis.connection.idle_connections import IdleConnections
from dispatcher.records.redis.scripts import Script, library
from dispatcher.support.urls import Address, parse

#: A command with its arguments, as redis-py packs them.
Command = tuple[Any, ...]

#: Pauses, in seconds, before a command is sent again.
_PAUSES = (0.05, 0.5)

#: Most commands that are sent at once.
_PORTION = 200

#: A blocking read's timeout is this many seconds longer than its block.
_BEYOND_BLOCK = 10.0


def packed(commands: Iterable[Command]) -> bytes:
    """Return commands in the server's protocol. redis-py's own packing is slower: it checks each word several times.

    Lone surrogates, which UTF-8 lacks, are sent as escapes, so that every text can be sent.
    """
    parts: list[Any] = []
    for command in commands:
        parts.append(b"*%d\r\n" % len(command))
        for word in command:
            raw = word if isinstance(word, bytes | memoryview) else str(word).encode(errors="backslashreplace")
            parts += b"$%d\r\n" % len(raw), raw, b"\r\n"
    return b"".join(parts)


def _load() -> Command:
    """Return the command that loads the functions. The server replies with an error if it has them."""
    return ("FUNCTION", "LOAD", library().text)


class _Portions:
    """Commands in portions. Each portion is made once, when it is first iterated over."""

    def __init__(self, commands: Iterable[Command], size: int = _PORTION) -> None:
        self._commands = iter(commands)
        self._size = size
        self._made: list[list[Command]] = []

    def __iter__(self) -> Iterator[list[Command]]:
        yield from self._made
        while portion := list(islice(self._commands, self._size)):
            self._made.append(portion)
            yield portion

    def each(self) -> Iterator[Command]:
        """Yield the commands one by one."""
        for portion in self:
            yield from portion


class SubmitProgress:
    """The progress of a submit. ``lost`` is true if a try was sent without a reply, so that the runs may exist."""

    def __init__(self) -> None:
        self.lost = False


class Client:
    """Sends commands to one server, from any thread, and after a fork.

    Args:
        url: one of the forms of :mod:`dispatcher.support.urls`.
        timeout: seconds to connect, to send, and to answer, each.
    """

    def __init__(self, url: str, *, timeout: float) -> None:
        address = parse(url)
        if address.scheme not in {"redis", "rediss", "unix", "sentinel"}:
            raise InvalidSettings(f"URL: {address.shown} does not name a server")
        self.timeout = timeout
        self.shown = address.shown
        self._pool: Any = _pool(address, timeout)
        self._idle = IdleConnections(self._pool)

    def call(
        self,
        commands: Iterable[Command],
        *,
        block: float = 0.0,
        within: float = 0.0,
        once: bool = False,
        submit: SubmitProgress | None = None,
        portion: int = _PORTION,
    ) -> list[Any]:
        """Send commands and return their replies; again after a lost connection, so they must be safe to repeat.

        Args:
            commands: to send. An iterator makes them while earlier ones are executed. If the server refuses one, its
                reply is an exception.
            block: seconds that the last command may block.
            within: seconds after which to give up; 0 bounds each reply, and retries for three times the timeout.
            once: don't retry.
            submit: the submit that these commands belong to, if any.
            portion: most commands that are sent at once.

        Raises:
            ServerUnavailable: no connection, or no answer; ``may_exist`` is true if a submit had been sent.
        """
        portions = _Portions(commands, portion)
        end = time.monotonic() + (within or 3 * self.timeout)
        sent = submit is not None and submit.lost
        pauses = iter(_PAUSES)
        while True:
            try:
                connection = self._idle.take()
                try:
                    sent = submit is not None
                    return self._exchange(connection, portions, block, end if within else None)
                finally:
                    self._idle.give_back(connection)
            except (redis.RedisError, OSError) as error:
                if submit is not None:
                    if isinstance(error, ServerBusy) and not error.executed:
                        sent = submit.lost
                    submit.lost = sent
                # A server that loads its data after a restart, or runs a long script, will answer soon.
                pause = next(pauses, _PAUSES[-1] if isinstance(error, PASSING) else None)
                late = pause is None or time.monotonic() + pause + self.timeout > end
                if once or late or not isinstance(error, LOST) or isinstance(error, HOPELESS):
                    raise unavailable(error, self.shown, timeout=within or self.timeout, may_exist=sent) from error
                time.sleep(pause or 0.0)

    def _exchange(self, connection: Any, portions: _Portions, block: float, end: float | None) -> list[Any]:
        replies: list[Any] = []
        timeout = block + _BEYOND_BLOCK if block else self.timeout
        try:
            sent = 0
            for portion in portions:
                connection.send_packed_command([packed(portion)])
                # The server executes this portion while we read the replies to the previous one.
                self._replies(connection, replies, sent, timeout, end)
                sent += len(portion)
            self._replies(connection, replies, sent, timeout, end)
        except BaseException:
            connection.disconnect()  # else the next user of the connection might read pending replies
            raise
        if busy := [reply for reply in replies if is_busy(reply)]:
            raise ServerBusy(str(busy[0]), executed=len(busy) < len(replies))
        return replies

    def _replies(self, connection: Any, replies: list[Any], count: int, timeout: float, end: float | None) -> None:
        """Read until there are ``count`` replies."""
        bound = {} if end is None and timeout == self.timeout else {"timeout": timeout}  # no argument: no system call
        while len(replies) < count:
            if end is not None:
                bound["timeout"] = min(timeout, max(end - time.monotonic(), 0.001))
            try:
                replies.append(connection.read_response(**bound, disconnect_on_error=False))
            except redis.ResponseError as error:
                replies.append(error)

    def one(self, *command: Any, block: float = 0.0, once: bool = False) -> Any:
        """Return the reply to a command.

        Raises:
            ServerUnavailable: no answer, or the server refused.
        """
        return self.accepted(self.call([command], block=block, once=once))[0]

    def many(self, commands: Iterable[Command]) -> list[Any]:
        """Return the replies to many commands.

        Raises:
            ServerUnavailable: no answer, or the server refused one.
        """
        return self.accepted(self.call(commands))

    def run(self, script: Script, keys: Sequence[str], *arguments: Any) -> Any:
        """Call a script and return its reply. Load the scripts if they are missing.

        Raises:
            ServerUnavailable: no answer, or the server refused.
        """
        command = script.command(keys, *arguments)
        [reply] = self.call([command])
        if is_missing(reply):
            _, reply = self._loaded(self.call([_load(), command]))
        return self.accepted([reply])[0]

    def run_many(
        self,
        commands: Iterable[Command],
        *,
        within: float = 0.0,
        submits: bool = False,
        portion: int = _PORTION,
    ) -> list[Any]:
        """Call scripts and return their replies. Load the scripts if they are missing.

        Raises:
            ServerUnavailable: no answer; or a refusal after an earlier try of a submit that may have been executed.
        """
        portions = _Portions(commands, portion)
        submit = SubmitProgress() if submits else None
        replies = self.call(portions.each(), within=within, submit=submit, portion=portion)
        missing = [n for n, reply in enumerate(replies) if is_missing(reply)]
        if missing:
            sent = list(portions.each())
            again = self.call([_load(), *(sent[n] for n in missing)], within=within, submit=submit, portion=portion)
            for n, reply in zip(missing, self._loaded(again)[1:], strict=True):
                replies[n] = reply
        return self.accepted(replies, may_exist=True) if submit is not None and submit.lost else replies

    @staticmethod
    def _loaded(replies: list[Any]) -> list[Any]:
        """Return the replies after the first, which is to the load command; say why functions are still missing."""
        refusal = replies[0]
        if isinstance(refusal, redis.exceptions.NoPermissionError):
            refusal = NotLoaded(library().name)
        return [refusal if is_missing(reply) else reply for reply in replies]

    def accepted(self, replies: list[Any], *, may_exist: bool = False) -> list[Any]:
        """Return the replies if no command was refused.

        Raises:
            ServerUnavailable: the server refused a command.
            Malformed: a key holds a value that no release stores there.
        """
        for reply in replies:
            if is_of_an_entry(reply):
                raise Malformed("a key on the server holds a value that no release stores there")
            if isinstance(reply, redis.RedisError):
                raise unavailable(reply, self.shown, timeout=self.timeout, may_exist=may_exist)
        return replies

    def connection(self) -> Any:
        """Return a connection outside the pool; the caller connects and disconnects it."""
        return self._pool.make_connection()

    def close(self) -> None:
        """Close all connections."""
        with suppress(redis.RedisError, OSError):
            self._idle.close()
            self._pool.disconnect()


def _pool(address: Address, timeout: float) -> redis.ConnectionPool:
    common: dict[str, Any] = {
        "db": address.db,
        "username": address.username,
        "password": address.password,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        # As many as there are threads. redis-py's default of 100 includes all connections ever made outside the pool: a
        # listener that lost its connection a hundred times would never get another.
        "max_connections": sys.maxsize,
    }
    if address.scheme == "unix":
        return redis.ConnectionPool(connection_class=redis.UnixDomainSocketConnection, path=address.path, **common)
    common["socket_keepalive"] = True
    tls = address.tls_options()
    if address.scheme == "sentinel":
        return _sentinel_pool(address, common, tls)
    host, port = address.hosts[0]
    kind = redis.SSLConnection if address.tls else redis.Connection
    return redis.ConnectionPool(connection_class=kind, host=host, port=port, **common, **tls)


def _sentinel_pool(address: Address, common: dict[str, Any], tls: dict[str, Any]) -> redis.ConnectionPool:
    """Return a pool of connections to the primary, for which the Sentinels are asked at each connect."""
    own = {name: common[name] for name in ("socket_timeout", "socket_connect_timeout", "socket_keepalive", "retry")}
    own["username"], own["password"] = address.sentinel_credentials
    if tls:
        own |= {"ssl": True, **tls}
    sentinel = Sentinel(list(address.hosts), sentinel_kwargs=own)
    return SentinelConnectionPool(address.service, sentinel, ssl=bool(tls), **common, **tls)
