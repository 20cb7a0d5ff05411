"""The runs of this worker's pool processes, and the one safe way to kill such a process.

The table changes on Celery's event loop, when a pool process takes a task or its end is read. A process gets its next
task only after the end of the one before was read, so while the lock is held and the table names a run, that process
can't have begun another. Killing under the lock is therefore as safe as on the event loop, and still works while the
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
    """A pool process and the run it has taken. Times are of this process' monotonic clock."""

    pid: int
    run_id: str
    since: float = field(default_factory=time.monotonic)
    adopted: bool = False  #: found through the records; Celery does not know of it
    epoch: int | None = None  #: as last seen while the run was this process'
    missing: int = 0  #: looks in a row at which it was no longer this process'
    told: TerminationReason | None = None  #: how it was asked to end
    told_at: float = 0.0
    settled_since: float | None = None  #: on_exit was first seen under way
    ending: TerminationReason | None = None  #: why it was killed


class BusyProcesses:
    """All of them, by pid."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_pid: dict[int, BusyProcess] = {}
        self._done: deque[tuple[int, str]] = deque(maxlen=1000)

    def take(self, pid: int, run_id: str, *, adopted: bool = False) -> None:
        """Process ``pid`` has begun with a run."""
        with self._lock:
            self._by_pid[pid] = BusyProcess(pid, run_id, adopted=adopted)

    def drop(self, pid: int | None, run_id: str) -> BusyProcess | None:
        """It has ended, or died; what was known of it."""
        with self._lock:
            found = self._by_pid.get(pid or 0)
            if found is None or found.run_id != run_id:
                return None
            self._done.append((found.pid, run_id))
            return self._by_pid.pop(found.pid)

    def may_run(self, pid: int, run_id: str) -> bool:
        """Return True if a living process may be running a run of which Celery doesn't know (any more)."""
        with self._lock:
            return pid not in self._by_pid and (pid, run_id) not in self._done

    def all(self) -> list[BusyProcess]:
        """Those held now."""
        with self._lock:
            return list(self._by_pid.values())

    def __bool__(self) -> bool:
        return bool(self._by_pid)

    def kill(self, holding: BusyProcess, ending: TerminationReason) -> bool:
        """SIGKILL the process and its group, if it still runs that run."""
        with self._lock:
            if self._by_pid.get(holding.pid) is not holding:
                return False
            holding.ending = holding.ending or ending
            return kill_group(holding.pid)


def exit_status(pid: int) -> int | None:
    """Return how a child of this process ended, a signal as its negative number; None while it lives.

    It isn't reaped: that is the pool's to do, whose event loop may be waiting for the broker.
    """
    if not hasattr(os, "waitid"):
        return None
    try:
        found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # reaped just now
        return None
    if found is None:
        return None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


def kill_group(pid: int) -> bool:
    """SIGKILL to a pool process and all of its own process group; whether there was one."""
    try:
        if os.getpgid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)
        else:  # it died, or hasn't made its group yet
            os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def sweep_group(pid: int) -> None:
    """SIGKILL to what a dead pool process left in its group."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
    logger.debug("processes left by %d were killed", pid)
