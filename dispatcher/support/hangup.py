"""SIGHUP: the terminal was closed, or somebody tells a whole session so. Used by who runs until told to stop.

Under ``nohup`` the signal is ignored from the start, and stays so.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from types import FrameType

_GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL


def on_hangup(handler: Callable[[int, FrameType | None], object]) -> None:
    """Have ``handler`` called at SIGHUP, unless this process was started to ignore it. For the main thread."""
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, handler)


def leave_terminal() -> None:
    """Lead standard output and error to nowhere where nobody reads them any more.

    Python flushes both at its end, and a failure there would be the exit status, 120.
    """
    poll = select.poll()
    for number in (1, 2):
        poll.register(number, 0)
    gone = [number for number, found in poll.poll(0) if found & _GONE]
    if not gone:
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in gone:
        os.dup2(nowhere, number)
    os.close(nowhere)
