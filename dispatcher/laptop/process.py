"""Processes of this machine, identified by pid and start time, so that a reused pid is never signalled.

Used by :mod:`dispatcher.laptop` only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """A process, identified by pid and start time, which are unique across reboots."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """Return the process that has this pid now; None if there is none, or if it is a zombie."""
        started = _started(pid)
        return cls(pid, started) if started else None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Process | None:
        """Return the process that :meth:`to_json` described; None if ``data`` has another form."""
        pid, started = data.get("pid"), data.get("started")
        return cls(pid, started) if isinstance(pid, int) and isinstance(started, str) else None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object for :meth:`from_json`."""
        return {"pid": self.pid, "started": self.started}

    def lives(self) -> bool:
        """Return True if the process is running."""
        return _started(self.pid) == self.started

    def send(self, number: signal.Signals) -> None:
        """Send a signal if the process is running."""
        if self.lives():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def ended(self, *, within: float) -> bool:
        """Wait at most ``within`` seconds for the end. Return True if the process has ended."""
        end = time.monotonic() + within
        while self.lives():
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def kill_session(self) -> None:
        """Kill this process and, where there is a ``/proc``, all others of the session that it leads."""
        others = _session(self.pid) if self.lives() else []
        self.send(signal.SIGKILL)
        for other in others:
            other.send(signal.SIGKILL)


def _started(pid: int) -> str:
    """Return a comparable start time of a process; empty if there is none, or if it is a zombie."""
    if not sys.platform.startswith("linux"):
        return _started_by_ps(pid)
    fields = _stat(pid)
    if not fields or fields[0] in "ZXx":
        return ""
    return f"{_boot()}/{fields[19]}"


def _stat(pid: int) -> list[str]:
    """Return the fields of ``/proc/PID/stat`` after the command's name: the state is the first."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


@cache
def _boot() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _started_by_ps(pid: int) -> str:
    try:
        result = subprocess.run(
            ["ps", "-o", "state=,lstart=", "-p", str(pid)], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    state, _, started = result.stdout.strip().partition(" ")
    return "" if state.startswith("Z") else started.strip()


def _session(leader: int) -> list[Process]:
    members = []
    for entry in _PROC.glob("[0-9]*"):
        fields = _stat(int(entry.name))
        if fields and fields[3] == str(leader) and int(entry.name) != leader:
            members.append(Process.of(int(entry.name)))
    return [process for process in members if process is not None]
