"""A server with exactly the Redis users of ``docs/security.md``."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from dispatcher import Dispatcher
from dispatcher.records.redis.installing import install
from dispatcher.settings import Settings
from tests.conformance.products import SERVERS
from tests.conftest import answers
from tests.docs.blocks import blocks
from tests.integration.workers import KEYS, ROOT
from tests.waiting import wait_until

INSTANCE = "production"
PAGE = ROOT / "docs" / "security.md"


def rules() -> str:
    """The file of users that the page has."""
    (found,) = [block.code for block in blocks(PAGE.name, PAGE.read_text()) if block.title == "users.acl"]
    return found


class Guarded:
    """A server with the users of the page."""

    def __init__(self, directory: Path, binary: str) -> None:
        self.directory = directory
        self.socket = directory / "s"
        self.port = _free_port()
        file = directory / "users.acl"
        file.write_text(rules() if _knows_setinfo(binary) else rules().replace(" +client|setinfo", ""))
        self.process = subprocess.Popen(
            [
                *[binary, "--port", str(self.port), "--unixsocket", str(self.socket), "--dir", str(directory)],
                *["--save", "", "--aclfile", str(file), "--logfile", str(directory / "log")],
            ]
        )
        self.admin = self.as_user("admin")

    def begin(self) -> None:
        """Wait until it answers."""
        wait_until(lambda: answers(self.url("admin")), "the server's first answer")
        self.admin.set("dispatcher:instance", INSTANCE)
        install(self.url("admin"))

    def url(self, user: str) -> str:
        """Where ``user`` connects."""
        return f"unix://{user}:{user.upper()}_PASSWORD@{self.socket}?db=0"

    def tcp(self, user: str) -> str:
        """Where Flower connects: over a Unix socket it looks as nobody in particular."""
        return f"redis://{user}:{user.upper()}_PASSWORD@127.0.0.1:{self.port}/0"

    def as_user(self, user: str) -> Any:
        """A bare connection of a user's."""
        return redis.Redis.from_url(self.url(user))

    def client(self) -> Dispatcher:
        """A client of ours."""
        return Dispatcher(settings=Settings.load(url=self.url("client"), signing_keys=json.dumps(KEYS)))

    def refusals(self) -> list[tuple[str, ...]]:
        """What the server refused to whom."""
        log: Any = self.admin.acl_log()
        return [tuple(str(entry[name]) for name in ("username", "reason", "object")) for entry in log]

    def end(self) -> None:
        self.admin.close()
        self.process.kill()
        self.process.wait()


@contextmanager
def guarded_server(binary: str = SERVERS[0]) -> Iterator[Guarded]:
    """Such a server, in a directory of its own."""
    with tempfile.TemporaryDirectory(prefix="dsp-") as directory:
        one = Guarded(Path(directory), binary)
        try:
            one.begin()
            yield one
        finally:
            one.end()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _knows_setinfo(binary: str) -> bool:
    """Return True if it is 7.2 or later, as the page says."""
    told = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"v=(\d+)\.(\d+)", told)
    assert found, told
    return tuple(map(int, found.groups())) >= (7, 2)
