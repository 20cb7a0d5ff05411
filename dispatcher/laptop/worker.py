"""Workers of the laptop server: one per virtual environment, started when a run needs it, stopped with the server.

A virtual environment is identified by its ``sys.prefix``. The digest of that is the scope, a part of its queues' names.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from dispatcher.errors import ServerUnavailable
from dispatcher.laptop import server
from dispatcher.laptop.file_locks import locked
from dispatcher.laptop.paths import LaptopPaths, read, write
from dispatcher.laptop.process import Process
from dispatcher.settings import Settings

_LOCK_TIMEOUT = 60.0


@dataclass(frozen=True)
class Worker:
    """A worker process of this machine. ``prefix`` is its virtual environment, ``cwd`` the directory of its flows."""

    scope: str
    process: Process
    prefix: str
    cwd: str
    log: Path


def scope() -> str:
    """Return the scope of this program's virtual environment: eight hex digits."""
    return hashlib.sha256(os.fsencode(sys.prefix)).hexdigest()[:8]


def ensure(paths: LaptopPaths, settings: Settings, *, leaving: Collection[int] = ()) -> Worker:
    """Return the worker of ``settings.worker.scope``. Start one if none lives, except those that are ``leaving``.

    Concurrent callers get the same worker. ``leaving`` are the process ids of workers that are shutting down.

    Raises:
        InvalidSettings: it can't be started.
        ServerUnavailable: the server was stopped.
    """
    from dispatcher.laptop import spawn

    name = settings.worker.scope
    if (worker := _read(paths, name)) is not None and worker.process.pid not in leaving:
        return worker
    with locked(paths.lock, within=_LOCK_TIMEOUT):  # not while the server stops, or nothing would stop this worker
        worker = _read(paths, name)
        if worker is not None and worker.process.pid not in leaving:
            return worker
        if server.live_socket(paths) is None:
            raise ServerUnavailable("the laptop server was stopped; `dispatcher up` starts it")
        if worker is not None:  # keep its file under another name, so that it ends with the server
            _file(paths, name).replace(_file(paths, f"{name}-{worker.process.pid}"))
        log = paths.workers / f"{name}.log"
        process = spawn.worker(settings, log=log)
        worker = Worker(scope=name, process=process, prefix=sys.prefix, cwd=str(spawn.current_directory()), log=log)
        write(_file(paths, name), {**process.to_json(), "scope": name, "prefix": worker.prefix, "cwd": worker.cwd})
        return worker


def living(paths: LaptopPaths) -> list[Worker]:
    """Return the live workers."""
    workers = [_read(paths, path.stem) for path in sorted(paths.workers.glob("*.json"))]
    return [worker for worker in workers if worker is not None]


def stop(paths: LaptopPaths, *, within: float) -> None:
    """Stop all workers with their pool processes: SIGTERM, and SIGKILL after ``within`` seconds.

    The caller holds :attr:`LaptopPaths.lock`.
    """
    workers = living(paths)
    for worker in workers:
        worker.process.send(signal.SIGTERM)
    end = time.monotonic() + within
    for worker in workers:
        if not worker.process.ended(within=max(0.0, end - time.monotonic())):
            worker.process.kill_session()
            worker.process.ended(within=5.0)
    for path in paths.workers.glob("*.json"):
        path.unlink(missing_ok=True)


def _file(paths: LaptopPaths, name: str) -> Path:
    return paths.workers / f"{name}.json"


def _read(paths: LaptopPaths, name: str) -> Worker | None:
    data = read(_file(paths, name))
    process = Process.from_json(data)
    if process is None or not process.lives():
        return None
    scope = str(data.get("scope", name))
    return Worker(
        scope=scope,
        process=process,
        prefix=str(data.get("prefix", "")),
        cwd=str(data.get("cwd", "")),
        log=paths.workers / f"{scope}.log",
    )
