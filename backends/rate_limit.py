"""A limit on the rate of requests to a service: a token bucket that a 429 slows down and success lets recover.

A service that answers 429 protects itself. All requests of a worker share the limit, with those of its pool processes.
"""

from __future__ import annotations

import fcntl
import functools
import mmap
import os
import struct
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

_MINIMUM = 0.02  # of the full rate
_STATE = struct.Struct("3d")  # the rate now, tokens left, when they were counted


class Bucket:
    """The state of a pace, in memory that processes forked later share.

    The lock is one of the kernel's, on a file: it ends with the process that holds it.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _STATE.size)
        with tempfile.TemporaryFile() as file:
            self._file = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._file)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock against other processes. The caller excludes threads of this process."""
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    def read(self) -> tuple[float, float, float]:
        """Return rate, tokens, and when they were counted; zeros at first."""
        rate, tokens, counted = _STATE.unpack_from(self._memory)
        return rate, tokens, counted

    def write(self, rate: float, tokens: float, counted: float) -> None:
        """Store rate, tokens, and when they were counted."""
        _STATE.pack_into(self._memory, 0, rate, tokens, counted)


@functools.lru_cache(maxsize=16)
def shared(server: Hashable) -> Bucket:
    """Return the bucket of a server, which this process shares with all that it forks from now on."""
    return Bucket()


class Pace:
    """Limits the rate of requests.

    Args:
        rate: requests per second when all is well; as many may come at once.
        bucket: shared with other processes; None: this object's own.
        clock, sleep: of the process; tests have their own.
    """

    def __init__(
        self,
        rate: float = 500.0,
        *,
        bucket: Bucket | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._full = rate
        self._clock = clock
        self._sleep = sleep
        self._bucket = bucket
        self._rate = self._tokens = rate
        self._counted = clock()
        self._lock = threading.Lock()

    def take(self, *, within: float) -> bool:
        """Wait for a token. Return False at once if that would take longer than ``within`` seconds."""
        with self._alone():
            wait = max(0.0, (1.0 - self._tokens) / self._rate)
            if wait > within:
                return False
            self._tokens -= 1.0
        if wait:
            self._sleep(wait)
        return True

    def slow(self, pause: float) -> None:
        """Halve the rate, because the server is busy, and let no request through for ``pause`` seconds."""
        with self._alone():
            self._rate = max(self._rate / 2, self._full * _MINIMUM)
            self._tokens = min(self._tokens, 1.0 - pause * self._rate)

    def succeed(self) -> None:
        """Raise the rate a little, up to the full rate, because the server answered as usual."""
        with self._alone():
            self._rate = min(self._full, self._rate * 1.05)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the locks, with the tokens counted up to now; share changes with the other processes."""
        lock: Any = nullcontext() if self._bucket is None else self._bucket.held()
        with self._lock, lock:
            if self._bucket is not None and (state := self._bucket.read())[0]:
                self._rate, self._tokens, self._counted = state
            now = self._clock()
            self._tokens = min(self._full, self._tokens + (now - self._counted) * self._rate)
            self._counted = now
            try:
                yield
            finally:
                if self._bucket is not None:
                    self._bucket.write(self._rate, self._tokens, self._counted)
