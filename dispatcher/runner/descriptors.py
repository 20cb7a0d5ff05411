"""Catches what child processes and C code write to file descriptors 1 and 2.

Called by :mod:`dispatcher.runner.capture` in a process of the flow's own: descriptors belong to the whole process.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import select
import threading
from collections.abc import Callable

_CHUNK = 65536


class Descriptors:
    """Puts pipes in the place of descriptors 1 and 2 and reads them in a thread.

    Args:
        puts: for each descriptor, what takes its decoded text.
    """

    def __init__(self, puts: dict[int, Callable[[str], object]]) -> None:
        self._lock = threading.RLock()
        self._readers: dict[int, Callable[[bytes], object]] = {}
        self._saved: dict[int, int] = {}
        self._poll = select.poll()
        self._draining = False
        self._wake, self._waker = os.pipe()
        for number, put in puts.items():
            self._divert(number, put)
        self._thread = threading.Thread(target=self._read, name="dispatcher-output", daemon=True)
        self._thread.start()

    def drain(self) -> None:
        """Take what is in the pipes now, so that what comes next stands behind it."""
        with self._lock:  # also to wait for what the thread has read and not yet passed on
            if self._draining:  # a signal handler that prints, in the thread that is here already
                return
            self._draining = True
            try:
                for source, _ in self._poll.poll(0):
                    self._take(source)
            finally:
                self._draining = False

    def close(self) -> None:
        """Give the descriptors back. What a child that outlives the flow writes from now on is lost to it."""
        for number, saved in self._saved.items():
            os.dup2(saved, number)
            os.close(saved)
        os.write(self._waker, b".")
        self._thread.join()
        self.drain()
        self._poll = select.poll()  # of nothing
        for source in (*self._readers, self._wake, self._waker):
            os.close(source)

    def _divert(self, number: int, put: Callable[[str], object]) -> None:
        source, target = os.pipe()
        os.set_blocking(source, False)
        self._saved[number] = os.dup(number)
        os.dup2(target, number)
        os.close(target)
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._readers[source] = lambda data: put(decode(data))
        self._poll.register(source, select.POLLIN)

    def _take(self, source: int) -> None:
        """One pipe's worth at most: a child that never stops writing must not hold its parent here."""
        with contextlib.suppress(BlockingIOError):
            if data := os.read(source, _CHUNK):
                self._readers[source](data)

    def _read(self) -> None:
        poll = select.poll()
        for source in (*self._readers, self._wake):
            poll.register(source, select.POLLIN)
        while True:
            for source, event in poll.poll():
                if source == self._wake:
                    return
                if not event & select.POLLIN:  # the flow closed the descriptor itself
                    poll.unregister(source)
            self.drain()
