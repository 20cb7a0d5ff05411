"""Threads that send lines, kept for the next run of their process.

Starting one costs more than a small run. And a flow that has taken the process's memory, or bounded it, must not be
asked for a thread: Python waits without end for one that dies as it starts.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from dispatcher.support.mailbox import Mailbox


class _Sender:
    """A thread that makes one call after the other."""

    def __init__(self) -> None:
        self.calls: Mailbox[Callable[[], None]] = Mailbox()
        threading.Thread(target=self._work, name="dispatcher-logs", daemon=True).start()

    def _work(self) -> None:
        while True:
            self.calls.get()()
            if len(_idle) >= MOST_IDLE:
                return
            _idle.append(self)


#: Idle threads that are kept. More than one is needed only where flows log at once in one process, with ``memory://``.
MOST_IDLE = 4

_idle: list[_Sender] = []


def prepare() -> None:
    """Have a thread ready, while one can still be started."""
    if not _idle:
        _idle.append(_Sender())


def start(call: Callable[[], None]) -> None:
    """Make a call on an idle thread, or on a new one."""
    try:
        sender = _idle.pop()
    except IndexError:
        sender = _Sender()
    sender.calls.put(call)


os.register_at_fork(after_in_child=_idle.clear)  # a fork's child has none of its parent's threads
