"""Notes from the worker's parent to one of its pool processes, read there when SIGUSR1 comes.

A note names the run and the epoch that are to end, so that a signal which comes late never ends another flow.
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
    """End this run, if it is on your stack under this epoch. ``kind`` is cancel, timeout or preempt."""

    run_id: str
    epoch: int
    kind: str


class InterruptChannel:
    """A directory of our own, with a file per pool process.

    Raises:
        InvalidSettings: other users can change what lies in the directory for temporary files.
    """

    def __init__(self) -> None:
        self._directory = private_files.temporary_directory("dispatcher-worker-")
        self._owner = os.getpid()

    def send(self, pid: int, note: Interrupt) -> bool:
        """Write a note and signal its reader; False if there is no such process."""
        target = self._path(pid)
        draft = target.with_suffix(".new")
        draft.write_text(json.dumps(asdict(note)))
        draft.replace(target)
        try:
            os.kill(pid, SIGNAL)
        except ProcessLookupError:
            return False
        return True

    def read(self) -> Interrupt | None:
        """The note to this process, if there is one."""
        try:
            return Interrupt(**json.loads(self._path(os.getpid()).read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def close(self) -> None:
        """Remove them all; in the process that made them."""
        if os.getpid() == self._owner:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _path(self, pid: int) -> Path:
        return self._directory / str(pid)
