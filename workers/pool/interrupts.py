"""Interrupts from a worker's parent to its pool processes: a file for the process, and SIGUSR1 so that it reads it.

An interrupt names the run and the epoch that are to end, so that a late signal never ends another flow.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from dispatcher.laptop import file_locks
from dispatcher.support import private_files

SIGNAL = signal.SIGUSR1

_LONGEST_ANSWER = 200  # characters
_PREFIX, _LOCK = "dispatcher-worker-", "lock"

#: Seconds before the directory of a worker that was killed may be removed: a new one isn't locked at once.
_ABANDONED_AFTER = 600.0


@dataclass(frozen=True)
class Interrupt:
    """Request to end a run, if the process runs it under this epoch. ``kind`` is cancel, timeout or preempt."""

    run_id: str
    epoch: int
    kind: str


class InterruptChannel:
    """A private directory with one file per pool process.

    Raises:
        InvalidSettings: other users can change the directory for temporary files.
    """

    def __init__(self) -> None:
        self._directory = private_files.temporary_directory(_PREFIX)
        self._owner = os.getpid()
        self._lock = file_locks.take(self._directory / _LOCK)  # held until the last process of this worker has ended
        remove_abandoned(self._directory.parent)

    def send(self, pid: int, interrupt: Interrupt) -> bool:
        """Write an interrupt for a process and signal it. Return False if there is no such process."""
        target = self._path(pid)
        draft = target.with_suffix(".new")
        draft.write_text(json.dumps(asdict(interrupt)))
        draft.replace(target)
        try:
            os.kill(pid, SIGNAL)
        except ProcessLookupError:
            return False
        return True

    def read(self) -> Interrupt | None:
        """Return the last interrupt for this process, if there is one."""
        try:
            return Interrupt(**json.loads(self._path(os.getpid()).read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def answer(self, interrupt: Interrupt, text: str) -> None:
        """In the process: note that the flow is over already, and what is being done instead."""
        with suppress(OSError):
            self._answer_path(os.getpid()).write_text(json.dumps([interrupt.run_id, text]))

    def answer_of(self, pid: int, run_id: str) -> str:
        """Return what a dead process answered to an interrupt of this run; empty if it didn't."""
        try:
            answered, text = json.loads(self._answer_path(pid).read_text())
        except (OSError, ValueError, TypeError):
            return ""
        return str(text)[:_LONGEST_ANSWER] if answered == run_id else ""

    def retain(self, pids: Collection[int]) -> None:
        """Remove the interrupts of processes other than these."""
        with suppress(OSError):
            for path in self._directory.iterdir():
                if path.stem.isdecimal() and int(path.stem) not in pids:
                    path.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the directory, if this process created it."""
        if os.getpid() == self._owner:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _path(self, pid: int) -> Path:
        return self._directory / str(pid)

    def _answer_path(self, pid: int) -> Path:
        return self._directory / f"{pid}.answer"


def remove_abandoned(temporary: Path) -> None:
    """Remove the directories of this user's workers that were killed."""
    for directory in temporary.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            info = directory.lstat()
            own = stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid()
            if own and time.time() - info.st_mtime > _ABANDONED_AFTER and not file_locks.held(directory / _LOCK):
                shutil.rmtree(directory, ignore_errors=True)
