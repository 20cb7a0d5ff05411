"""A server with exactly the Redis users of ``docs/security.md``."""

from __future__ import annotations

import json
import re
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
from tests.conftest import answers, free_port
from tests.docs.blocks import blocks
from tests.integration.workers import KEYS, ROOT
from tests.waiting import wait_until

INSTANCE = "production"
PAGE = ROOT / "docs" / "security.md"


def rules() -> str:
    """Return the page's file of users."""
    (code,) = [block.code for block in blocks(PAGE.name, PAGE.read_text()) if block.title == "users.acl"]
    return code


class AclServer:
    """A server with the users of the page."""

    def __init__(self, directory: Path, binary: str) -> None:
        self.directory = directory
        self.socket = directory / "s"
        self.port = free_port()
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
        """Wait until the server answers, and install the library."""
        wait_until(lambda: answers(self.url("admin")), "the server's first answer")
        self.admin.set("dispatcher:instance", INSTANCE)
        install(self.url("admin"))

    def url(self, user: str) -> str:
        """Return the URL for ``user``."""
        return f"unix://{user}:{user.upper()}_PASSWORD@{self.socket}?db=0"

    def tcp(self, user: str) -> str:
        """Return a TCP URL, for Flower: over a Unix socket it drops the user."""
        return f"redis://{user}:{user.upper()}_PASSWORD@127.0.0.1:{self.port}/0"

    def as_user(self, user: str) -> Any:
        """Return a plain connection of a user."""
        return redis.Redis.from_url(self.url(user))

    def client(self) -> Dispatcher:
        """Return a dispatcher's client."""
        return Dispatcher(settings=Settings.load(url=self.url("client"), signing_keys=json.dumps(KEYS)))

    def refusals(self) -> list[tuple[str, ...]]:
        """Return user, reason and object of everything that the server has denied."""
        log: Any = self.admin.acl_log()
        return [tuple(str(entry[name]) for name in ("username", "reason", "object")) for entry in log]

    def end(self) -> None:
        self.admin.close()
        self.process.kill()
        self.process.wait()


@contextmanager
def start_acl_server(binary: str = SERVERS[0]) -> Iterator[AclServer]:
    """Start such a server in a directory of its own, and stop it at the end."""
    with tempfile.TemporaryDirectory(prefix="dsp-") as directory:
        server = AclServer(Path(directory), binary)
        try:
            server.begin()
            yield server
        finally:
            server.end()


def _knows_setinfo(binary: str) -> bool:
    """Return True if the server is 7.2 or later, as the page says."""
    output = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"v=(\d+)\.(\d+)", output)
    assert version, output
    return tuple(map(int, version.groups())) >= (7, 2)
