"""The register of static infrastructure in Redis: a sorted set of all objects, and one of each worker's own notes."""

from __future__ import annotations

import json
from functools import partial

from dispatcher.errors import Malformed
from dispatcher.records.malformed import MalformedEntries
from dispatcher.records.redis.connection.client import Client
from dispatcher.records.redis.keys import Keys
from dispatcher.records.static import LONGEST, StaticObject, StaticObjects
from dispatcher.support.parsing import read_json

#: Seconds for which a worker's notes are kept.
_KEPT = 3600

#: Most objects that are read.
_MOST = 10_000

_MOST_BYTES = 8 * LONGEST


class RedisStaticObjects(StaticObjects):
    """Members are objects as JSON, scores are times of use."""

    def __init__(self, client: Client, keys: Keys, *, clock_offset: float, malformed: MalformedEntries) -> None:
        self._client = client
        self._keys = keys
        self._offset = clock_offset
        self._malformed = malformed

    def expect(self, thing: StaticObject) -> None:
        self._client.one("ZADD", self._keys.static, "GT", self._now(), _packed(thing))

    def note(self, thing: StaticObject, worker: str) -> None:
        own, now = self._keys.static_of(worker), self._now()
        self._client.many([
            ("ZADD", self._keys.static, "GT", now, _packed(thing)),
            ("ZADD", own, "GT", now, _packed(thing)),
            ("EXPIRE", own, _KEPT),
        ])  # fmt: skip

    def age(self, thing: StaticObject, worker: str) -> float | None:
        time, noted = self._client.many([("TIME",), ("ZSCORE", self._keys.static_of(worker), _packed(thing))])
        return None if noted is None else self._seconds(time) - float(noted)

    def known(self) -> dict[StaticObject, float]:
        time, flat = self._client.many([("TIME",), ("ZRANGE", self._keys.static, 0, _MOST - 1, "WITHSCORES")])
        now = self._seconds(time)
        ages: dict[StaticObject, float] = {}
        for member, used in zip(flat[0::2], flat[1::2], strict=True):
            thing = self._malformed.read(f"static object {member!r}", partial(_parse, member))
            if thing is not None:
                ages[thing] = now - float(used)
        return ages

    def forget(self, thing: StaticObject, *, unused_for: float) -> bool:
        key, member = self._keys.static, _packed(thing)
        commands = [("MULTI",), ("ZSCORE", key, member), ("ZREM", key, member), ("EXEC",)]
        used, _ = self._client.accepted(self._client.many(commands)[-1])
        if used is None or self._now() - float(used) >= unused_for:
            return True
        self._client.one("ZADD", key, "GT", float(used), member)
        return False

    def _now(self) -> float:
        return self._seconds(self._client.one("TIME"))

    def _seconds(self, time: list[bytes]) -> float:
        return int(time[0]) + int(time[1]) / 1_000_000 + self._offset


def _packed(thing: StaticObject) -> str:
    return json.dumps([thing.backend, thing.place, thing.name])


def _parse(member: bytes) -> StaticObject:
    parts = read_json(member, "static object", most=_MOST_BYTES)
    if not isinstance(parts, list) or len(parts) != 3:
        raise Malformed("static object: must be a list of three strings")
    backend, place, name = parts
    if not all(isinstance(part, str) and len(part) <= LONGEST for part in parts):
        raise Malformed(f"static object: each part must be a string of at most {LONGEST} characters")
    return StaticObject(backend=backend, place=place, name=name)
