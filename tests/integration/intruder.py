"""An intruder with write access to the server, for tests of malformed entries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import redis

from dispatcher import flow
from dispatcher.records.redis.keys import Keys
from dispatcher.records.rejections import Rejected
from tests.integration.workers import Bench

DEEP = b"[" * 100_000 + b"]" * 100_000


@flow
def one() -> int:
    return 1


@flow
def waits(path: str) -> int:
    import time

    while not Path(path).exists():
        time.sleep(0.02)
    return 1


class Intruder:
    """Writes arbitrary entries to the server."""

    def __init__(self, url: str, bench: Bench) -> None:
        self.server: Any = redis.Redis.from_url(url)
        self.keys = Keys(bench.records.instance)
        self.bench = bench

    def template(self) -> dict[bytes, bytes]:
        """Return the fields of a run that has succeeded."""
        run_id = self.bench.submit(one)
        self.bench.ended(run_id)
        fields: dict[bytes, bytes] = self.server.hgetall(self.keys.run(run_id))
        return fields

    def record(self, run_id: str, fields: dict[bytes, bytes], *, index: dict[str, float]) -> None:
        """Store a record, and add it to indexes."""
        if fields:
            self.server.hset(self.keys.run(run_id), mapping={**fields, b"id": run_id.encode()})
        for name, score in index.items():
            self.server.zadd(self.keys.index(name), {run_id: score})

    def members(self, index: str) -> set[str]:
        """Return the members of an index."""
        return {name.decode() for name in self.server.zrange(self.keys.index(index), 0, -1)}


def tally(bench: Bench) -> int:
    """Return the number of malformed entries that were counted."""
    entries = bench.records.rejections.tallies().get(Rejected.ENTRY)
    return entries.count if entries else 0
