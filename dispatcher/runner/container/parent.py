"""PID 1 of a runner's container: a small process that survives whatever the flow does to its own process.

It handles SIGTERM (SIGINT and SIGHUP mean the same) before anything else is imported, forwards it, keeps the timeouts,
reaps orphans and learns how the flow's process died. Its one child runs the flow
(:mod:`dispatcher.runner.container.child`) and writes its progress to a pipe. To start fast, this module imports only
the standard library, and the journal and the counter of OOM kills, which do the same.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from types import FrameType

from dispatcher.logs.journal import Journal, adopt_journal
from dispatcher.runner.container.memory import oom_kills

GRACE = "DISPATCHER__RUN__GRACE"
LINGER = "DISPATCHER__RUN__LINGER"
GRACE_DEFAULT = 30.0  # seconds; the default of Kubernetes
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
FLOW_SHARE = 2 / 3  # of the grace, after which a flow that doesn't stop is killed; the rest is for the report
STOPPED = 128 + signal.SIGTERM  # exit code: stopped from outside, and reported so
#: Seconds until a signal to the child is repeated. One that arrives while Python releases its lock on the way into a
#: blocking call isn't handled before that call ends, unless another signal arrives.
_RESEND_INTERVAL = 1.0
_CLUSTER_GRACE = 3.0  # seconds for a flow to end once its own Dask cluster has died
_EXIT_TIMEOUT = 5.0  # seconds for the child to exit once its end was reported
_DESCRIBE_TIMEOUT = 60.0  # seconds for the child to write its outcome, once a flow has stopped after its timeout
_LONGEST_POLL = 3600.0  # seconds; poll() takes 24 days at most, and a timeout may be longer


class ContainerParent:
    """Watches one child.

    Attributes:
        nonce: identifies this start of a process; the attempt is claimed with it.
        claimed, message_written, settled, exited: the child's progress; see :meth:`_on_progress`.
        has_on_exit: whether the child's environment has an ``on_exit``.
        exit_call: the progress of an ``on_exit`` that is called for a dead child: a name of
            :class:`~dispatcher.runs.outcome.ExitCall`, or empty.
        expired_clock: the clock whose end made this process kill the child: ``flow``, ``cluster``, ``describe``,
            ``exit``, ``leave`` or ``term``; empty if none did.
        stop_requested_at: monotonic time of the first stop signal, or of the cancel that the child has read.
        journal: the child's last lines.
        oom_kills_before: number of OOM kills in this container before the child started.
    """

    def __init__(self, *, grace: float = GRACE_DEFAULT) -> None:
        self.nonce = os.urandom(8).hex()
        self.claimed = self.message_written = self.settled = self.exited = self.has_on_exit = False
        self.expired_clock = self.exit_call = ""
        self.stop_requested_at: float | None = None
        self.grace = grace
        self.oom_kills_before = oom_kills()
        self.journal = Journal()
        self._child = 0
        self._forwarded = self._signalled = False
        self._repeated_signal = 0
        self._clocks: dict[str, float] = {}
        self._on_exit_timeout = 0.0
        self._stop_grace = 0.0
        self._partial_line = b""
        self._status: int | None = None
        self._wakeup_read, self._wakeup_write = os.pipe()
        self._progress_read, self._progress_write = os.pipe()
        for descriptor in (self._wakeup_read, self._wakeup_write, self._progress_read):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(self._wakeup_write, warn_on_full_buffer=False)
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_stop_signal)
        signal.signal(signal.SIGCHLD, _on_sigchld)

    def fork(self) -> int | None:
        """Start the child. Return None in the parent, and in the child the descriptor for its progress."""
        signals = {*STOP_SIGNALS, signal.SIGCHLD}
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        parent = os.getpid()
        self._child = os.fork()
        if self._child == 0:
            signal.set_wakeup_fd(-1)
            os.setsid()
            if parent != 1:
                from dispatcher.support.parent_death import die_with

                die_with(parent)  # in a container the death of PID 1 does that
            for number in signals:
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
            for descriptor in (self._wakeup_read, self._wakeup_write, self._progress_read):
                os.close(descriptor)
            adopt_journal(self.journal)
        else:
            os.close(self._progress_write)
            self.journal.close_write_ends()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        return self._progress_write if self._child == 0 else None

    def watch(self) -> int:
        """Wait for the child's end. Return its exit code, or 128 + the number of the signal that killed it."""
        poll = select.poll()
        poll.register(self._wakeup_read, select.POLLIN)
        poll.register(self._progress_read, select.POLLIN)
        while True:
            if self.stop_requested_at is not None and not self._forwarded:
                self._forwarded = True
                self._signal_repeatedly(signal.SIGTERM)
                self._clocks["term"] = self.stop_requested_at + self.grace * FLOW_SHARE
            ready = dict(poll.poll(self._poll_timeout()))
            if self._progress_read in ready and not self._read_progress():
                poll.unregister(self._progress_read)
            with contextlib.suppress(BlockingIOError):
                os.read(self._wakeup_read, 1024)
            self._reap()
            if self._status is not None:
                self._read_progress()
                self._kill()  # processes that the flow left behind
                return code if (code := os.waitstatus_to_exitcode(self._status)) >= 0 else 128 - code
            self._handle_expired_clocks()

    def linger(self, seconds: float) -> None:
        """Wait so many seconds for a stop signal, unless one has arrived."""
        until = time.monotonic() + seconds
        while not self._signalled and (left := until - time.monotonic()) > 0:
            select.select([self._wakeup_read], [], [], min(left, _LONGEST_POLL))
            with contextlib.suppress(BlockingIOError):
                os.read(self._wakeup_read, 1024)

    def remaining_grace(self) -> float | None:
        """Return the seconds that are left of the grace; None if no stop signal has arrived."""
        if self.stop_requested_at is None:
            return None
        return max(0.0, self.stop_requested_at + self.grace - time.monotonic() - 1.0)

    def successor(self, on_exit_timeout: float, within: float) -> ContainerParent:
        """Return the parent of another child, which calls ``on_exit``. Stop signals go to it from now on.

        Args:
            on_exit_timeout: seconds that ``on_exit`` gets once it has begun.
            within: seconds that the child gets in all.
        """
        other = ContainerParent(grace=self.grace)
        other.stop_requested_at, other._signalled = self.stop_requested_at, self._signalled
        other._forwarded = self.stop_requested_at is not None  # ``within`` ends before the grace
        other.message_written = True  # a stop signal isn't repeated
        other._on_exit_timeout = on_exit_timeout
        other._clocks["leave"] = time.monotonic() + within
        return other

    def _on_stop_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._signalled = True
        self.stop_requested_at = self.stop_requested_at or time.monotonic()

    def _poll_timeout(self) -> float | None:
        """Return the milliseconds until the next clock expires, or an hour if that is less; None if none runs."""
        if not self._clocks:
            return None
        left = min(self._clocks.values()) - time.monotonic()
        return min(max(0.0, left), _LONGEST_POLL) * 1000 + 1

    def _read_progress(self) -> bool:
        """Read the child's progress. Return False once the pipe is closed."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._progress_read, 4096):
                *lines, self._partial_line = (self._partial_line + data).split(b"\n")
                for line in lines:
                    self._on_progress(line.decode().split())
            return False
        return True

    def _on_progress(self, words: list[str]) -> None:
        now = time.monotonic()
        match words:
            case ["claimed", timeout, stop_grace, on_exit_timeout, has_on_exit]:
                self.claimed, self.has_on_exit = True, has_on_exit == "True"
                self._stop_grace, self._on_exit_timeout = float(stop_grace), float(on_exit_timeout)
                self._clocks |= {"timeout": now + float(timeout)} if float(timeout) else {}
            case ["cancelled"] | ["unwanted"]:  # the run was cancelled, or the attempt is closed
                self.stop_requested_at = self.stop_requested_at or now
            case ["cluster_lost"]:  # the flow's own cluster has died; the termination message says so
                self._clocks["cluster"] = now + _CLUSTER_GRACE
            case ["flow_ended"]:  # what it raised is still to be described, which calls its code
                if self._clocks.keys() & {"flow", "cluster"}:
                    self._clocks["describe"] = now + _DESCRIBE_TIMEOUT
                self._stop_clocks("timeout", "flow", "cluster", "resend")
            case ["message_written"]:  # the flow has ended, and its outcome is in the termination message
                self.message_written = True
                self._stop_clocks("timeout", "flow", "cluster", "resend", "describe")
            case ["settled"]:  # the outcome is reported; on_exit runs
                self.settled = True
                self._clocks["exit"] = now + self._on_exit_timeout
            case ["on_exit", name]:  # as :attr:`exit_call` says
                self.exit_call = name
                self._clocks["exit"] = now + self._on_exit_timeout
            case ["exited"]:  # the end is reported
                self.exited = True
                self._stop_clocks("exit")
                self._clocks["leave"] = now + _EXIT_TIMEOUT

    def _stop_clocks(self, *names: str) -> None:
        for name in names:
            self._clocks.pop(name, None)

    def _handle_expired_clocks(self) -> None:
        now = time.monotonic()
        if any(at <= now for at in self._clocks.values()):
            self._read_progress()  # on a busy node the child may have stopped while this process waited for its turn
        for name in [name for name, at in self._clocks.items() if at <= now]:
            del self._clocks[name]
            if name == "resend":
                self._signal_repeatedly(self._repeated_signal)
            elif name == "timeout":
                self._signal_repeatedly(signal.SIGUSR1)
                self._clocks["flow"] = now + self._stop_grace
            else:
                self.expired_clock = self.expired_clock or name
                self._kill()

    def _signal_repeatedly(self, number: int) -> None:
        """Signal the child to end its flow, and repeat that until it reports that the flow has ended."""
        self._repeated_signal = number
        self._signal(number)
        if not self.message_written:
            self._clocks["resend"] = time.monotonic() + _RESEND_INTERVAL

    def _signal(self, number: int) -> None:
        if self._status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, number)

    def _kill(self) -> None:
        """Kill the child and the processes that it started; in a container, all processes but this one."""
        with contextlib.suppress(ProcessLookupError):
            if os.getpid() == 1:
                os.kill(-1, signal.SIGKILL)
            else:
                os.killpg(self._child, signal.SIGKILL)
        self._signal(signal.SIGKILL)  # the child may not lead its process group yet

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self._child:
                    self._status = status


def _on_sigchld(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: the signal only has to wake the poll."""
