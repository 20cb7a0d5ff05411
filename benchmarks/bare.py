"""Bare Celery: prefork with two processes, JSON, its Redis result backend. Also its worker's application."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from celery import Celery
from celery.result import ResultSet

from benchmarks.machine import child, until
from benchmarks.side import Idle

_SOCKET = "BENCHMARK_SOCKET"
_WITHIN = 300.0


def application(socket: str) -> Celery:
    """The application, on the server behind ``socket``."""
    url = f"redis+socket://{socket}?virtual_host=0"
    made = Celery("bare", broker=url, backend=url)
    made.conf.update(task_serializer="json", result_serializer="json", accept_content=["json"])
    made.task(name="bare.noop")(noop)
    made.task(name="bare.started")(started)
    return made


def noop() -> None:
    """Nothing."""


def started() -> float:
    """When the user's code began."""
    return time.time()


class Bare:
    """Bare Celery's side."""

    name = "bare Celery"

    def __init__(self, app: Celery, pid: int) -> None:
        self.pid = pid
        self._noop = app.tasks["bare.noop"]
        self._started = app.tasks["bare.started"]

    def completed(self, count: int) -> float:
        begin = time.perf_counter()
        results = [self._noop.apply_async() for _ in range(count)]
        together = ResultSet(results)
        together.join_native(timeout=_WITHIN, propagate=True)
        seconds = time.perf_counter() - begin
        together.forget()
        return count / seconds

    def submitted(self, count: int) -> float:
        begin = time.perf_counter()
        results = [self._noop.apply_async() for _ in range(count)]
        seconds = time.perf_counter() - begin
        together = ResultSet(results)
        together.join_native(timeout=_WITHIN, propagate=True)
        together.forget()
        return count / seconds

    def mapped(self, count: int) -> float:
        return self.submitted(count)  # Celery's group sends one message after the other, as a loop does

    def idle(self, count: int) -> list[Idle]:
        found = []
        for _ in range(count):
            begin = time.time()
            result = self._started.apply_async()
            at = result.get(timeout=_WITHIN)
            found.append(Idle(start=at - begin, result=time.time() - begin))
            result.forget()
        return found


@contextlib.contextmanager
def side(socket: Path) -> Iterator[Bare]:
    """Its worker started, and stopped at the end."""
    app = application(str(socket))
    with worker(socket, concurrency=2) as process:
        until(lambda: app.control.ping(timeout=0.5), "Celery's worker")
        yield Bare(app, process.pid)


@contextlib.contextmanager
def worker(socket: Path, *, concurrency: int, name: str = "celery") -> Iterator[subprocess.Popen[bytes]]:
    """A worker, which may still be on its way."""
    command = [sys.executable, "-m", "celery", "-A", "benchmarks.bare:app", "worker", "--loglevel", "WARNING"]
    options = ["--concurrency", str(concurrency), "--hostname", f"{name}@%h"]
    with child([*command, *options], log=socket.parent / "bare.log", environ={_SOCKET: str(socket)}) as process:
        yield process


#: What the worker's process finds; elsewhere there is no such variable.
app = application(os.environ[_SOCKET]) if _SOCKET in os.environ else None
