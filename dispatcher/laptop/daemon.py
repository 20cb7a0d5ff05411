"""The daemon that outlives programs. It stops the laptop server once no program uses it and no run is in progress.

:mod:`dispatcher.laptop.server_commands` starts it with the server; it executes :func:`run` until the server is stopped.
It also restarts a server that died while it is in use. The names of its files begin with ``keeper``.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from dispatcher.errors import DispatcherError, ServerUnavailable
from dispatcher.laptop import members, server, spawn, worker
from dispatcher.laptop.file_locks import held, locked, take
from dispatcher.laptop.paths import LaptopPaths, read, write
from dispatcher.laptop.process import Process
from dispatcher.records.base import Records
from dispatcher.runs.indexes import OPEN
from dispatcher.support.escaping import escaped

#: Seconds between two checks for programs, and between two for open runs once there is no program.
POLL_INTERVAL = 0.5
OPEN_RUNS_INTERVAL = 2.0
#: Seconds without programs and open runs before the stop: a next script finds a warm worker.
IDLE_TIMEOUT = 3.0
#: Seconds that idle workers get to end.
WORKER_STOP_TIMEOUT = 10.0


def ensure(paths: LaptopPaths) -> None:
    """Start the daemon if none lives. The caller holds :attr:`LaptopPaths.lock`."""
    if held(paths.daemon_lock):
        return
    descriptor = take(paths.daemon_lock, within=2.0)
    if descriptor is None:
        return
    try:
        started = spawn.start_detached(
            "dispatcher.laptop",
            [str(paths.state), str(descriptor)],
            log=paths.log("keeper"),
            cwd=paths.state,
            keep=[descriptor],
        )
    finally:
        os.close(descriptor)
    write(paths.daemon, started.to_json())


def process(paths: LaptopPaths) -> Process | None:
    """Return the daemon if it lives on this machine."""
    stored = Process.from_json(read(paths.daemon))
    return stored if stored is not None and held(paths.daemon_lock) and stored.lives() else None


def stop(paths: LaptopPaths) -> None:
    """End the daemon, so that it restarts nothing. The caller holds :attr:`LaptopPaths.lock`."""
    if (running := process(paths)) is not None:
        running.send(signal.SIGTERM)
        if not running.ended(within=5.0):
            running.send(signal.SIGKILL)
    paths.daemon.unlink(missing_ok=True)


def open_runs(paths: LaptopPaths) -> int | None:
    """Count the open runs; None if the server doesn't answer."""
    try:
        with _records(paths) as records:
            return records.runs.count(OPEN)
    except ServerUnavailable:
        return None


def busy(paths: LaptopPaths) -> bool:
    """Return True if runs are open and a worker lives. Without a worker, open runs can wait in a stopped server.

    A server that doesn't answer counts as busy.
    """
    try:
        with _records(paths) as records:
            if not records.runs.count(OPEN):
                return False
            return bool(worker.living(paths) or records.workers.live(within=60.0))
    except ServerUnavailable:
        return True


@contextmanager
def _records(paths: LaptopPaths) -> Iterator[Records]:
    from dispatcher.records.redis import open_redis

    path = server.live_socket(paths)
    if path is None:
        raise ServerUnavailable("the laptop server isn't running")
    records = open_redis(server.url(path))
    try:
        yield records
    finally:
        records.close()


def run(paths: LaptopPaths, descriptor: int) -> None:
    """Watch the server until it is stopped; then release the daemon's lock, which ``descriptor`` holds.

    It is released while :attr:`LaptopPaths.lock` is held, so that the next program to join starts another daemon.
    """
    idle_since: float | None = None
    while True:
        time.sleep(POLL_INTERVAL)
        if server.live_socket(paths) is None:
            if _restart(paths, descriptor):
                continue
            return
        if members.living(paths) or paths.up.exists():
            idle_since = None
        elif idle_since is None:
            idle_since = time.monotonic()
        elif time.monotonic() - idle_since >= IDLE_TIMEOUT:
            if not busy(paths) and _stop(paths, descriptor):
                return
            idle_since = time.monotonic() - IDLE_TIMEOUT + OPEN_RUNS_INTERVAL


def _stop(paths: LaptopPaths, descriptor: int) -> bool:
    """Stop everything unless a program has joined meanwhile. Return True if it was stopped."""
    try:
        with locked(paths.lock, within=0.1):
            if members.living(paths) or paths.up.exists() or busy(paths):
                return False
            worker.stop(paths, within=WORKER_STOP_TIMEOUT)
            server.stop(paths)
            paths.daemon.unlink(missing_ok=True)
            os.close(descriptor)
            return True
    except ServerUnavailable:  # a program is joining
        return False


def _restart(paths: LaptopPaths, descriptor: int) -> bool:
    """Restart a server that died while it is in use. Return False if nobody uses it or it doesn't start."""
    with locked(paths.lock, within=60.0):
        try:
            if server.live_socket(paths) is not None:
                return True
            if members.living(paths) or paths.up.exists():
                server.ensure(paths)
                sys.stderr.write("The laptop server died and was restarted\n")
                return True
        except DispatcherError as error:
            sys.stderr.write(f"The laptop server died and can't be restarted: {escaped(str(error))}\n")
        worker.stop(paths, within=WORKER_STOP_TIMEOUT)
        paths.daemon.unlink(missing_ok=True)
        os.close(descriptor)
        return False
