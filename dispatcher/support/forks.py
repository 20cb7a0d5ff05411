"""Keep children that a user's code forks out of our code: they end where the user's code does.

A forked child has copies of the attempt, the connections and the worker's pipes. If it returned into our code, it would
finish the run in place of its parent, and then take the worker's next jobs. Used wherever a user's code runs in a
process that reports for a run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


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
