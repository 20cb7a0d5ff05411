"""Idle connections. For ``records/redis/connection/client.py`` alone.

redis-py's pool makes the connections and lists them all. Taking one from it (locks, a read that must fail, events for
observers) takes longer than a small command, so idle ones are kept here.
"""

from __future__ import annotations

import os
import select
from collections import deque
from typing import Any

from redis.sentinel import SentinelConnectionPool


class IdleConnections:
    """Idle connections of a pool, the last used first. Safe from any thread, and after a fork.

    Args:
        pool: redis-py's.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        # With Sentinel, the pool itself drops connections to the old primary after a failover.
        self._keeps = not isinstance(pool, SentinelConnectionPool)
        self._idle: deque[Any] = deque()
        self._pid = os.getpid()

    def take(self) -> Any:
        """Return a connection that is ready for a command.

        Raises:
            RedisError, OSError: the server can't be reached.
        """
        if self._pid != os.getpid():  # they belong to the parent process
            self._idle, self._pid = deque(), os.getpid()
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread took the last one
                break
            if _is_silent(connection):
                return connection
            connection.disconnect()
            self._pool.release(connection)
        return self._pool.get_connection()

    def give_back(self, connection: Any) -> None:
        """Keep a connection for the next use."""
        if self._keeps and connection._sock is not None and self._pid == os.getpid():
            self._idle.append(connection)
        else:
            self._pool.release(connection)

    def close(self) -> None:
        """Close all idle connections."""
        while self._idle:
            connection = self._idle.pop()
            connection.disconnect()
            self._pool.release(connection)


def _is_silent(connection: Any) -> bool:
    """Return True if nothing arrived since the last use: neither the end of the connection nor a late reply."""
    poll = select.poll()
    poll.register(connection._sock, select.POLLIN)
    return not poll.poll(0)
