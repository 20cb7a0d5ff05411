"""Somebody who may write to the server, and what they write there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from dispatcher import flow
from dispatcher.records.redis.keys import Keys
from dispatcher.records.refusals import What
from tests.integration.workers import Bench, Worker

StartWorker = Callable[..., Worker]


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
    """Somebody who may write whatever they like."""

    def __init__(self, url: str, bench: Bench) -> None:
        self.server: Any = redis.Redis.from_url(url)
        self.keys = Keys(bench.records.instance)
        self.bench = bench

    def template(self) -> dict[bytes, bytes]:
        """The fields of a run that ended well."""
        run_id = self.bench.submit(one)
        self.bench.ended(run_id)
        found: dict[bytes, bytes] = self.server.hgetall(self.keys.run(run_id))
        return found

    def record(self, run_id: str, fields: dict[bytes, bytes], *, index: dict[str, float]) -> None:
        """Store a record, and stand it in indexes."""
        if fields:
            self.server.hset(self.keys.run(run_id), mapping={**fields, b"id": run_id.encode()})
        for name, score in index.items():
            self.server.zadd(self.keys.index(name), {run_id: score})

    def members(self, index: str) -> set[str]:
        """Who stands in an index."""
        return {name.decode() for name in self.server.zrange(self.keys.index(index), 0, -1)}


def spec_but(template: dict[bytes, bytes], **changes: Any) -> dict[bytes, bytes]:
    """A record with another spec."""
    return {**template, b"spec_bytes": json.dumps({**json.loads(template[b"spec_bytes"]), **changes}).encode()}


def tally(bench: Bench) -> int:
    """How many malformed entries were counted."""
    found = bench.records.refusals.tallies().get(What.ENTRY)
    return found.count if found else 0


def records_of(template: dict[bytes, bytes]) -> dict[str, dict[bytes, bytes]]:
    """Records that nobody can read, or whose spec nobody can."""
    fields: dict[str, bytes] = {
        "version": b"x",
        "attempt": b"9" * 5000,
        "epoch": b"-1",
        "rings": b"1e9",
        "outcome": b"[]",
        "outcome ": DEEP,
        "created_at": b"nan",
        "queued_at": b"inf",
        "rung_at": b"",
        "due_at": b"1e400",
        "ended_at": b"soon",
        "leftovers": b"{}",
        "leftovers ": b"[1]",
        "leftovers  ": b'[{"attempt": "x"}]',
        "times": b"[1]",
        "times ": b'{"1": {"created": NaN}}',
        "handle": b"3",
        "request": b'{"shard": []}',
        "state": b"\xff\xfe",
        "owner": b"\xff" * 9000,
        "last_message": b"\xff",
    }
    broken = {name: {**template, name.strip().encode(): raw} for name, raw in fields.items()}
    without = {
        f"no {name}": {key: one for key, one in template.items() if key != name.encode()}
        for name in ("state", "signature")
    }
    specs: dict[str, dict[bytes, bytes]] = {
        "deep spec": {**template, b"spec_bytes": DEEP},
        "spec not utf-8": {**template, b"spec_bytes": b"\xff\xfe"},
        "spec a list": {**template, b"spec_bytes": b"[1]"},
        "spec empty": {**template, b"spec_bytes": b""},
        "endless retries": spec_but(template, options={"retries": {"count": 10**12}}),
        "retries a word": spec_but(template, options={"retries": "x"}),
        "timeout a list": spec_but(template, options={"timeout": []}),
        "labels lists": spec_but(template, route={"backend": "local", "labels": [["a"]], "scope": ""}),
        "backend a list": spec_but(template, route={"backend": [], "labels": [], "scope": ""}),
        "no parameters": spec_but(template, parameters=None),
        "flow a surrogate": spec_but(template, flow="\ud800"),
    }  # fmt: skip
    return {**broken, **without, **specs}
