"""The process that outlives programs and stops the laptop server when its last program left and no run is on its way.

Started with the server, by :mod:`dispatcher.laptop.server_commands`; it runs :func:`keep` until the server is stopped.
It also starts the server again if that died while somebody needs it.
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

#: Seconds between two looks for programs, and between two for open runs once none is left.
TICK = 0.5
OPEN_TICK = 2.0
#: Seconds without programs and open runs before the end, so that one script after another finds a warm worker.
LINGER = 3.0
#: Seconds that idle workers get to end.
WORKERS_WITHIN = 10.0


def ensure(places: LaptopPaths) -> None:
    """Start the keeper, if none lives. The caller holds :attr:`LaptopPaths.lock`."""
    if held(places.keeper_lock):
        return
    descriptor = take(places.keeper_lock, within=2.0)
    if descriptor is None:
        return
    try:
        one = spawn.detached(
            "dispatcher.laptop",
            [str(places.state), str(descriptor)],
            log=places.log("keeper"),
            cwd=places.state,
            keep=[descriptor],
        )
    finally:
        os.close(descriptor)
    write(places.keeper, one.to_json())


def process(places: LaptopPaths) -> Process | None:
    """The keeper, if it lives on this machine."""
    one = Process.from_json(read(places.keeper))
    return one if one is not None and held(places.keeper_lock) and one.lives() else None


def stop(places: LaptopPaths) -> None:
    """End the keeper, so that it starts nothing again. The caller holds :attr:`LaptopPaths.lock`."""
    if (one := process(places)) is not None:
        one.send(signal.SIGTERM)
        if not one.ended(within=5.0):
            one.send(signal.SIGKILL)
    places.keeper.unlink(missing_ok=True)


def open_runs(places: LaptopPaths) -> int | None:
    """Count the open runs; None if the server doesn't tell."""
    try:
        with _records(places) as records:
            return records.runs.count(OPEN)
    except ServerUnavailable:
        return None


def busy(places: LaptopPaths) -> bool:
    """Return True if runs are open that a worker may bring on. Open runs without any worker wait as well in a stopped
    server.

    A server that doesn't tell is busy.
    """
    try:
        with _records(places) as records:
            if not records.runs.count(OPEN):
                return False
            return bool(worker.living(places) or records.workers.live(within=60.0))
    except ServerUnavailable:
        return True


@contextmanager
def _records(places: LaptopPaths) -> Iterator[Records]:
    from dispatcher.records.redis import open_redis

    path = server.found(places)
    if path is None:
        raise ServerUnavailable("the laptop server doesn't run")
    records = open_redis(server.url(path))
    try:
        yield records
    finally:
        records.close()


def keep(places: LaptopPaths, descriptor: int) -> None:
    """Look on until the server is stopped; then unlock the keeper's lock, which ``descriptor`` holds.

    The lock goes while :attr:`LaptopPaths.lock` is held: whoever joins next sees that it needs another keeper.
    """
    idle_since: float | None = None
    while True:
        time.sleep(TICK)
        if server.found(places) is None:
            if _start_again(places, descriptor):
                continue
            return
        if members.living(places) or places.up.exists():
            idle_since = None
        elif idle_since is None:
            idle_since = time.monotonic()
        elif time.monotonic() - idle_since >= LINGER:
            if not busy(places) and _stop(places, descriptor):
                return
            idle_since = time.monotonic() - LINGER + OPEN_TICK


def _stop(places: LaptopPaths, descriptor: int) -> bool:
    """Stop everything, unless a program came meanwhile; whether it was stopped."""
    try:
        with locked(places.lock, within=0.1):
            if members.living(places) or places.up.exists() or busy(places):
                return False
            worker.stop(places, within=WORKERS_WITHIN)
            server.stop(places)
            places.keeper.unlink(missing_ok=True)
            os.close(descriptor)
            return True
    except ServerUnavailable:  # somebody joins just now
        return False


def _start_again(places: LaptopPaths, descriptor: int) -> bool:
    """Start a server that died while somebody needs it; false if it isn't needed or doesn't start."""
    with locked(places.lock, within=60.0):
        try:
            if server.found(places) is not None:
                return True
            if members.living(places) or places.up.exists():
                server.ensure(places)
                sys.stderr.write("the laptop server died and was started again\n")
                return True
        except DispatcherError as error:
            sys.stderr.write(f"the laptop server died and doesn't start again: {escaped(str(error))}\n")
        worker.stop(places, within=WORKERS_WITHIN)
        places.keeper.unlink(missing_ok=True)
        os.close(descriptor)
        return False
