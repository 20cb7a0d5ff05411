"""A process that doesn't outlive its parent. Imports the standard library alone, because runners start with it."""

from __future__ import annotations

import os
import signal

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Have the system kill this process when its parent dies: strictly, when the thread ends that has started it.

    Args:
        parent: the parent's pid, to notice that it has died before.
    """
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
