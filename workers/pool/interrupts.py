"""Interrupts from a worker's parent to its pool processes: a file for the process, and SIGUSR1 so that it reads it.

An interrupt names the run and the epoch that are to end, so that a late signal never ends another flow.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import asdict, dataclass
from pathlib import Path

from dispatcher.support import private_files

SIGNAL = signal.SIGUSR1


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
        self._directory = private_files.temporary_directory("dispatcher-worker-")
        self._owner = os.getpid()

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

    @property
    def code(self) -> Path:
        """The place of the worker's unpacked code bundles, removed with the directory."""
        return self._directory / "code"

    def close(self) -> None:
        """Remove the directory, if this process created it."""
        if os.getpid() == self._owner:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _path(self, pid: int) -> Path:
        return self._directory / str(pid)
