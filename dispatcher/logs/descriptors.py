"""Catches what child processes and C code write to file descriptors 1 and 2.

Called by :mod:`dispatcher.logs.capture` in a process of the flow's own: descriptors belong to the whole process.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import select
import selectors
import threading
from collections.abc import Callable
from functools import partial
from typing import TextIO

from dispatcher.logs.journal import Journal

_CHUNK = 65536


class Descriptors:
    """Puts pipes in the place of descriptors 1 and 2, which this process's reader empties.

    Args:
        puts: for each descriptor, what takes its decoded text.
        echo: also write what arrives to where it would have gone.
        journal: its pipes are used, which the parent reads once this process is dead; else new ones.
    """

    def __init__(
        self, puts: dict[int, Callable[[str], object]], *, echo: bool = False, journal: Journal | None = None
    ) -> None:
        self._echo = echo
        self._journal = journal if journal is not None and journal.piped else None
        self._lock = threading.RLock()
        self._readers: dict[int, Callable[[bytes], object]] = {}
        self._numbers: dict[int, int] = {}
        self._saved: dict[int, int] = {}
        self._poll = select.poll()
        self._draining = False
        self._watched: set[int] = set()
        self._reader = _reader()
        for number, put in puts.items():
            self._divert(number, put)

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

    def original(self, number: int) -> TextIO:
        """A stream to where the descriptor led before; for who wants to write past the pipes. It holds nothing back,
        since the process may die at once."""
        raw = os.fdopen(os.dup(self._saved[number]), "wb", buffering=0)
        return io.TextIOWrapper(raw, encoding="utf-8", errors="replace", write_through=True)

    def close(self) -> None:
        """Give the descriptors back. What a child that outlives the flow writes from now on is lost to it."""
        with self._lock:
            for source in list(self._watched):  # before the write ends close, which would wake the reader for nothing
                self._unwatch(source)
        for number, saved in self._saved.items():
            os.dup2(saved, number)
        self.drain()
        for saved in self._saved.values():
            os.close(saved)
        with self._lock:
            self._poll = select.poll()  # of nothing
            for source in self._readers if self._journal is None else ():
                os.close(source)

    def _divert(self, number: int, put: Callable[[str], object]) -> None:
        source, target = self._pipe(number)
        self._saved[number] = os.dup(number)
        os.dup2(target, number)
        os.close(target)
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode

        def arrived(data: bytes) -> None:
            if self._echo:
                with contextlib.suppress(OSError):  # nobody reads there; the lines themselves are kept
                    os.write(self._saved[number], data)
            put(decode(data))

        self._readers[source] = arrived
        self._numbers[source] = number
        self._poll.register(source, select.POLLIN)
        self._watched.add(source)
        self._reader.watch(source, partial(self._arrived, source))

    def _pipe(self, number: int) -> tuple[int, int]:
        if self._journal is not None:
            return self._journal.source(number), self._journal.target(number)
        source, target = os.pipe()
        os.set_blocking(source, False)
        return source, target

    def _take(self, source: int) -> bool:
        """One pipe's worth at most: a child that never stops writing must not hold its parent here.

        False where nobody can write to it any more.
        """
        with contextlib.suppress(BlockingIOError):
            journal, number = self._journal, self._numbers[source]
            data = os.read(source, _CHUNK) if journal is None else journal.read(number)
            if data:
                self._readers[source](data)
            if journal is not None:
                journal.taken(number, len(data))
            return bool(data)
        return True

    def _arrived(self, source: int) -> None:
        """In the reader's thread. Whoever comes too late finds nothing watched."""
        with self._lock:
            if source not in self._watched:
                return
            self.drain()
            if not self._take(source):  # the flow closed the descriptor itself
                self._unwatch(source)

    def _unwatch(self, source: int) -> None:
        self._watched.discard(source)
        self._reader.unwatch(source)


class _Reader:
    """This process's thread that waits for diverted descriptors: starting one per run costs more than a small run."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._read, name="dispatcher-output", daemon=True)
        self._thread.start()

    def watch(self, source: int, arrived: Callable[[], None]) -> None:
        """Call ``arrived`` whenever there is something; the system lets a thread wait while another one adds."""
        self._selector.register(source, selectors.EVENT_READ, arrived)

    def unwatch(self, source: int) -> None:
        """No more of it; before it is closed."""
        self._selector.unregister(source)

    def _read(self) -> None:
        while True:
            for key, _ in self._selector.select():
                key.data()


_readers: dict[int, _Reader] = {}
_readers_lock = threading.Lock()


def _reader() -> _Reader:
    """This process's; a fork's child has none of its parent's threads."""
    with _readers_lock:
        if (found := _readers.get(os.getpid())) is None:
            _readers.clear()
            found = _readers[os.getpid()] = _Reader()
        return found


def _renew() -> None:
    global _readers_lock  # noqa: PLW0603 - it may be held in the parent
    _readers_lock = threading.Lock()


os.register_at_fork(after_in_child=_renew)
