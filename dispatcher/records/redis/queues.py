"""Queues in Redis."""

from __future__ import annotations

from functools import partial

from dispatcher.errors import Malformed
from dispatcher.parsing import name_of, number_of, read_json
from dispatcher.records.base import Queues
from dispatcher.records.left_out import LeftOut
from dispatcher.records.redis.client import Client
from dispatcher.records.redis.keys import Keys
from dispatcher.records.redis.scripts import script
from dispatcher.runs.indexes import waiting
from dispatcher.runs.routing import Route

#: Most bytes of a route.
_MOST = 2**16


class RedisQueues(Queues):
    """Times in sorted sets, routes in a hash."""

    def __init__(self, client: Client, keys: Keys, *, clock_offset: float, left_out: LeftOut) -> None:
        self._client = client
        self._keys = keys
        self._offset = clock_offset
        self._left_out = left_out

    def known(self) -> dict[str, tuple[Route, float]]:
        used, routes = self._client.accepted(
            self._client.call([("ZRANGE", self._keys.queues, 0, -1, "WITHSCORES"), ("HGETALL", self._keys.routes)])
        )
        by_name = dict(zip(routes[0::2], routes[1::2], strict=True))
        found: dict[str, tuple[Route, float]] = {}
        for name, at in zip(used[0::2], used[1::2], strict=True):
            if name in by_name:
                queue = self._left_out.read(f"queue {name!r}", partial(_queue, name, at, by_name[name]))
                if queue is not None:
                    found[queue[0].queue] = queue
        return found

    def passed(self) -> dict[str, float]:
        flat = self._client.one("ZRANGE", self._keys.passed, 0, -1, "WITHSCORES")
        found: dict[str, float] = {}
        for name, at in zip(flat[0::2], flat[1::2], strict=True):
            one = self._left_out.read(f"time of queue {name!r}", partial(_time, name, at))
            if one is not None:
                found[one[0]] = one[1]
        return found

    def retire(self, *, unused_for: float) -> list[str]:
        keys = [self._keys.queues, self._keys.routes, self._keys.passed]
        prefix = self._keys.index(waiting(""))
        retired = self._client.run(script("retire"), keys, self._offset, unused_for, prefix)
        return [name.decode(errors="replace") for name in retired]


def _queue(name: bytes, at: bytes, route: bytes) -> tuple[Route, float]:
    read = Route.from_json(read_json(route, "route", most=_MOST))
    if read.queue != name_of(name, "queue"):
        raise Malformed("route: is another queue's")
    return read, number_of(at, "queue: last use")


def _time(name: bytes, at: bytes) -> tuple[str, float]:
    return name_of(name, "queue"), number_of(at, "queue: last claim")
