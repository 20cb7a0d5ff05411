"""Our side: a worker with two pool processes on the same server, which is broker and records at once."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import child, until
from benchmarks.side import Idle
from dispatcher import Dispatcher, LocalEnvironment, Run, flow
from dispatcher.settings import Settings

WITHIN = 300.0
HERE = LocalEnvironment()
KEYS = json.dumps({"bench": "a key that signs nothing of value"})


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

    def __init__(self, client: Dispatcher, pid: int) -> None:
        self.pid = pid
        self._client = client

    def completed(self, count: int) -> float:
        begin = time.perf_counter()
        self._join(self._client.map(noop, [{}] * count, environment=HERE))
        return count / (time.perf_counter() - begin)

    def submitted(self, count: int) -> float:
        begin = time.perf_counter()
        runs = [self._client.submit(noop, environment=HERE) for _ in range(count)]
        seconds = time.perf_counter() - begin
        self._join(runs)
        return count / seconds

    def mapped(self, count: int) -> float:
        begin = time.perf_counter()
        runs = self._client.map(noop, [{}] * count, environment=HERE)
        seconds = time.perf_counter() - begin
        self._join(runs)
        return count / seconds

    def idle(self, count: int) -> list[Idle]:
        return idle(self._client, count)

    def _join(self, runs: Sequence[Run[Any]]) -> None:
        self._client.wait(runs, timeout=WITHIN)
        for run in runs:
            run.result(timeout=WITHIN)


def idle(client: Dispatcher, count: int, environment: LocalEnvironment = HERE) -> list[Idle]:
    """So many runs in an environment, each after the one before has ended."""
    found = []
    for _ in range(count):
        begin = time.time()
        at = client.submit(started, environment=environment).result(timeout=WITHIN)
        found.append(Idle(start=at - begin, result=time.time() - begin))
    return found


def settings(server: Path | str) -> Settings:
    """Of a client of a server, named by its socket or URL."""
    return Settings.load(url=url(server), signing_keys=KEYS)


def url(server: Path | str) -> str:
    """The server's URL."""
    return server if isinstance(server, str) else f"unix://{server}?db=0"


def variables(server: Path | str, **worker: Any) -> Mapping[str, str]:
    """A process's on our side; ``worker`` are worker settings."""
    offered = {"backends": ["local"], "concurrency": 2, "drain": 1.0} | worker
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("DISPATCHER__")},
        "DISPATCHER__URL": url(server),
        "DISPATCHER__SIGNING_KEYS": KEYS,
        **{f"DISPATCHER__WORKER__{name.upper()}": json.dumps(value) for name, value in offered.items()},
    }


@contextlib.contextmanager
def client(server: Path | str) -> Iterator[Dispatcher]:
    """A client of a server."""
    with Dispatcher(settings=settings(server)) as one:
        yield one


@contextlib.contextmanager
def worker(
    server: Path | str, *, log: Path | None = None, environ: Mapping[str, str] | None = None, **settings: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that has presented itself; ``settings`` are worker settings, ``environ`` further variables."""
    command = [sys.executable, "-P", "-m", "workers"]
    log = log or Path(server).parent / "ours.log"
    with (
        client(server) as one,
        child(command, log=log, environ={**variables(server, **settings), **(environ or {})}) as process,
    ):
        until(lambda: any(live.pid == process.pid for live in one.workers()), "our worker")
        yield process


@contextlib.contextmanager
def side(socket: Path) -> Iterator[Ours]:
    """Its worker started, and stopped at the end."""
    with worker(socket) as process, client(socket) as one:
        yield Ours(one, process.pid)
