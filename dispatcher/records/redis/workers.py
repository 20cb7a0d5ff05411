"""The register of workers in Redis."""

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
    """Workers in one hash, heartbeat counters in another, times of the last heartbeats in a sorted set."""

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
        if self._client.one("GET", INSTANCE) is None:  # the server lost its data: restore the id if the ACL allows it
            self._client.call([("SET", INSTANCE, self._instance, "NX")])
        return bool(self._client.run(script("beat"), keys, self._offset, worker_id))

    def beats(self) -> dict[str, int]:
        flat = self._client.one("HGETALL", self._keys.beats)
        counters: dict[str, int] = {}
        for name, counter in zip(flat[0::2], flat[1::2], strict=True):
            entry = self._malformed.read(f"beats of worker {name!r}", partial(_parse_beats, name, counter))
            if entry is not None:
                counters[entry[0]] = entry[1]
        return counters

    def live(self, *, within: float = 30.0) -> list[WorkerInfo]:
        keys = self._keys
        now, beaten, workers = self._client.accepted(
            self._client.call(
                [("TIME",), ("ZRANGE", keys.beaten, 0, -1, "WITHSCORES"), ("HGETALL", keys.workers)],
            )
        )
        oldest = int(now[0]) + int(now[1]) / 1e6 + self._offset - within
        infos = dict(zip(workers[0::2], workers[1::2], strict=True))
        recent = [name for name, at in zip(beaten[0::2], beaten[1::2], strict=True) if float(at) >= oldest]
        parsed = (
            self._malformed.read(f"worker {name!r}", partial(_parse_worker, name, infos[name]))
            for name in recent
            if name in infos
        )
        return [info for info in parsed if info is not None]

    def remove(self, worker_id: str) -> bool:
        keys = self._keys
        owned = keys.index(indexes.owned(worker_id))
        return bool(self._client.run(script("remove"), [keys.workers, keys.beats, keys.beaten, owned], worker_id))


def _dump(info: WorkerInfo) -> str:
    return json.dumps({**asdict(info), "offer": info.offer.to_json(), "data": dict(info.data)})


def _parse_worker(name: bytes, raw: bytes) -> WorkerInfo:
    data = read_object(raw, "worker")
    more = Fields(data.object("data", {}), "worker: data")
    for field in ("supervises", "knows"):
        more.names(field, ())
    more.object("places", {})
    if data.name("id") != name_of(name, "worker"):
        raise Malformed("worker: belongs to another worker")
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


def _parse_beats(name: bytes, counter: bytes) -> tuple[str, int]:
    worker = name_of(name, "worker")
    if not is_worker_id(worker):  # with a shard's name here, all its runs would count as lost
        raise Malformed("worker: its id isn't valid")
    return worker, whole_of(counter, "worker: beats")
