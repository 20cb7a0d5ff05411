"""Queues in Redis."""

from __future__ import annotations

from functools import lru_cache, partial

from dispatcher.errors import Malformed
from dispatcher.records.malformed import MalformedEntries
from dispatcher.records.queues import Queues
from dispatcher.records.redis.connection.client import Client
from dispatcher.records.redis.keys import Keys
from dispatcher.records.redis.scripts import script
from dispatcher.runs.indexes import waiting
from dispatcher.runs.routing import MOST_QUEUES, Route
from dispatcher.support.parsing import name_of, number_of, read_json

#: Most bytes of a route.
_MOST = 2**16

#: Most scripts of one sweep; each retires a thousand queues of a sort. So a flood of names is gone within minutes.
_SWEPT = 100


class RedisQueues(Queues):
    """Times in sorted sets, routes in a hash."""

    def __init__(self, client: Client, keys: Keys, *, clock_offset: float, malformed: MalformedEntries) -> None:
        self._client = client
        self._keys = keys
        self._offset = clock_offset
        self._malformed = malformed

    def known(self) -> dict[str, tuple[Route, float]]:
        found: dict[str, tuple[Route, float]] = {}
        for name, at, route in self._client.run(script("known"), [self._keys.queues, self._keys.routes], self._offset):
            queue = self._malformed.read(f"queue {name!r}", partial(_queue, name, at, route))
            if queue is not None:
                found[queue[0].queue] = queue
        return found

    def passed(self) -> dict[str, float]:
        flat = self._client.one("ZRANGE", self._keys.passed, 0, MOST_QUEUES - 1, "REV", "WITHSCORES")
        found: dict[str, float] = {}
        for name, at in zip(flat[0::2], flat[1::2], strict=True):
            one = self._malformed.read(f"time of queue {name!r}", partial(_time, name, at))
            if one is not None:
                found[one[0]] = one[1]
        return found

    def retire(self, *, unused_for: float) -> list[str]:
        keys = [self._keys.queues, self._keys.routes, self._keys.passed]
        prefix = self._keys.index(waiting(""))
        retired: list[bytes] = []
        for _ in range(_SWEPT):
            portion = self._client.run(script("retire"), keys, self._offset, unused_for, prefix)
            retired += portion
            if not portion:
                break
        return [name.decode(errors="replace") for name in retired]


def _queue(name: bytes, at: bytes, route: bytes) -> tuple[Route, float]:
    return _route(name, route), number_of(at, "queue: last use")


@lru_cache(maxsize=MOST_QUEUES)
def _route(name: bytes, route: bytes) -> Route:
    read = Route.from_json(read_json(route, "route", most=_MOST))
    if read.queue != name_of(name, "queue"):
        raise Malformed("route: is another queue's")
    return read


def _time(name: bytes, at: bytes) -> tuple[str, float]:
    return name_of(name, "queue"), number_of(at, "queue: last claim")
