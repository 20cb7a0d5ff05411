"""Bare Celery: prefork with two processes, JSON, its Redis result backend. Also the application of its worker."""

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
from benchmarks.side import Latency, LoopRates, Take

_SOCKET = "BENCHMARK_SOCKET"
_TIMEOUT = 300.0


def application(socket: str) -> Celery:
    """Return the application on the server behind ``socket``."""
    url = f"redis+socket://{socket}?virtual_host=0"
    application = Celery("bare", broker=url, backend=url)
    application.conf.update(task_serializer="json", result_serializer="json", accept_content=["json"])
    application.task(name="bare.noop")(noop)
    application.task(name="bare.echo")(echo)
    application.task(name="bare.started")(started)
    return application


def noop() -> None:
    """Do nothing."""


def echo(number: int) -> int:
    """Return the number."""
    return number


def started() -> float:
    """Return the time at which the user's code began."""
    return time.time()


class BareCelery:
    """Bare Celery's side of the comparison."""

    name = "bare Celery"

    def __init__(self, app: Celery, pid: int) -> None:
        self.pid = pid
        self._noop = app.tasks["bare.noop"]
        self._echo = app.tasks["bare.echo"]
        self._started = app.tasks["bare.started"]

    def completed(self, count: int) -> float:
        begin = time.perf_counter()
        results = [self._noop.apply_async() for _ in range(count)]
        together = ResultSet(results)
        together.join_native(timeout=_TIMEOUT, propagate=True)
        seconds = time.perf_counter() - begin
        together.forget()
        return count / seconds

    def submitted(self, count: int) -> float:
        begin = time.perf_counter()
        results = [self._noop.apply_async() for _ in range(count)]
        seconds = time.perf_counter() - begin
        together = ResultSet(results)
        together.join_native(timeout=_TIMEOUT, propagate=True)
        together.forget()
        return count / seconds

    def mapped(self, count: int) -> float:
        return self.submitted(count)  # Celery's group sends one message after the other, as a loop does

    def looped(self, count: int, take: Take, *, empty: bool = False) -> LoopRates:
        begin = time.perf_counter()
        if empty:
            results = [self._noop.apply_async() for _ in range(count)]
        else:
            results = [self._echo.apply_async((number,)) for number in range(count)]
        submitted = time.perf_counter()
        together = ResultSet(results)
        if take is Take.ONE_BY_ONE:
            for result in results:
                result.get(timeout=_TIMEOUT)
        elif take is Take.BY_WAIT:
            together.join_native(timeout=_TIMEOUT, propagate=True)
        else:
            for _ in together.iter_native(timeout=_TIMEOUT):
                pass
        end = time.perf_counter()
        together.forget()
        return LoopRates(count / (submitted - begin), count / (end - begin))

    def idle(self, count: int) -> list[Latency]:
        latencies = []
        for _ in range(count):
            begin = time.time()
            result = self._started.apply_async()
            started_at = result.get(timeout=_TIMEOUT)
            latencies.append(Latency(start=started_at - begin, result=time.time() - begin))
            result.forget()
        return latencies


@contextlib.contextmanager
def side(socket: Path) -> Iterator[BareCelery]:
    """Yield bare Celery with a running worker, which is stopped at the end."""
    app = application(str(socket))
    with worker(socket, concurrency=2) as process:
        until(lambda: app.control.ping(timeout=0.5), "Celery's worker")
        yield BareCelery(app, process.pid)


@contextlib.contextmanager
def worker(socket: Path, *, concurrency: int, name: str = "celery") -> Iterator[subprocess.Popen[bytes]]:
    """Start a worker; don't wait until it is ready. Stop it at the end."""
    command = [sys.executable, "-m", "celery", "-A", "benchmarks.bare:app", "worker", "--loglevel", "WARNING"]
    options = ["--concurrency", str(concurrency), "--hostname", f"{name}@%h"]
    with child([*command, *options], log=socket.parent / "bare.log", environ={_SOCKET: str(socket)}) as process:
        yield process


#: The application that the worker's process loads; None in other processes, which don't have the variable.
app = application(os.environ[_SOCKET]) if _SOCKET in os.environ else None
