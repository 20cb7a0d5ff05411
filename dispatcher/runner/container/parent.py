"""PID 1 of a runner's container: a small process that outlives whatever the flow does to its own.

It hears SIGTERM (SIGINT and SIGHUP mean the same) before anything of ours is imported, passes it on, keeps the clocks,
reaps orphans and, when the flow's process is dead, says how it died. It never runs the flow: that is its one child's
part (:mod:`dispatcher.runner.container.child`), which tells it on a pipe how far it is. Nothing is imported here but
the standard library and the journal, which does so too.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from types import FrameType

from dispatcher.logs.journal import Journal, adopt_journal

GRACE = "DISPATCHER__RUN__GRACE"
GRACE_DEFAULT = 30.0  # seconds: Kubernetes' own
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # all tell it to stop
STOPPED = 128 + signal.SIGTERM  # exit code: told to stop from outside, and reported so
#: Seconds between two signals that say the same to the child. One that comes while Python hands its lock over, on the
#: way into a blocking call, isn't handled before that call ends, unless another comes.
_AGAIN = 1.0
_LEAVE = 5.0  # seconds that a child gets to end once its end was reported


class Parent:
    """Watches one child.

    Attributes:
        nonce: of this start of a process; the attempt is claimed with it.
        claimed, over, settled, exited: how far the child is; see :meth:`_hear`.
        why: which clock made us kill the child: ``flow``, ``exit``, ``leave`` or ``term``; empty if none did.
        journal: what the child says last.
        ooms: how many processes of this container were killed for want of memory before the child began.
    """

    def __init__(self, *, grace: float = GRACE_DEFAULT) -> None:
        self.nonce = os.urandom(8).hex()
        self.claimed = self.over = self.settled = self.exited = False
        self.why = ""
        self.told_at: float | None = None
        self.grace = grace
        self.ooms = oom_kills()
        self.journal = Journal()
        self._child = 0
        self._forwarded = False
        self._telling = 0
        self._clocks: dict[str, float] = {}
        self._on_exit = 0.0
        self._stop_grace = 0.0
        self._heard = b""
        self._status: int | None = None
        self._wake, self._waker = os.pipe()
        self._ear, self._mouth = os.pipe()
        for descriptor in (self._wake, self._waker, self._ear):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        for number in STOPS:
            signal.signal(number, self._told)
        signal.signal(signal.SIGCHLD, _nothing)

    def fork(self) -> int | None:
        """Start the child. In the parent None; in the child the descriptor on which it tells how far it is."""
        signals = {*STOPS, signal.SIGCHLD}
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        parent = os.getpid()
        self._child = os.fork()
        if self._child == 0:
            signal.set_wakeup_fd(-1)
            os.setsid()
            if parent != 1:
                _die_with(parent)
            for number in signals:
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
            for descriptor in (self._wake, self._waker, self._ear):
                os.close(descriptor)
            adopt_journal(self.journal)
        else:
            os.close(self._mouth)
            self.journal.close_write_ends()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        return self._mouth if self._child == 0 else None

    def watch(self) -> int:
        """Wait for the child's end: its exit code, 128 + the number of the signal that killed it."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        poll.register(self._ear, select.POLLIN)
        while True:
            if self.told_at is not None and not self._forwarded:
                self._forwarded = True
                self._tell(signal.SIGTERM)
                self._clocks["term"] = self.told_at + self.grace * 2 / 3
            ready = dict(poll.poll(self._until_next()))
            if self._ear in ready and not self._listen():
                poll.unregister(self._ear)
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake, 1024)
            self._reap()
            if self._status is not None:
                self._listen()
                self._kill()  # what the flow started and left
                return code if (code := os.waitstatus_to_exitcode(self._status)) >= 0 else 128 - code
            self._ring()

    def left(self) -> float | None:
        """Seconds of the grace that are left, once we were told to stop."""
        return None if self.told_at is None else max(0.0, self.told_at + self.grace - time.monotonic() - 1.0)

    def _told(self, _number: int, _frame: FrameType | None) -> None:
        self.told_at = self.told_at or time.monotonic()

    def _until_next(self) -> float | None:
        if not self._clocks:
            return None
        return max(0.0, min(self._clocks.values()) - time.monotonic()) * 1000 + 1

    def _listen(self) -> bool:
        """Take what the child said; False once it can't say more."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._ear, 4096):
                *lines, self._heard = (self._heard + data).split(b"\n")
                for line in lines:
                    self._hear(line.decode().split())
            return False
        return True

    def _hear(self, words: list[str]) -> None:
        now = time.monotonic()
        match words:
            case ["claimed", timeout, stop_grace, on_exit]:
                self.claimed = True
                self._stop_grace, self._on_exit = float(stop_grace), float(on_exit)
                if float(timeout):
                    self._clocks["timeout"] = now + float(timeout)
            case ["ended"]:  # the flow has
                self._drop("timeout", "flow", "again")
            case ["over"]:  # and its last words are written
                self.over = True
                self._drop("timeout", "flow", "again")
            case ["settled"]:  # the outcome is recorded; on_exit runs
                self.settled = True
                self._clocks["exit"] = now + self._on_exit
            case ["exited"]:  # the end is recorded
                self.exited = True
                self._drop("exit")
                self._clocks["leave"] = now + _LEAVE

    def _drop(self, *names: str) -> None:
        for name in names:
            self._clocks.pop(name, None)

    def _ring(self) -> None:
        """See to the clocks that have run out."""
        now = time.monotonic()
        for name in [name for name, at in self._clocks.items() if at <= now]:
            del self._clocks[name]
            if name == "again":
                self._tell(self._telling)
            elif name == "timeout":
                self._tell(signal.SIGUSR1)
                self._clocks["flow"] = now + self._stop_grace
            else:
                self.why = self.why or name
                self._kill()

    def _tell(self, number: int) -> None:
        """Signal the child to end its flow, again and again until it says that the flow has ended."""
        self._telling = number
        self._signal(number)
        if not self.over:
            self._clocks["again"] = time.monotonic() + _AGAIN

    def _signal(self, number: int) -> None:
        if self._status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, number)

    def _kill(self) -> None:
        """End the child with all that it started: in a container of our own that is everybody else."""
        with contextlib.suppress(ProcessLookupError):
            if os.getpid() == 1:
                os.kill(-1, signal.SIGKILL)
            else:
                os.killpg(self._child, signal.SIGKILL)
        self._signal(signal.SIGKILL)  # it may not lead its group yet

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self._child:
                    self._status = status


def oom_kills() -> int:
    """Count the processes of this container that were killed for want of memory so far; 0 where that can't be known."""
    for path, word in (
        ("/sys/fs/cgroup/memory.events", "oom_kill "),
        ("/sys/fs/cgroup/memory/memory.oom_control", "oom_kill "),
    ):
        with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as file:  # noqa: PTH123 - no pathlib
            return sum(int(line.removeprefix(word)) for line in file if line.startswith(word))
    return 0


def _die_with(parent: int) -> None:
    """Outside of a container a child outlives its parent, unless it asks not to."""
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """SIGCHLD only has to wake us."""
