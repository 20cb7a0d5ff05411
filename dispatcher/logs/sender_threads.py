"""A pool of threads that send lines, reused by the next run of their process.

Starting a thread costs more than a small run. Besides, no thread may be started once a flow has used up or limited the
process's memory: Python waits for ever for a thread that dies as it starts. Used by :mod:`dispatcher.logs.shipper`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from dispatcher.support.mailbox import Mailbox


class _Sender:
    """A thread that makes the calls of its mailbox, one after the other."""

    def __init__(self) -> None:
        self.calls: Mailbox[Callable[[], None]] = Mailbox()
        threading.Thread(target=self._work, name="dispatcher-logs", daemon=True).start()

    def _work(self) -> None:
        while True:
            self.calls.get()()
            if len(_idle) >= MOST_IDLE:
                return
            _idle.append(self)


#: The most idle threads that are kept. More than one is needed only if flows of one process log at the same time, which
#: happens with ``memory://``.
MOST_IDLE = 4

_idle: list[_Sender] = []


def prepare() -> None:
    """Start a thread in advance, while one can still be started."""
    if not _idle:
        _idle.append(_Sender())


def start(call: Callable[[], None]) -> None:
    """Make a call on an idle thread, or on a new one if none is idle."""
    try:
        sender = _idle.pop()
    except IndexError:
        sender = _Sender()
    sender.calls.put(call)


os.register_at_fork(after_in_child=_idle.clear)  # a forked child inherits no threads
