"""A real worker, rung with words that name other keys, break out of JSON and forge log lines."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable

import pytest
import redis

from dispatcher import Dispatcher, flow
from dispatcher.broker.doorbell import body_of, envelope, headers_of
from dispatcher.records.redis import open_redis
from dispatcher.runs.change import CALL_ON_EXIT, EXECUTE, Ring
from dispatcher.runs.routing import Route
from dispatcher.settings import Settings
from tests.integration.workers import KEYS, Worker
from tests.steering import STEERING, steers

pytestmark = pytest.mark.integration

WORDS = f"w{''.join(STEERING.values())}\n1999-01-01 00:00:00 INFO all is well"
IDS = [
    "", WORDS, "r1:events", "../x", "%s%1", "{", "a\0b", '"],["SET","stolen","1"],["HSET","x', "a" * 1000,
    'x"]],[["SET","stolen","1"]]', None, 3, ["r1"], {"run_id": "r1"}, True,
]  # fmt: skip


@flow
def fine() -> int:
    return 1


def _message(task: str, run_id: object) -> bytes:
    ring = Ring(run_id="r1", task=task, flow="f", route=Route("local"))
    outer = json.loads(envelope(ring))
    kwargs = {"run_id": run_id, "flow": WORDS, "backend": WORDS, "labels": [WORDS]}
    outer["headers"] = headers_of(task, outer["headers"]["id"], kwargs)
    outer["body"] = base64.b64encode(json.dumps(body_of(kwargs)).encode()).decode()
    return json.dumps(outer).encode()


def test_doorbells_of_hostile_words_are_dropped(server_url: str, start_worker: Callable[..., Worker]) -> None:
    worker = start_worker(concurrency=1)
    settings = Settings.load(url=server_url, signing_keys=json.dumps(KEYS))
    with Dispatcher(settings=settings) as client, redis.Redis.from_url(server_url) as server:
        assert client.submit(fine).result(timeout=60) == 1
        records = open_redis(server_url)
        before = set(server.keys())
        try:
            for task in (EXECUTE, CALL_ON_EXIT, WORDS):
                server.lpush(f"{records.instance}:local", *(_message(task, run_id) for run_id in IDS))
        finally:
            records.close()
        runs = [client.submit(fine) for _ in range(3)]
        assert [run.result(timeout=60) for run in runs] == [1, 1, 1]
        new = {key.decode() for key in set(server.keys()) - before}
        ours = ("::ix:", "::report:")  # indexes, and for a minute the nonces of counted rejections
        assert not [key for key in new if not any(word in key for word in (*ours, *(run.id for run in runs)))]
        assert not server.exists("stolen")
    assert worker.process.poll() is None
    assert not steers(worker.output)
    lines = worker.output.splitlines()
    assert not [
        line for line in lines if not re.match(r"\d{4}-\d\d-\d\d ", line) or line.startswith("1999-01-01 00:00:00")
    ]
