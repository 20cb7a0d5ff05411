"""Workers in Redis."""

from __future__ import annotations

import json
from dataclasses import asdict

from dispatcher.ids import is_worker_id
from dispatcher.records.base import WorkerInfo, Workers
from dispatcher.records.redis.client import Client
from dispatcher.records.redis.keys import INSTANCE, Keys
from dispatcher.records.redis.scripts import script
from dispatcher.runs import indexes
from dispatcher.runs.routing import Offer


class RedisWorkers(Workers):
    """What workers say in one hash, their counters in another, the times of their last beats in a sorted set."""

    def __init__(self, client: Client, keys: Keys, *, instance: str, clock_offset: float) -> None:
        self._client = client
        self._keys = keys
        self._instance = instance
        self._offset = clock_offset

    def announce(self, info: WorkerInfo) -> None:
        keys = [self._keys.workers, self._keys.beats, self._keys.beaten]
        self._client.run(script("announce"), keys, self._offset, info.id, _dump(info))

    def beat(self, worker_id: str) -> bool:
        keys = [self._keys.workers, self._keys.beats, self._keys.beaten]
        known = self._client.one("GET", INSTANCE)
        if known is None:  # the server lost its data; an ACL may let others bring the id back
            self._client.call([("SET", INSTANCE, self._instance, "NX")])
        return bool(self._client.run(script("beat"), keys, self._offset, worker_id))

    def beats(self) -> dict[str, int]:
        flat = self._client.one("HGETALL", self._keys.beats)
        by_name = {flat[n].decode(errors="replace"): flat[n + 1] for n in range(0, len(flat), 2)}
        # Who is no worker is never taken for dead: a shard's name here would have all its runs taken for lost.
        return {name: int(count) for name, count in by_name.items() if is_worker_id(name)}

    def live(self, *, within: float = 30.0) -> list[WorkerInfo]:
        keys = self._keys
        now, beaten, said = self._client.accepted(
            self._client.call(
                [("TIME",), ("ZRANGE", keys.beaten, 0, -1, "WITHSCORES"), ("HGETALL", keys.workers)],
            )
        )
        oldest = int(now[0]) + int(now[1]) / 1e6 + self._offset - within
        infos = dict(zip(said[0::2], said[1::2], strict=True))
        lately = [name for name, at in zip(beaten[0::2], beaten[1::2], strict=True) if float(at) >= oldest]
        return [_load(infos[name]) for name in lately if name in infos]

    def remove(self, worker_id: str) -> bool:
        keys = self._keys
        owned = keys.index(indexes.owned(worker_id))
        return bool(self._client.run(script("remove"), [keys.workers, keys.beats, keys.beaten, owned], worker_id))


def _dump(info: WorkerInfo) -> str:
    return json.dumps({**asdict(info), "offer": info.offer.to_json(), "data": dict(info.data)})


def _load(raw: bytes) -> WorkerInfo:
    data = json.loads(raw)
    return WorkerInfo(**{**data, "offer": Offer.from_json(data["offer"]), "queues": tuple(data["queues"])})
