"""An attacker with the clients' Redis user and no signing key."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from dispatcher.broker.doorbell import envelope
from dispatcher.records.redis.keys import Keys
from dispatcher.runs import indexes
from dispatcher.runs.change import EXECUTE, Ring
from dispatcher.runs.record import Record
from dispatcher.runs.routing import Route
from tests.integration.acl_server import INSTANCE, AclServer


class Attacker:
    """Writes forged records."""

    def __init__(self, acl_server: AclServer) -> None:
        self.server: Any = acl_server.as_user("client")
        self.keys = Keys(INSTANCE)

    def stored(self, run_id: str) -> dict[bytes, bytes]:
        """Return the fields of a record."""
        fields: dict[bytes, bytes] = self.server.hgetall(self.keys.run(run_id))
        return fields

    def write(self, run_id: str, fields: Mapping[Any, Any], **placed: float) -> None:
        """Store a record in place of the present one, and add it to indexes."""
        mapping = {name if isinstance(name, bytes) else name.encode(): value for name, value in fields.items()}
        if obsolete := self.stored(run_id).keys() - mapping.keys():
            self.server.hdel(self.keys.run(run_id), *obsolete)
        self.server.hset(self.keys.run(run_id), mapping=mapping)
        for index, score in placed.items():
            self.server.zadd(self.keys.index(index.replace("__", ":")), {run_id: score})

    def forged(self, record: Record, **fields: str) -> str:
        """Store a record with an invalid signature, and return its id."""
        original = record.but(signature="00" * 32).to_fields()
        now = repr(time.time())
        times = {"created_at": now, "queued_at": now, "rung_at": now, "version": "1", "rings": "1"}
        self.write(record.id, {**original, **times, **fields}, all=time.time(), open=time.time())
        queue = record.spec.route.queue
        self.server.zadd(self.keys.queues, {queue: time.time()})
        self.server.hset(self.keys.routes, queue, json.dumps(record.spec.route.to_json()))
        self.server.zadd(self.keys.index(indexes.waiting(queue)), {record.id: time.time() - 60})
        return record.id

    def wait(self, run_id: str, queue: str = "local") -> None:
        """Add a run to the waiting ones, and ring for it."""
        self.server.zadd(self.keys.index(indexes.waiting(queue)), {run_id: time.time() - 60})
        ring = Ring(run_id=run_id, task=EXECUTE, flow="notes", route=Route("local"))
        self.server.lpush(f"{INSTANCE}:{queue}", envelope(ring))
