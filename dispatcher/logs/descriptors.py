"""Capture what child processes and C code write to file descriptors 1 and 2.

Used by :mod:`dispatcher.logs.capture` in a process of the flow's own, because descriptors belong to the whole process.
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


class DescriptorCapture:
    """Replaces descriptors 1 and 2 with pipes, which a thread of this process reads.

    Args:
        puts: for each descriptor, the function that takes its decoded text.
        echo: also write the data to the original descriptor.
        journal: its pipes are used, so that the parent can read them once this process is dead. Without a journal new
            pipes are made.
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
        self._reader = _process_reader()
        for number, put in puts.items():
            self._divert(number, put)

    def drain(self) -> None:
        """Read what is in the pipes now, so that later output is ordered after it."""
        with self._lock:  # also waits for data that the thread has read and not yet passed on
            if self._draining:  # a signal handler prints in the thread that is draining already
                return
            self._draining = True
            try:
                for source, _ in self._poll.poll(0):
                    self._read_chunk(source)
            finally:
                self._draining = False

    def original(self, number: int) -> TextIO:
        """Return a stream to the original descriptor, which bypasses the pipes. It is unbuffered, because the process
        may die at any time."""
        raw = os.fdopen(os.dup(self._saved[number]), "wb", buffering=0)
        return io.TextIOWrapper(raw, encoding="utf-8", errors="replace", write_through=True)

    def close(self) -> None:
        """Restore the descriptors. Output of child processes that outlive the flow isn't captured from now on."""
        with self._lock:
            for source in list(self._watched):  # before the write ends close, because that would wake the reader
                self._unwatch(source)
        for number, saved in self._saved.items():
            os.dup2(saved, number)
        self.drain()
        for saved in self._saved.values():
            os.close(saved)
        with self._lock:
            self._poll = select.poll()  # later calls of drain() find no pipe
            for source in self._readers if self._journal is None else ():
                os.close(source)

    def _divert(self, number: int, put: Callable[[str], object]) -> None:
        source, target = self._pipe(number)
        self._saved[number] = os.dup(number)
        os.dup2(target, number)
        os.close(target)
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode

        def receive(data: bytes) -> None:
            if self._echo:
                with contextlib.suppress(OSError):  # its reader is gone; the lines are captured nevertheless
                    os.write(self._saved[number], data)
            put(decode(data))

        self._readers[source] = receive
        self._numbers[source] = number
        self._poll.register(source, select.POLLIN)
        self._watched.add(source)
        self._reader.watch(source, partial(self._on_readable, source))

    def _pipe(self, number: int) -> tuple[int, int]:
        if self._journal is not None:
            return self._journal.source(number), self._journal.target(number)
        source, target = os.pipe()
        os.set_blocking(source, False)
        return source, target

    def _read_chunk(self, source: int) -> bool:
        """Read at most one pipe's worth: a child that never stops writing must not block the caller for ever.

        Return False at the end of the file: no process can write to the pipe any more.
        """
        with contextlib.suppress(BlockingIOError):
            journal, number = self._journal, self._numbers[source]
            data = os.read(source, _CHUNK) if journal is None else journal.read(number)
            if data:
                self._readers[source](data)
            if journal is not None:
                journal.clear_chunk(number, len(data))
            return bool(data)
        return True

    def _on_readable(self, source: int) -> None:
        """Read a pipe, in the reader's thread. Does nothing after :meth:`close`."""
        with self._lock:
            if source not in self._watched:
                return
            self.drain()
            if not self._read_chunk(source):  # the flow closed the descriptor itself
                self._unwatch(source)

    def _unwatch(self, source: int) -> None:
        self._watched.discard(source)
        self._reader.unwatch(source)


class _PipeReader:
    """This process's thread that waits for pipes. It is shared, because starting a thread costs more than a small
    run."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._read, name="dispatcher-output", daemon=True)
        self._thread.start()

    def watch(self, source: int, on_readable: Callable[[], None]) -> None:
        """Call ``on_readable`` whenever the pipe has data. May be called while the thread waits."""
        self._selector.register(source, selectors.EVENT_READ, on_readable)

    def unwatch(self, source: int) -> None:
        """Stop watching a pipe. Call it before the pipe is closed."""
        self._selector.unregister(source)

    def _read(self) -> None:
        while True:
            for key, _ in self._selector.select():
                key.data()


_readers: dict[int, _PipeReader] = {}
_readers_lock = threading.Lock()


def _process_reader() -> _PipeReader:
    """Return this process's reader. A forked child starts its own, because it inherits no threads."""
    with _readers_lock:
        if (reader := _readers.get(os.getpid())) is None:
            _readers.clear()
            reader = _readers[os.getpid()] = _PipeReader()
        return reader


def _renew_lock() -> None:
    global _readers_lock  # noqa: PLW0603 - a thread of the parent may have held it
    _readers_lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)
