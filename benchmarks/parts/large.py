"""50 MB as a parameter and as a result, against SET and GET of the same bytes by redis-py."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from benchmarks import ours
from benchmarks.bench import Bench, Measure, Part, turns
from benchmarks.figures import By, Figure, Measured, Pair
from benchmarks.machine import redis, server
from dispatcher import Dispatcher, LocalEnvironment, flow

BASE = "redis-py, SET and GET"
FIGURES = (
    Figure(name="a 50 MB parameter", unit="MB/s", bound=0.5, more_is_better=True, base=BASE),
    Figure(name="a 50 MB result", unit="MB/s", bound=0.5, more_is_better=True, base=BASE),
    Figure(name="message of a run with 50 MB", unit="B", bound=4096, by=By.OURS, base="", digits=0),
)

_MB = 50
_NOBODY = LocalEnvironment(labels=["nobody"])


@flow
def takes(data: bytes) -> int:
    """Takes it."""
    return len(data)


@flow
def gives(size: int, salt: int) -> bytes:
    """Gives as much."""
    return salt.to_bytes(8, "big") * (size // 8)


@contextmanager
def opened(bench: Bench) -> Iterator[Measure]:
    """Our worker, and redis-py on the same server."""
    with server() as socket, ours.worker(socket), ours.client(socket) as client, redis(socket) as plain:

        def measure(number: int) -> Measured:
            # Others than last time: what was sent before isn't sent again.
            sent, given = {"ours": os.urandom(_MB * 2**20), "base": os.urandom(_MB * 2**20)}, number + 1
            bench.say("a parameter")
            ways = {
                "ours": lambda: _parameter(client, sent["ours"]),
                "base": lambda: _plain(plain, sent["base"]),
            }
            parameter = turns(number, ways)
            bench.say("a result")
            result = turns(
                number, {"ours": partial(_result, client, given), "base": partial(_plain, plain, sent["base"])}
            )
            return {
                FIGURES[0].name: Pair(**parameter),
                FIGURES[1].name: Pair(**result),
                FIGURES[2].name: Pair(_message(client, plain, sent["ours"])),
            }

        yield measure


def _parameter(client: Dispatcher, data: bytes) -> float:
    begin = time.perf_counter()
    found = client.submit(takes, {"data": data}, environment=ours.HERE).result(timeout=ours.WITHIN)
    seconds = time.perf_counter() - begin
    if found != len(data):
        raise RuntimeError(f"{found} bytes arrived")
    return _MB / seconds


def _result(client: Dispatcher, salt: int) -> float:
    begin = time.perf_counter()
    parameters = {"size": _MB * 2**20, "salt": salt}
    found = client.submit(gives, parameters, environment=ours.HERE).result(timeout=ours.WITHIN)
    seconds = time.perf_counter() - begin
    if len(found) != _MB * 2**20:
        raise RuntimeError(f"{len(found)} bytes arrived")
    return _MB / seconds


def _plain(client: Any, data: bytes) -> float:
    begin = time.perf_counter()
    client.set("plain", data)
    found = client.get("plain")
    seconds = time.perf_counter() - begin
    client.delete("plain")
    return len(found) / 2**20 / seconds


def _message(client: Dispatcher, plain: Any, data: bytes) -> float:
    """Bytes of the message of a run that nobody takes."""
    run = client.submit(takes, {"data": data}, environment=_NOBODY)
    [message] = plain.lrange(f"{client.records.instance}:local:nobody", 0, -1)
    plain.delete(f"{client.records.instance}:local:nobody")
    run.cancel()
    return float(len(message))


PART = Part(name="large", figures=FIGURES, opened=opened)
