"""The journals of a worker's pool processes: created before the fork, read once a process is dead."""

from __future__ import annotations

import threading
from collections import deque

from dispatcher.logs.journal import Journal, JournalLine, adopt_journal

#: Dead processes whose journals are retained: the ends of their runs may be recorded later, when the server is back.
_RETAINED = 32


class Journals:
    """Journals by pid. Celery's event loop adds and removes processes; the monitor's thread reads journals."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next: Journal | None = None
        self._by_pid: dict[int, Journal] = {}
        self._dead: deque[Journal] = deque()

    def prepare(self) -> None:
        """Create the journal of a process that is about to be forked."""
        self._next = Journal()

    def forked(self, pid: int) -> None:
        """Assign the prepared journal to the process that was forked."""
        assert self._next is not None
        self._next.close_write_ends()
        with self._lock:
            self._by_pid[pid] = self._next
        self._next = None

    def adopt(self) -> None:
        """Adopt this process's own journal, and close those of others. Call in the new process."""
        for other in self._by_pid.values():
            other.close()
        if self._next is not None:
            adopt_journal(self._next)

    def ended(self, pid: int) -> None:
        """Note that a process has ended. Its journal is retained for a while."""
        with self._lock:
            if (ended := self._by_pid.get(pid)) is None:
                return
            self._dead.append(ended)
            while len(self._dead) > _RETAINED:
                oldest = self._dead.popleft()
                oldest.close()
                self._by_pid = {pid: journal for pid, journal in self._by_pid.items() if journal is not oldest}

    def last_output(self, pid: int, run_id: str) -> list[JournalLine]:
        """Return the last lines of a dead process about a run."""
        with self._lock:
            journal = self._by_pid.get(pid)
        return [] if journal is None else journal.recover(run_id)


#: Those of this process, which is a worker once.
journals = Journals()
