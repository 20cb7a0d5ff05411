"""File locks, which the kernel releases when their holder ends, however it ends.

A lock belongs to the open file: a child that inherits the descriptor keeps it. The server and its daemon get their
locks that way, so a held lock means a live process, without process ids.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dispatcher.errors import InvalidSettings, ServerUnavailable


def take(path: Path, *, within: float = 0.0) -> int | None:
    """Lock a file, created if it is missing, and return its descriptor; None if it stays locked for ``within`` seconds.

    Raises:
        InvalidSettings: files can't be locked there.
    """
    end = time.monotonic() + within
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                os.close(descriptor)
                return None
            time.sleep(0.005)
        except OSError as error:
            os.close(descriptor)
            raise InvalidSettings(
                f"files in {path.parent} can't be locked ({error.strerror}); "
                "set DISPATCHER__STATE_DIR to a directory on a local disk"
            ) from error
        else:
            return descriptor


def held(path: Path) -> bool:
    """Return True if the file is locked.

    The check itself locks it for a moment, so others should wait a little when they take it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def locked(path: Path, *, within: float) -> Iterator[None]:
    """Hold the lock of a file.

    Raises:
        ServerUnavailable: it stays locked for ``within`` seconds.
    """
    descriptor = take(path, within=within)
    if descriptor is None:
        raise ServerUnavailable(f"the laptop server has been locked by another program for {within:g} s ({path})")
    try:
        yield
    finally:
        os.close(descriptor)
