"""Keep children that a user's code forks out of our code: they end where the user's code does.

A forked child has copies of the attempt, the connections and the worker's pipes. If it returned into our code, it would
finish the run in place of its parent, and then take the worker's next jobs. Nor does it keep our signal handlers. Used
wherever a user's code runs in a process that reports for a run.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

T = TypeVar("T")

Handler = Callable[[int, FrameType | None], object]

_handlers: dict[int, Handler] = {}


def handle_in_this_process(number: int, handler: Handler) -> None:
    """Set a signal handler that forked children don't inherit: they handle the signal as a new program does.

    With a handler in Python, a child that waits in C code may never end by a signal, for example the children of
    ``multiprocessing.Pool`` when the pool terminates them.

    Args:
        number: the signal.
        handler: called in this process only.
    """
    _handlers[number] = handler
    signal.signal(number, handler)


def _restore_handlers() -> None:
    for number, handler in _handlers.items():
        if signal.getsignal(number) is handler:  # else the flow has set its own
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    _handlers.clear()


os.register_at_fork(after_in_child=_restore_handlers)


def in_parent_only(call: Callable[[], T]) -> T:
    """Return or raise what ``call()`` does, but only in the calling process.

    A child that ``call`` forked exits here by :func:`os._exit`: nothing is flushed, closed or reported. Its exit status
    is Python's own: 0 after a return, the argument of ``sys.exit()``, or 1 after any other exception.
    """
    pid = os.getpid()
    status = 0
    try:
        return call()
    except BaseException as error:
        status = _status(error)
        raise
    finally:
        if os.getpid() != pid:
            os._exit(status)


def _status(error: BaseException) -> int:
    if not isinstance(error, SystemExit):
        return 1
    if error.code is None:
        return 0
    return error.code & 0xFF if isinstance(error.code, int) else 1
