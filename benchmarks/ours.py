"""Our side: a worker with two pool processes on the same server, which is broker and records at once."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import child, until
from benchmarks.side import Idle
from dispatcher import Dispatcher, LocalEnvironment, Run, flow
from dispatcher.payload import KeyRing
from dispatcher.settings import Settings

_WITHIN = 300.0
_HERE = LocalEnvironment()


@flow
def noop() -> None:
    """Nothing."""


@flow
def started() -> float:
    """When the user's code began."""
    return time.time()


class Ours:
    """This project's side."""

    name = "flow-dispatcher"

    def __init__(self, client: Dispatcher) -> None:
        self._client = client

    def completed(self, count: int) -> float:
        begin = time.perf_counter()
        self._join(self._client.map(noop, [{}] * count, environment=_HERE))
        return count / (time.perf_counter() - begin)

    def submitted(self, count: int) -> float:
        begin = time.perf_counter()
        runs = [self._client.submit(noop, environment=_HERE) for _ in range(count)]
        seconds = time.perf_counter() - begin
        self._join(runs)
        return count / seconds

    def mapped(self, count: int) -> float:
        begin = time.perf_counter()
        runs = self._client.map(noop, [{}] * count, environment=_HERE)
        seconds = time.perf_counter() - begin
        self._join(runs)
        return count / seconds

    def idle(self, count: int) -> list[Idle]:
        found = []
        for _ in range(count):
            begin = time.time()
            at = self._client.submit(started, environment=_HERE).result(timeout=_WITHIN)
            found.append(Idle(start=at - begin, result=time.time() - begin))
        return found

    def _join(self, runs: Sequence[Run[Any]]) -> None:
        self._client.wait(runs, timeout=_WITHIN)
        for run in runs:
            run.result(timeout=_WITHIN)


@contextlib.contextmanager
def side(socket: Path) -> Iterator[Ours]:
    """Its worker started, and stopped at the end."""
    keys = json.dumps(dict(KeyRing.generate()))
    url = f"unix://{socket}?db=0"
    environ = {
        "DISPATCHER__URL": url,
        "DISPATCHER__SIGNING_KEYS": keys,
        "DISPATCHER__WORKER__BACKENDS": '["local"]',
        "DISPATCHER__WORKER__CONCURRENCY": "2",
    }
    with (
        child([sys.executable, "-P", "-m", "workers"], log=socket.parent / "ours.log", environ=environ),
        Dispatcher(settings=Settings.load(url=url, signing_keys=keys)) as client,
    ):
        until(client.workers, "our worker")
        yield Ours(client)
