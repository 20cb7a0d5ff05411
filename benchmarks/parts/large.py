"""50 MB as a parameter and as a result, compared with SET and GET of the same bytes by redis-py."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from benchmarks import ours
from benchmarks.bench import Benchmark, Measure, Part, turns
from benchmarks.figures import Comparison, Figure, Measured, Pair
from benchmarks.machine import redis, server
from dispatcher import Dispatcher, LocalEnvironment, flow

BASE = "redis-py, SET and GET"
FIGURES = (
    Figure(name="a 50 MB parameter", unit="MB/s", bound=0.5, more_is_better=True, base=BASE),
    Figure(name="a 50 MB result", unit="MB/s", bound=0.5, more_is_better=True, base=BASE),
    Figure(name="message of a run with 50 MB", unit="B", bound=4096, by=Comparison.OURS, base="", digits=0),
)

_MB = 50
_NOBODY = LocalEnvironment(labels=["nobody"])


@flow
def takes(data: bytes) -> int:
    """Return the length of the parameter."""
    return len(data)


@flow
def gives(size: int, salt: int) -> bytes:
    """Return as many bytes."""
    return salt.to_bytes(8, "big") * (size // 8)


@contextmanager
def opened(bench: Benchmark) -> Iterator[Measure]:
    """Start our worker, and connect redis-py to the same server."""
    with server() as socket, ours.worker(socket), ours.client(socket) as client, redis(socket) as plain:

        def measure(number: int) -> Measured:
            # New bytes in each round, because bytes that the server has aren't sent again.
            data, salt = {"ours": os.urandom(_MB * 2**20), "base": os.urandom(_MB * 2**20)}, number + 1
            bench.say("a parameter")
            sides = {
                "ours": lambda: _parameter_rate(client, data["ours"]),
                "base": lambda: _plain_rate(plain, data["base"]),
            }
            parameter = turns(number, sides)
            bench.say("a result")
            result = turns(
                number,
                {"ours": partial(_result_rate, client, salt), "base": partial(_plain_rate, plain, data["base"])},
            )
            return {
                FIGURES[0].name: Pair(**parameter),
                FIGURES[1].name: Pair(**result),
                FIGURES[2].name: Pair(_message_size(client, plain, data["ours"])),
            }

        yield measure


def _parameter_rate(client: Dispatcher, data: bytes) -> float:
    begin = time.perf_counter()
    size = client.submit(takes, {"data": data}, environment=ours.HERE).result(timeout=ours.TIMEOUT)
    seconds = time.perf_counter() - begin
    if size != len(data):
        raise RuntimeError(f"{size} bytes arrived")
    return _MB / seconds


def _result_rate(client: Dispatcher, salt: int) -> float:
    begin = time.perf_counter()
    parameters = {"size": _MB * 2**20, "salt": salt}
    result = client.submit(gives, parameters, environment=ours.HERE).result(timeout=ours.TIMEOUT)
    seconds = time.perf_counter() - begin
    if len(result) != _MB * 2**20:
        raise RuntimeError(f"{len(result)} bytes arrived")
    return _MB / seconds


def _plain_rate(client: Any, data: bytes) -> float:
    begin = time.perf_counter()
    client.set("plain", data)
    stored = client.get("plain")
    seconds = time.perf_counter() - begin
    client.delete("plain")
    return len(stored) / 2**20 / seconds


def _message_size(client: Dispatcher, plain: Any, data: bytes) -> float:
    """Return the bytes of the message of a run that no worker takes."""
    run = client.submit(takes, {"data": data}, environment=_NOBODY)
    [message] = plain.lrange(f"{client.records.instance}:local:nobody", 0, -1)
    plain.delete(f"{client.records.instance}:local:nobody")
    run.cancel()
    return float(len(message))


PART = Part(name="large", figures=FIGURES, opened=opened)
