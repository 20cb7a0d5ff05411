"""The pool processes that run something now, and the one safe way to kill such a process.

The table changes on Celery's event loop, when a pool process accepts a task or its end is read. A process gets its next
task only after the end of the one before was read. So while the lock is held and the table names a run, the process
can't have begun another. Killing under the lock is therefore as safe as on the event loop, and works even while the
loop reconnects, or waits for the pool at shutdown.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections import deque
from dataclasses import dataclass, field

from workers.pool.termination import TerminationReason

logger = logging.getLogger(__name__)


@dataclass
class BusyProcess:
    """A pool process and the run that it has accepted. Times are of this process's monotonic clock."""

    pid: int
    run_id: str
    since: float = field(default_factory=time.monotonic)
    adopted: bool = False  #: found through the records; Celery doesn't know of it
    epoch: int | None = None  #: of the run when its record last named this process
    missing: int = 0  #: times in a row that the record didn't name this process any more
    interrupted_for: TerminationReason | None = None  #: why the flow was asked to end
    interrupted_at: float = 0.0
    settled_since: float | None = None  #: when on_exit was first observed to run
    killed_for: TerminationReason | None = None  #: why the process was killed


class BusyProcesses:
    """All busy processes, by pid."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_pid: dict[int, BusyProcess] = {}
        self._done: deque[tuple[int, str]] = deque(maxlen=1000)

    def add(self, pid: int, run_id: str, *, adopted: bool = False) -> None:
        """Add a process that has accepted a run."""
        with self._lock:
            self._by_pid[pid] = BusyProcess(pid, run_id, adopted=adopted)

    def remove(self, pid: int | None, run_id: str) -> BusyProcess | None:
        """Remove and return a process that has ended a run, or died; None if it isn't busy with that run."""
        with self._lock:
            process = self._by_pid.get(pid or 0)
            if process is None or process.run_id != run_id:
                return None
            self._done.append((process.pid, run_id))
            return self._by_pid.pop(process.pid)

    def may_run(self, pid: int, run_id: str) -> bool:
        """Return True if a living process may run a run of which Celery doesn't know (any more)."""
        with self._lock:
            return pid not in self._by_pid and (pid, run_id) not in self._done

    def all(self) -> list[BusyProcess]:
        """Return the processes that are busy now."""
        with self._lock:
            return list(self._by_pid.values())

    def __bool__(self) -> bool:
        return bool(self._by_pid)

    def kill(self, process: BusyProcess, reason: TerminationReason) -> bool:
        """Send SIGKILL to a process and its group, if it still runs that run. Return True if it was sent."""
        with self._lock:
            if self._by_pid.get(process.pid) is not process:
                return False
            process.killed_for = process.killed_for or reason
            return kill_group(process.pid)


def exit_status(pid: int) -> int | None:
    """Return how a child of this process ended, a signal as its negative number; None while it lives.

    The child isn't reaped, which is left to the pool; the pool's event loop may be waiting for the broker.
    """
    if not hasattr(os, "waitid"):
        return None
    try:
        result = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # reaped a moment ago
        return None
    if result is None:
        return None
    return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status


def kill_group(pid: int) -> bool:
    """Send SIGKILL to a pool process and its own process group. Return False if there is no such process."""
    try:
        if os.getpgid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)
        else:  # it died, or hasn't created its group yet
            os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def sweep_group(pid: int) -> None:
    """Send SIGKILL to the processes that a dead pool process left in its group."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
    logger.debug("Killed the processes that process %d had left", pid)
