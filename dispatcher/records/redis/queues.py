"""Queues in Redis."""

from __future__ import annotations

import json

from dispatcher.records.base import Queues
from dispatcher.records.redis.client import Client
from dispatcher.records.redis.keys import Keys
from dispatcher.records.redis.scripts import script
from dispatcher.runs.indexes import waiting
from dispatcher.runs.routing import Route


class RedisQueues(Queues):
    """Times in sorted sets, routes in a hash."""

    def __init__(self, client: Client, keys: Keys, *, clock_offset: float) -> None:
        self._client = client
        self._keys = keys
        self._offset = clock_offset

    def known(self) -> dict[str, tuple[Route, float]]:
        used, routes = self._client.accepted(
            self._client.call([("ZRANGE", self._keys.queues, 0, -1, "WITHSCORES"), ("HGETALL", self._keys.routes)])
        )
        by_name = dict(zip(routes[0::2], routes[1::2], strict=True))
        found = {}
        for name, at in zip(used[0::2], used[1::2], strict=True):
            route = _route(by_name.get(name))
            if route is not None and route.queue.encode() == name:  # a queue is called by its route, and not otherwise
                found[route.queue] = route, float(at)
        return found

    def passed(self) -> dict[str, float]:
        flat = self._client.one("ZRANGE", self._keys.passed, 0, -1, "WITHSCORES")
        return {name.decode(errors="replace"): float(at) for name, at in zip(flat[0::2], flat[1::2], strict=True)}

    def retire(self, *, unused_for: float) -> list[str]:
        keys = [self._keys.queues, self._keys.routes, self._keys.passed]
        prefix = self._keys.index(waiting(""))
        return [name.decode() for name in self._client.run(script("retire"), keys, self._offset, unused_for, prefix)]


def _route(raw: bytes | None) -> Route | None:
    """What the registry keeps of a queue; None if it's none."""
    try:
        return None if raw is None else Route.from_json(json.loads(raw))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
