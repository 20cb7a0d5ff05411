"""A user's shell for tests of the command: real processes in a directory with flows."""

from __future__ import annotations

import json
import os
import select
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.conftest import PYTHON

COMMAND = str(Path(PYTHON).with_name("dispatcher"))

FLOWS = """
import os
import time
from pathlib import Path

from dispatcher import LocalEnvironment, context, flow

gpu = LocalEnvironment(labels=["gpu"])


@flow
def greet(name: str, times: int = 1) -> list[str]:
    print("greeting", name)
    context.logger.warning("said by the logger")
    return [f"hello {name}"] * times


@flow
def breaks() -> None:
    raise RuntimeError("no such luck")


@flow
def dies() -> None:
    os._exit(9)


@flow
def sleeps(seconds: float = 60, mark: str = "") -> str:
    print("asleep", flush=True)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.02)
        if mark and Path(mark).exists():
            break
    return "awake"


@flow
def stubborn(mark: str) -> None:
    print("on", flush=True)
    while not Path(mark).exists():
        try:
            time.sleep(0.02)
        except BaseException:
            print("not yet", flush=True)


@flow
def odd() -> set[int]:
    return {1, 2}
"""


class Shell:
    """A user's shell: a directory with ``flows.py``, and variables."""

    def __init__(self, cwd: Path, environ: Mapping[str, str]) -> None:
        self.cwd = cwd
        self.environ = {**os.environ, "NO_COLOR": "1", **environ}
        (cwd / "flows.py").write_text(FLOWS)

    def start(self, *arguments: str, **keywords: Any) -> subprocess.Popen[str]:
        """Start the command."""
        return subprocess.Popen(
            [COMMAND, *arguments], cwd=self.cwd, env=self.environ, text=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **keywords},
        )  # fmt: skip

    def __call__(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run the command to its end and check its exit code."""
        with self.start(*arguments) as process:
            out, errors = process.communicate(timeout=90)
        assert process.returncode == code, f"{arguments} exited with {process.returncode}:\n{out}\n{errors}"
        return subprocess.CompletedProcess([*arguments], code, out, errors)

    def json(self, *arguments: str, code: int = 0) -> Any:
        """Return the document that the command prints."""
        return json.loads(self(*arguments, "--json", code=code).stdout)

    def lines(self, *arguments: str) -> list[Any]:
        """Return the documents that the command prints, one per line."""
        return [json.loads(line) for line in self(*arguments, "--json").stdout.splitlines()]


def worker_command(*arguments: str) -> tuple[str, ...]:
    main = "from dispatcher.cli import main; main()"
    return ("-c", main, "worker", *arguments)


def read_terminal(master: int) -> str:
    """Return everything that is written to a terminal, until its end."""
    output = b""
    while select.select([master], [], [], 60)[0]:
        try:
            data = os.read(master, 65536)
        except OSError:  # the other side has closed
            break
        output += data
        if not data:
            break
    os.close(master)
    return output.decode()
