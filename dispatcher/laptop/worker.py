"""The workers of the laptop server: one per virtual environment, started when a run needs it, stopped with the server.

A virtual environment is its ``sys.prefix``; its digest is the scope, which stands in the names of its queues.
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

_START_WITHIN = 60.0


@dataclass(frozen=True)
class Worker:
    """A worker process of this machine. ``prefix`` is its virtual environment, ``cwd`` where its flows run."""

    scope: str
    process: Process
    prefix: str
    cwd: str
    log: Path


def scope() -> str:
    """The scope of this program's virtual environment: eight hex digits."""
    return hashlib.sha256(os.fsencode(sys.prefix)).hexdigest()[:8]


def ensure(places: LaptopPaths, settings: Settings, *, leaving: Collection[int] = ()) -> Worker:
    """The worker of ``settings.worker.scope``; started if none lives, or only one of the processes ``leaving``, which
    take nothing more. Two that ask at once get the same.

    Raises:
        InvalidSettings: it can't be started.
        ServerUnavailable: the server was stopped.
    """
    from dispatcher.laptop import spawn

    name = settings.worker.scope
    if (one := _read(places, name)) is not None and one.process.pid not in leaving:
        return one
    with locked(places.lock, within=_START_WITHIN):  # not while the server stops, or nothing would stop this worker
        one = _read(places, name)
        if one is not None and one.process.pid not in leaving:
            return one
        if server.found(places) is None:
            raise ServerUnavailable("the laptop server was stopped; `dispatcher up` starts it again")
        if one is not None:  # it is still known, so that it ends with the server
            _file(places, name).replace(_file(places, f"{name}-{one.process.pid}"))
        log = places.workers / f"{name}.log"
        process = spawn.worker(settings, log=log)
        one = Worker(scope=name, process=process, prefix=sys.prefix, cwd=str(spawn.here()), log=log)
        write(_file(places, name), {**process.to_json(), "scope": name, "prefix": one.prefix, "cwd": one.cwd})
        return one


def living(places: LaptopPaths) -> list[Worker]:
    """The workers that live."""
    every = [_read(places, path.stem) for path in sorted(places.workers.glob("*.json"))]
    return [one for one in every if one is not None]


def stop(places: LaptopPaths, *, within: float) -> None:
    """End all workers: SIGTERM, and after ``within`` seconds SIGKILL, their pool processes with them.

    The caller holds :attr:`LaptopPaths.lock`.
    """
    workers = living(places)
    for one in workers:
        one.process.send(signal.SIGTERM)
    end = time.monotonic() + within
    for one in workers:
        if not one.process.ended(within=max(0.0, end - time.monotonic())):
            one.process.kill_session()
            one.process.ended(within=5.0)
    for path in places.workers.glob("*.json"):
        path.unlink(missing_ok=True)


def _file(places: LaptopPaths, name: str) -> Path:
    return places.workers / f"{name}.json"


def _read(places: LaptopPaths, name: str) -> Worker | None:
    data = read(_file(places, name))
    process = Process.from_json(data)
    if process is None or not process.lives():
        return None
    scope = str(data.get("scope", name))
    return Worker(
        scope=scope,
        process=process,
        prefix=str(data.get("prefix", "")),
        cwd=str(data.get("cwd", "")),
        log=places.workers / f"{scope}.log",
    )
