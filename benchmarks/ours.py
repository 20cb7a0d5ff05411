"""This project's side: a worker with two pool processes on the same server, which is both broker and records."""

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
from benchmarks.side import Latency, LoopRates, Take
from dispatcher import Dispatcher, LocalEnvironment, Run, flow
from dispatcher.settings import Settings

TIMEOUT = 300.0
HERE = LocalEnvironment()
KEYS = json.dumps({"bench": "a key that signs nothing of value"})


@flow
def noop() -> None:
    """Do nothing."""


@flow
def echo(number: int) -> int:
    """Return the number."""
    return number


@flow
def started() -> float:
    """Return the time at which the user's code began."""
    return time.time()


class FlowDispatcher:
    """This project's side of the comparison."""

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

    def looped(self, count: int, take: Take, *, empty: bool = False) -> LoopRates:
        begin = time.perf_counter()
        if empty:
            runs: list[Run[Any]] = [self._client.submit(noop, environment=HERE) for _ in range(count)]
        else:
            runs = [self._client.submit(echo, {"number": number}, environment=HERE) for number in range(count)]
        submitted = time.perf_counter()
        if take is Take.BY_WAIT:
            self._client.wait(runs, timeout=TIMEOUT)
        for run in self._client.as_completed(runs, timeout=TIMEOUT) if take is Take.AS_COMPLETED else runs:
            run.result(timeout=TIMEOUT)
        return LoopRates(count / (submitted - begin), count / (time.perf_counter() - begin))

    def idle(self, count: int) -> list[Latency]:
        return idle(self._client, count)

    def _join(self, runs: Sequence[Run[Any]]) -> None:
        self._client.wait(runs, timeout=TIMEOUT)
        for run in runs:
            run.result(timeout=TIMEOUT)


def idle(client: Dispatcher, count: int, environment: LocalEnvironment = HERE) -> list[Latency]:
    """Measure ``count`` runs in an environment, each after the previous one has ended."""
    latencies = []
    for _ in range(count):
        begin = time.time()
        started_at = client.submit(started, environment=environment).result(timeout=TIMEOUT)
        latencies.append(Latency(start=started_at - begin, result=time.time() - begin))
    return latencies


def settings(server: Path | str) -> Settings:
    """Return the settings for a client of a server, which is named by its socket or URL."""
    return Settings.load(url=url(server), signing_keys=KEYS)


def url(server: Path | str) -> str:
    """Return the server's URL."""
    return server if isinstance(server, str) else f"unix://{server}?db=0"


def variables(server: Path | str, **worker: Any) -> Mapping[str, str]:
    """Return the variables of a client's or worker's process; ``worker`` are worker settings."""
    worker_settings = {"backends": ["local"], "concurrency": 2, "drain": 1.0} | worker
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("DISPATCHER__")},
        "DISPATCHER__URL": url(server),
        "DISPATCHER__SIGNING_KEYS": KEYS,
        **{f"DISPATCHER__WORKER__{name.upper()}": json.dumps(value) for name, value in worker_settings.items()},
    }


@contextlib.contextmanager
def client(server: Path | str) -> Iterator[Dispatcher]:
    """Yield a client of a server."""
    with Dispatcher(settings=settings(server)) as dispatcher:
        yield dispatcher


@contextlib.contextmanager
def worker(
    server: Path | str, *, log: Path | None = None, environ: Mapping[str, str] | None = None, **settings: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a worker and wait until it is registered. ``settings`` are worker settings, ``environ`` further
    variables."""
    command = [sys.executable, "-P", "-m", "workers"]
    log = log or Path(server).parent / "ours.log"
    with (
        client(server) as dispatcher,
        child(command, log=log, environ={**variables(server, **settings), **(environ or {})}) as process,
    ):
        until(lambda: any(live.pid == process.pid for live in dispatcher.workers()), "our worker")
        yield process


@contextlib.contextmanager
def side(socket: Path) -> Iterator[FlowDispatcher]:
    """Yield this project's side with a running worker, which is stopped at the end."""
    with worker(socket) as process, client(socket) as dispatcher:
        yield FlowDispatcher(dispatcher, process.pid)
