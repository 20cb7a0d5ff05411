"""The journals of a worker's pool processes: made before the fork, read once a process is dead."""

from __future__ import annotations

import threading
from collections import deque

from dispatcher.logs.journal import Journal, JournalLine, adopt_journal

#: Dead processes whose journals are kept: their runs' ends may be recorded later, when the server is back.
_KEPT = 32


class Journals:
    """By pid. Processes are made and end on Celery's loop; journals are read on the keeper's thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next: Journal | None = None
        self._by_pid: dict[int, Journal] = {}
        self._dead: deque[Journal] = deque()

    def open(self) -> None:
        """Make the journal of a process that is about to be forked."""
        self._next = Journal()

    def opened(self, pid: int) -> None:
        """It was forked."""
        assert self._next is not None
        self._next.close_write_ends()
        with self._lock:
            self._by_pid[pid] = self._next
        self._next = None

    def adopt(self) -> None:
        """In the new process: take its own, and leave those of others."""
        for other in self._by_pid.values():
            other.close()
        if self._next is not None:
            adopt_journal(self._next)

    def ended(self, pid: int) -> None:
        """A process has ended: its journal is kept for a while."""
        with self._lock:
            if (journal := self._by_pid.get(pid)) is None:
                return
            self._dead.append(journal)
            while len(self._dead) > _KEPT:
                old = self._dead.popleft()
                old.close()
                self._by_pid = {pid: one for pid, one in self._by_pid.items() if one is not old}

    def left(self, pid: int, run_id: str) -> list[JournalLine]:
        """Return what a dead process said last of a run."""
        with self._lock:
            journal = self._by_pid.get(pid)
        return [] if journal is None else journal.recover(run_id)


#: Those of this worker: a process is a worker once.
journals = Journals()
