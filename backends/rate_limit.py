"""A bound on requests to the API server: one token bucket, which a 429 slows down and success lets recover.

An API server that says 429 is protecting itself; all requests of a worker share the answer, its pool processes' too.
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

_LEAST = 0.02  # of the full rate
_STATE = struct.Struct("3d")  # the rate now, tokens left, when they were counted


class Bucket:
    """The state of a pace, in memory that processes forked later share.

    The lock is one of the kernel's, on a file: it ends with the process that holds it, however that ends.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _STATE.size)
        with tempfile.TemporaryFile() as file:
            self._file = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._file)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Alone among processes; among threads that is for the caller to see to."""
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    def read(self) -> tuple[float, float, float]:
        """Rate, tokens, and when they were counted; zeros at first."""
        rate, tokens, counted = _STATE.unpack_from(self._memory)
        return rate, tokens, counted

    def write(self, rate: float, tokens: float, counted: float) -> None:
        """Keep them."""
        _STATE.pack_into(self._memory, 0, rate, tokens, counted)


@functools.lru_cache(maxsize=16)
def shared(server: Hashable) -> Bucket:
    """The bucket of a server in this process and in all that it forks from now on: they inherit it."""
    return Bucket()


class Pace:
    """Gives each request its turn.

    Args:
        rate: requests per second when all is well; as many may come at once.
        bucket: shared with other processes; None: this object's own.
        clock, sleep: of the process; tests give their own.
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
        """Wait for a turn; False, at once, if it would come later than ``within`` seconds."""
        with self._alone():
            wait = max(0.0, (1.0 - self._tokens) / self._rate)
            if wait > within:
                return False
            self._tokens -= 1.0
        if wait:
            self._sleep(wait)
        return True

    def slow(self, pause: float) -> None:
        """The server is busy: half the rate, and nobody's turn for ``pause`` seconds."""
        with self._alone():
            self._rate = max(self._rate / 2, self._full * _LEAST)
            self._tokens = min(self._tokens, 1.0 - pause * self._rate)

    def succeed(self) -> None:
        """The server answered as usual: a step back to the full rate."""
        with self._alone():
            self._rate = min(self._full, self._rate * 1.05)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """With all tokens counted up to now; what is changed is kept for all."""
        other: Any = nullcontext() if self._bucket is None else self._bucket.held()
        with self._lock, other:
            if self._bucket is not None and (kept := self._bucket.read())[0]:
                self._rate, self._tokens, self._counted = kept
            now = self._clock()
            self._tokens = min(self._full, self._tokens + (now - self._counted) * self._rate)
            self._counted = now
            try:
                yield
            finally:
                if self._bucket is not None:
                    self._bucket.write(self._rate, self._tokens, self._counted)
