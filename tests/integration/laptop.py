"""A user with a separate home, and the user's programs, for the tests of the laptop server."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dispatcher import laptop
from dispatcher.laptop import daemon
from dispatcher.laptop.paths import LaptopPaths
from dispatcher.settings import Settings
from tests.conftest import PYTHON
from tests.waiting import wait_until

_ROOT = Path(__file__).resolve().parents[2]


class UserProgram:
    """A running program of the user."""

    def __init__(self, environ: dict[str, str], cwd: Path, python: str = PYTHON) -> None:
        code = f"import runpy, sys; sys.path.append({str(_ROOT)!r}); " + (
            "runpy.run_module('tests.integration.laptop_program', run_name='__main__')"
        )
        self.process = subprocess.Popen(
            [python, "-P", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environ,
            cwd=cwd,
        )
        self.errors = ""

    def answer(self, timeout: float = 30.0) -> dict[str, Any]:
        """Wait for the program's next answer."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], timeout)
        assert ready, "the program didn't answer"
        line = self.process.stdout.readline()
        if not line:
            self.ended()
            raise AssertionError(f"the program ended: {self.errors}")
        content: dict[str, Any] = json.loads(line)
        return content

    def request(self, command: str) -> dict[str, Any]:
        """Send a command and return the answer."""
        self.send(command)
        return self.answer()

    def send(self, command: str) -> None:
        """Send a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()

    def ended(self) -> str:
        """Let the program end, and return what it wrote to stderr."""
        _, errors = self.process.communicate(timeout=30)
        self.errors += errors
        return self.errors

    def kill(self) -> None:
        """Kill the program."""
        self.process.kill()
        self.ended()


class User:
    """A user of this machine, with a home, a runtime directory and a project."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.run = home / "run"
        self.run.mkdir(mode=0o700)
        self.project = home / "project"
        self.project.mkdir()
        self.state = home / "state" / "dispatcher"
        self.places = LaptopPaths(self.state)
        self.settings = Settings.load(state_dir=self.state)
        self._programs: list[UserProgram] = []

    @property
    def environ(self) -> dict[str, str]:
        """The variables of the user's programs."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(("DISPATCHER__", "XDG_"))}
        return {
            **own,
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.run),
            "XDG_STATE_HOME": str(self.state.parent),
        }

    def starts(self, *, cwd: Path | None = None, python: str = PYTHON, **variables: str) -> UserProgram:
        """Start a program without waiting for it."""
        program = UserProgram({**self.environ, **variables}, cwd or self.project, python)
        self._programs.append(program)
        return program

    def joins(self, **options: Any) -> UserProgram:
        """Start a program and wait until it has joined."""
        program = self.starts(**options)
        program.answer()
        return program

    def status(self) -> laptop.LaptopStatus:
        """Return the status of the laptop server."""
        return laptop.status(self.settings)

    def stopped(self) -> bool:
        """Return True if neither the laptop server nor a worker of it is running."""
        status = self.status()
        return not status.running and not status.workers

    def keeps_running(self) -> bool:
        """Return True if the server keeps running for longer than an unused one does."""
        end = time.monotonic() + daemon.IDLE_TIMEOUT + 3 * daemon.POLL_INTERVAL
        wait_until(lambda: not self.status().running or time.monotonic() > end, "this time to pass")
        return self.status().running

    def leaves(self) -> None:
        """Stop everything that this user started."""
        for program in self._programs:
            if program.process.poll() is None:
                program.kill()
        laptop.down(self.settings, force=True)


def run(user: User, command: Sequence[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the user to its end."""
    return subprocess.run(
        list(command),
        env={**user.environ, **variables},
        cwd=user.project,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )
