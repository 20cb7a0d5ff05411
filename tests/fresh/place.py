"""A fresh environment, made from the wheel and one extra alone, in a home with nothing in it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.integration.workers import KEYS
from tests.waiting import wait_until

PROGRAMS = Path(__file__).resolve().parent / "programs"

_KEPT = re.compile(r"PIP_|SSL_|REQUESTS_|LANG|LC_|TZ$|CI$|(HTTPS?|NO)_PROXY$", re.IGNORECASE)


class Place:
    """An environment of its own.

    Args:
        home: an empty directory with a short name, as a socket lies in it.
        wheel: the distribution.
        extra: the extra to install with it; empty: none.
    """

    def __init__(self, home: Path, wheel: Path, extra: str) -> None:
        self._home = home
        (home / "run").mkdir(mode=0o700)
        venv.create(home / "env", with_pip=False, symlinks=True)
        self._bin = home / "env" / "bin"
        requirement = f"{wheel}[{extra}]" if extra else str(wheel)
        self._pip("install", "--quiet", "--no-compile", requirement)

    @property
    def environ(self) -> dict[str, str]:
        """Variables of a person who just logged in; the package index and its cache stay this machine's."""
        variables = {name: value for name, value in os.environ.items() if _KEPT.match(name)}
        cache = os.environ.get("PIP_CACHE_DIR") or str(Path.home() / ".cache" / "pip")
        return {
            **variables,
            "PATH": f"{self._bin}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self._home),
            "XDG_RUNTIME_DIR": str(self._home / "run"),
            "PIP_CACHE_DIR": cache,
        }

    def check(self) -> None:
        """Let pip say whether the packages fit each other."""
        self._pip("check")

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment to its end."""
        return subprocess.run(
            [str(self._bin / command[0]), *command[1:]],
            cwd=self._home,
            env={**self.environ, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )

    def mypy(self, file: Path) -> subprocess.CompletedProcess[str]:
        """Check a file strictly against the packages of the environment, by the mypy of this one."""
        options = ["--strict", "--no-incremental", "--config-file=", "--python-executable", str(self._bin / "python")]
        return subprocess.run(
            [sys.executable, "-m", "mypy", *options, file],
            cwd=self._home, env=self.environ, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip

    def program(self, name: str, url: str) -> subprocess.CompletedProcess[str]:
        """Run one of :data:`PROGRAMS` as a client of the server at ``url``."""
        return self.run("python", "-P", "-W", "error", str(PROGRAMS / f"{name}.py"), **_settings(url))

    @contextmanager
    def worker(self, url: str) -> Iterator[subprocess.Popen[bytes]]:
        """A worker of the environment at the server at ``url``; asked to leave at the end."""
        with (self._home / "worker.log").open("wb") as log:
            process = subprocess.Popen(
                [self._bin / "dispatcher", "worker"],
                cwd=self._home,
                env={**self.environ, **_settings(url)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            wait_until(lambda: "is ready" in self.log or process.poll() is not None, "the worker's start", timeout=90)
            assert process.poll() is None, f"the worker ended:\n{self.log}"
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @property
    def log(self) -> str:
        """The output of the worker."""
        return (self._home / "worker.log").read_text(errors="replace")

    def leave(self) -> None:
        """End what programs of the laptop server left running."""
        self.run("dispatcher", "down", "--force")

    def _pip(self, command: str, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", self._bin / "python", command,
             *arguments],
            env=self.environ, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"pip {command}:\n{done.stdout}{done.stderr}"


def _settings(url: str) -> dict[str, str]:
    return {"DISPATCHER__URL": url, "DISPATCHER__SIGNING_KEYS": json.dumps(KEYS)}
