"""Workers in Redis."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial

from dispatcher.errors import Malformed
from dispatcher.records.malformed import MalformedEntries
from dispatcher.records.redis.connection.client import Client
from dispatcher.records.redis.keys import INSTANCE, Keys
from dispatcher.records.redis.scripts import script
from dispatcher.records.workers import WorkerInfo, Workers
from dispatcher.runs import indexes
from dispatcher.runs.routing import Offer
from dispatcher.support.ids import is_worker_id
from dispatcher.support.parsing import Fields, name_of, read_object, whole_of


class RedisWorkers(Workers):
    """Workers in one hash, their counters in another, the times of their last beats in a sorted set."""

    def __init__(
        self, client: Client, keys: Keys, *, instance: str, clock_offset: float, malformed: MalformedEntries
    ) -> None:
        self._malformed = malformed
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
        found: dict[str, int] = {}
        for name, counter in zip(flat[0::2], flat[1::2], strict=True):
            beat = self._malformed.read(f"beats of worker {name!r}", partial(_beat, name, counter))
            if beat is not None:
                found[beat[0]] = beat[1]
        return found

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
        read = (
            self._malformed.read(f"worker {name!r}", partial(_load, name, infos[name]))
            for name in lately
            if name in infos
        )
        return [info for info in read if info is not None]

    def remove(self, worker_id: str) -> bool:
        keys = self._keys
        owned = keys.index(indexes.owned(worker_id))
        return bool(self._client.run(script("remove"), [keys.workers, keys.beats, keys.beaten, owned], worker_id))


def _dump(info: WorkerInfo) -> str:
    return json.dumps({**asdict(info), "offer": info.offer.to_json(), "data": dict(info.data)})


def _load(name: bytes, raw: bytes) -> WorkerInfo:
    data = read_object(raw, "worker")
    more = Fields(data.object("data", {}), "worker: data")
    for known in ("supervises", "knows"):
        more.names(known, ())
    if data.name("id") != name_of(name, "worker"):
        raise Malformed("worker: is another one's")
    return WorkerInfo(
        id=data.name("id"),
        host=data.name("host"),
        pid=data.whole("pid"),
        offer=Offer.from_json(data.get("offer")),
        concurrency=data.whole("concurrency"),
        started_at=data.number("started_at"),
        python=data.name("python", ""),
        version=data.name("version", ""),
        celery_name=data.name("celery_name", ""),
        queues=data.names("queues", ()),
        data=more.data,
    )


def _beat(name: bytes, counter: bytes) -> tuple[str, int]:
    worker = name_of(name, "worker")
    if not is_worker_id(worker):  # a shard's name here would have all its runs taken for lost
        raise Malformed("worker: its id hasn't the form of one")
    return worker, whole_of(counter, "worker: beats")
