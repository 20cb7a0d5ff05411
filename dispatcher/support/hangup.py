"""Handling of SIGHUP, which a closed terminal sends. Used by commands that run until they are stopped.

Under ``nohup`` the signal is ignored from the start, and stays ignored.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from types import FrameType

_GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL


def on_hangup(handler: Callable[[int, FrameType | None], object]) -> None:
    """Call ``handler`` at SIGHUP, unless this process was started to ignore it. Call from the main thread."""
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, handler)


def leave_terminal() -> None:
    """Redirect standard output and error to the null device if their reader has gone.

    Python flushes both at exit, and would turn a failure into exit status 120.
    """
    poll = select.poll()
    for number in (1, 2):
        poll.register(number, 0)
    gone = [number for number, events in poll.poll(0) if events & _GONE]
    if not gone:
        return
    null = os.open(os.devnull, os.O_WRONLY)
    for number in gone:
        os.dup2(null, number)
    os.close(null)
