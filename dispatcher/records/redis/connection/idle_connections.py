"""Connections between two uses. For ``records/redis/client.py`` alone.

redis-py's pool makes them and knows them all; what it does at each use (locks, a read that must fail, events for
observers) takes longer than a small command, so that idle ones wait here.
"""

from __future__ import annotations

import os
import select
from collections import deque
from typing import Any

from redis.sentinel import SentinelConnectionPool


class Idle:
    """Idle connections of a pool, the last used first; from any thread, and after a fork.

    Args:
        pool: redis-py's.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        # After a failover, connections to the old primary must go: that is the pool's to see.
        self._keeps = not isinstance(pool, SentinelConnectionPool)
        self._idle: deque[Any] = deque()
        self._pid = os.getpid()

    def take(self) -> Any:
        """A connection that is ready.

        Raises:
            RedisError, OSError: none can be made.
        """
        if self._pid != os.getpid():  # they are the parent's
            self._idle, self._pid = deque(), os.getpid()
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was quicker
                break
            if _is_silent(connection):
                return connection
            connection.disconnect()
            self._pool.release(connection)
        return self._pool.get_connection()

    def give_back(self, connection: Any) -> None:
        """Keep it for the next use."""
        if self._keeps and connection._sock is not None and self._pid == os.getpid():
            self._idle.append(connection)
        else:
            self._pool.release(connection)

    def close(self) -> None:
        """Close them all."""
        while self._idle:
            connection = self._idle.pop()
            connection.disconnect()
            self._pool.release(connection)


def _is_silent(connection: Any) -> bool:
    """Return True if nothing has come since its last use: neither the end of the connection nor a reply nobody waited
    for."""
    poll = select.poll()
    poll.register(connection._sock, select.POLLIN)
    return not poll.poll(0)
