"""A process of this machine that is known by more than its number, so that a reused number is never signalled.

Who may call it: :mod:`dispatcher.laptop` and :mod:`dispatcher.laptop.spawn`.
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
    """A process by number and start: the pair names one process, also across reboots."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The process that has this number now; None if none has, or it is a zombie."""
        started = _started(pid)
        return cls(pid, started) if started else None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Process | None:
        """The inverse of :meth:`to_json`; None if ``data`` isn't one."""
        pid, started = data.get("pid"), data.get("started")
        return cls(pid, started) if isinstance(pid, int) and isinstance(started, str) else None

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads."""
        return {"pid": self.pid, "started": self.started}

    def lives(self) -> bool:
        """Return True if it still runs."""
        return _started(self.pid) == self.started

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self.lives():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def ended(self, *, within: float) -> bool:
        """Wait until it has ended, at most ``within`` seconds; whether it has."""
        end = time.monotonic() + within
        while self.lives():
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def kill_session(self) -> None:
        """SIGKILL this process and, where ``/proc`` tells, all others of the session that it leads."""
        others = _session(self.pid) if self.lives() else []
        self.send(signal.SIGKILL)
        for other in others:
            other.send(signal.SIGKILL)


def _started(pid: int) -> str:
    """When a process started, as a text to compare; empty if there is none or it is a zombie."""
    if not sys.platform.startswith("linux"):
        return _started_by_ps(pid)
    fields = _stat(pid)
    if not fields or fields[0] in "ZXx":
        return ""
    return f"{_boot()}/{fields[19]}"


def _stat(pid: int) -> list[str]:
    """The fields of ``/proc/PID/stat`` behind the command's name, so that the state is the first."""
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
        done = subprocess.run(
            ["ps", "-o", "state=,lstart=", "-p", str(pid)], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    state, _, started = done.stdout.strip().partition(" ")
    return "" if state.startswith("Z") else started.strip()


def _session(leader: int) -> list[Process]:
    found = []
    for entry in _PROC.glob("[0-9]*"):
        fields = _stat(int(entry.name))
        if fields and fields[3] == str(leader) and int(entry.name) != leader:
            found.append(Process.of(int(entry.name)))
    return [one for one in found if one is not None]
