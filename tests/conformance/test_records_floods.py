"""A flooded registry of queues is read as fast as before, and is emptied."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from dispatcher.records.base import Records
from dispatcher.records.redis import open_redis
from dispatcher.records.redis.keys import Keys
from dispatcher.runs.indexes import waiting
from dispatcher.runs.routing import MOST_QUEUES, Route
from tests.conformance.specs import accept

FLOOD = 40_000

DAY = 86400.0


@pytest.fixture
def records(server_url: str) -> Iterator[Records]:
    opened = open_redis(server_url)
    yield opened
    opened.close()


@pytest.fixture
def raw(server_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(server_url) as connection:
        yield connection


def fill(raw: Any, keys: Keys, score: float, *, routes: bool) -> None:
    for first in range(0, FLOOD, 10_000):
        names = [f"local:q{number}" for number in range(first, first + 10_000)]
        raw.zadd(keys.queues, dict.fromkeys(names, score))
        if routes:
            raw.hset(keys.routes, mapping={name: json.dumps(Route("local", (name[6:],)).to_json()) for name in names})


@pytest.mark.parametrize("score", [0.0, 1.0, float("inf")])
@pytest.mark.parametrize("routes", [False, True])
def test_a_flooded_registry_of_queues(records: Records, raw: Any, score: float, routes: bool) -> None:
    """Used queues stay registered, unused names are retired. A score of 1 stands for now."""
    keys = Keys(records.instance)
    accept(records, labels=("mine",))
    fill(raw, keys, time.time() if score == 1.0 else score, routes=routes)
    record = accept(records, labels=("mine",))
    began = time.monotonic()
    queues = records.queues.known()
    assert time.monotonic() - began < 3.0
    assert "local:mine" in queues
    assert len(queues) <= MOST_QUEUES
    swept = 0
    while retired := records.queues.retire(unused_for=DAY):
        swept += len(retired)
    assert swept >= FLOOD - MOST_QUEUES - 1
    assert "local:mine" in records.queues.known(), "a run waits there"
    assert raw.zcard(keys.index(waiting("local:mine"))) == 2
    assert record.spec.route.queue == "local:mine"
    accept(records, labels=("another",))
    assert "local:another" in records.queues.known()


def test_a_queue_whose_last_use_is_in_the_future_is_registered_again(records: Records, raw: Any) -> None:
    keys = Keys(records.instance)
    accept(records)
    raw.zadd(keys.queues, {"local": "inf"})
    assert records.queues.known() == {}
    assert records.queues.retire(unused_for=DAY) == []
    assert list(records.queues.known()) == ["local"]
