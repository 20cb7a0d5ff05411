"""The registry of queues in Redis."""

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

#: Most bytes of a stored route.
_LONGEST_ROUTE = 2**16

#: Most calls of the function in one sweep. Each retires up to a thousand queues, so a flood is gone within minutes.
_MOST_CALLS = 100


class RedisQueues(Queues):
    """Times of use in sorted sets, routes in a hash."""

    def __init__(self, client: Client, keys: Keys, *, clock_offset: float, malformed: MalformedEntries) -> None:
        self._client = client
        self._keys = keys
        self._offset = clock_offset
        self._malformed = malformed

    def known(self) -> dict[str, tuple[Route, float]]:
        queues: dict[str, tuple[Route, float]] = {}
        for name, at, route in self._client.run(script("known"), [self._keys.queues, self._keys.routes], self._offset):
            queue = self._malformed.read(f"queue {name!r}", partial(_parse_queue, name, at, route))
            if queue is not None:
                queues[queue[0].queue] = queue
        return queues

    def passed(self) -> dict[str, float]:
        flat = self._client.one("ZRANGE", self._keys.passed, 0, MOST_QUEUES - 1, "REV", "WITHSCORES")
        times: dict[str, float] = {}
        for name, at in zip(flat[0::2], flat[1::2], strict=True):
            entry = self._malformed.read(f"time of queue {name!r}", partial(_parse_time, name, at))
            if entry is not None:
                times[entry[0]] = entry[1]
        return times

    def retire(self, *, unused_for: float) -> list[str]:
        keys = [self._keys.queues, self._keys.routes, self._keys.passed]
        prefix = self._keys.index(waiting(""))
        retired: list[bytes] = []
        for _ in range(_MOST_CALLS):
            portion = self._client.run(script("retire"), keys, self._offset, unused_for, prefix)
            retired += portion
            if not portion:
                break
        return [name.decode(errors="replace") for name in retired]


def _parse_queue(name: bytes, at: bytes, route: bytes) -> tuple[Route, float]:
    return _parse_route(name, route), number_of(at, "queue: last use")


@lru_cache(maxsize=MOST_QUEUES)
def _parse_route(name: bytes, route: bytes) -> Route:
    parsed = Route.from_json(read_json(route, "route", most=_LONGEST_ROUTE))
    if parsed.queue != name_of(name, "queue"):
        raise Malformed("route: belongs to another queue")
    return parsed


def _parse_time(name: bytes, at: bytes) -> tuple[str, float]:
    return name_of(name, "queue"), number_of(at, "queue: last claim")
