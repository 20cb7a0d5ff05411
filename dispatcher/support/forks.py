"""Children that a user's code forks: they may run that code, and leave where it ends.

A forked child has a copy of everything: the attempt, the connections, the pipes of the worker. If it went on in our
code it would settle the run for its parent, and then take the worker's next jobs. Called wherever code of a user's runs
in a process that speaks for a run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def in_parent_only(call: Callable[[], T]) -> T:
    """Return or raise what ``call()`` does, in the process that called it.

    A child that was forked inside ends here, at once, as :func:`os._exit` does it: nothing is flushed, closed or told.
    Its exit status is Python's own: 0 after a return, what ``sys.exit()`` was given, 1 after any other exception.
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
