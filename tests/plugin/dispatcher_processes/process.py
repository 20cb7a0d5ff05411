"""One process as the machine knows it: a folder, made in one step, and the program that plays the container in it.

``python -m dispatcher_processes.process FOLDER`` holds a lock as long as it lives. It starts the runner, ends it once
the folder is marked as deleted, and writes its exit code.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

#: The file with the runner's secret variables, in the folder.
SECRETS = "secrets.json"

_POLL_INTERVAL = 0.05


@dataclass(frozen=True)
class Process:
    """A process by its folder."""

    folder: Path

    @classmethod
    def create(cls, folder: Path, request: Mapping[str, Any], secrets: Mapping[str, str]) -> bool:
        """Make the folder in one step. Return False if there is one of that name."""
        draft = folder.with_name(f".{uuid4().hex}")
        draft.mkdir(mode=0o700)
        (draft / "request.json").write_text(json.dumps(dict(request)))
        (draft / SECRETS).write_text(json.dumps(dict(secrets)))
        (draft / "uid").write_text(uuid4().hex)
        try:
            draft.rename(folder)
        except OSError:
            shutil.rmtree(draft)
            return False
        return True

    @property
    def uid(self) -> str:
        """The id of this very process; empty if there is none."""
        return self._read("uid")

    @property
    def request(self) -> dict[str, Any]:
        """The request that it was made of; empty if there is none."""
        request: dict[str, Any] = json.loads(self._read("request.json") or "{}")
        return request

    @property
    def started(self) -> bool:
        """Return True once the runner's process runs, or has run."""
        return (self.folder / "pid").exists()

    @property
    def abandoned(self) -> bool:
        """Return True if it was started, and nothing plays it any more."""
        if not self.started:
            return False
        with self.locked() as alone:
            return alone

    @property
    def exit_code(self) -> int | None:
        """The runner's exit code; None before it has ended."""
        text = self._read("exit_code")
        return int(text) if text else None

    @property
    def age(self) -> float:
        """Seconds since it was made."""
        return time.time() - (self.folder / "uid").stat().st_mtime

    def lines(self) -> tuple[str, ...]:
        """Return what it has printed."""
        return tuple(self._read("log").splitlines())

    def start(self) -> None:
        """Start the program that plays the container, unless another plays it. It is no child of ours: it outlives us.

        By ``posix_spawn``: ``subprocess`` would wait for a pipe that a process forked meanwhile holds open.
        """
        command = [sys.executable, "-P", "-m", "dispatcher_processes.process", str(self.folder)]
        arguments = ["sh", "-c", '"$@" </dev/null >/dev/null 2>&1 &', "sh", *command]
        os.waitpid(os.posix_spawn("/bin/sh", arguments, os.environ, setsid=True), 0)

    def delete(self) -> bool:
        """Ask for its end. Return True once it has ended and its folder is gone."""
        try:
            (self.folder / "deleted").touch()
            with self.locked() as alone:
                if alone:
                    shutil.rmtree(self.folder)
                return alone
        except FileNotFoundError:  # another call was first
            return True

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """Hold the lock of who plays the container; False if another holds it."""
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield True
        except BlockingIOError:
            yield False
        finally:
            os.close(lock)

    def play(self) -> None:
        """Run the process from its start to its end, unless it was deleted before."""
        with self.locked() as alone:
            if not alone or self.started or self._is_deleted:
                return
            request = self.request
            with (self.folder / "log").open("wb") as log:
                runner = subprocess.Popen(
                    request["command"], stdout=log, stderr=log, env=self._environ(), process_group=0
                )
            (self.folder / "pid").write_text(str(runner.pid))
            os.setpriority(os.PRIO_PROCESS, runner.pid, request["niceness"])
            code = self._wait(runner, grace=request["grace"])
            (self.folder / "exit_code").write_text(str(code if code >= 0 else 128 - code))

    def _wait(self, runner: subprocess.Popen[bytes], *, grace: float) -> int:
        """Return the runner's exit code. Once it is deleted, it gets SIGTERM, and SIGKILL after ``grace`` seconds."""
        killed_at: float | None = None
        while (code := runner.poll()) is None:
            if killed_at is None and self._is_deleted:
                killed_at = time.monotonic() + grace
                os.killpg(runner.pid, signal.SIGTERM)
            elif killed_at is not None and time.monotonic() > killed_at:
                os.killpg(runner.pid, signal.SIGKILL)
            time.sleep(_POLL_INTERVAL)
        return code

    def _environ(self) -> dict[str, str]:
        """Return the runner's variables. Those of the worker's settings, which hold its keys, aren't among them."""
        request = self.request
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("DISPATCHER__")}
        files = {name: Path(path).read_text().strip() for name, path in request["references"].items()}
        return {**inherited, **request["variables"], **files}

    @property
    def _is_deleted(self) -> bool:
        return (self.folder / "deleted").exists()

    def _read(self, name: str) -> str:
        try:
            return (self.folder / name).read_text(errors="replace")
        except FileNotFoundError:
            return ""


if __name__ == "__main__":
    Process(Path(sys.argv[1])).play()
