"""Text streams that replace ``sys.stdout`` and ``sys.stderr``, and split what is written to them into lines.

Used by :mod:`dispatcher.logs.capture`, and for the tasks of Dask workers.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TextIO

PutLine = Callable[[str], object]

_MOST_UNECHOED = 64  # pieces of a line that are kept before they are echoed


class LineSplitter:
    """Splits text into lines, and keeps the last, partial line of each thread until its end is written.

    A carriage return starts its line anew, as on a terminal, so that a progress bar is one line.

    Args:
        put: takes a line.
        longest: the least number of characters of a line that are kept.
        on_partial: called with the latest partial line whenever it changes; with an empty text once it has ended.
    """

    def __init__(self, put: PutLine, longest: int, *, on_partial: PutLine | None = None) -> None:
        self._on_partial = on_partial
        self._put = put
        self._longest = longest
        self._partials: dict[int, str] = {}

    def feed(self, text: str, thread: int = 0) -> None:
        """Add what a thread wrote."""
        if thread in self._partials:
            text = self._partials.pop(thread) + text
        *lines, rest = text.split("\n")
        if rest:
            if "\r" in rest:
                rest = _visible(rest) + "\r" * rest.endswith("\r")
            rest = self._partials[thread] = rest[: self._longest + 1]
        for line in lines:
            self._put(_visible(line) if "\r" in line else line)
        if self._on_partial is not None and (rest or lines):
            self._on_partial(rest)

    def end_of(self, thread: int) -> None:
        """End the partial line of a thread, if there is one."""
        if thread in self._partials:
            self._put(_visible(self._partials.pop(thread)))

    def end(self) -> None:
        """End all partial lines."""
        while self._partials:
            _, rest = self._partials.popitem()
            self._put(_visible(rest))


def _visible(line: str) -> str:
    """Return the part of a line that a terminal would show after its carriage returns."""
    return next((part for part in reversed(line.split("\r")) if part), "")


class CapturedStream(io.TextIOBase):
    """A text stream for print(): lines go to ``put``.

    Args:
        put: takes a line.
        original: the stream that this one replaces.
        fd: that stream's descriptor, to which a forked child writes.
        longest, on_partial: see :class:`LineSplitter`.
        echo: another stream to write to, if any. It gets a line of stdout when the line ends, or at a flush: each write
            there is a system call, and print() writes every argument and separator by itself.
    """

    encoding = "utf-8"
    errors = "replace"

    def __init__(
        self,
        put: PutLine,
        original: TextIO,
        fd: int,
        longest: int,
        *,
        echo: TextIO | None,
        on_partial: PutLine | None = None,
    ) -> None:
        super().__init__()
        self._splitter = LineSplitter(put, longest, on_partial=on_partial)
        self._original = original
        self._fd = fd
        self._echo = echo
        self._unechoed: deque[str] = deque()
        self._retired = False
        self._pid = os.getpid()
        self._bytes: _Bytes | None = None
        self.name = f"<{'stdout' if fd == 1 else 'stderr'}>"

    def write(self, text: str, /) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if os.getpid() != self._pid:  # a forked child has no shipper thread
            os.write(self._fd, text.encode(errors="backslashreplace"))
            return len(text)
        if self._retired:
            self._original.write(text)
        else:
            if self._echo is not None:
                self._unechoed.append(text)
                if self._fd == 2 or "\n" in text or "\r" in text or len(self._unechoed) >= _MOST_UNECHOED:
                    self._write_echo(self._echo)
            self._splitter.feed(text, threading.get_ident())
        return len(text)

    def end(self) -> None:
        """End all partial lines."""
        self._splitter.end()
        if self._echo is not None:
            self._write_echo(self._echo)

    def _write_echo(self, echo: TextIO) -> None:
        """Write to the echo what isn't there yet. Other threads may add to it meanwhile."""
        pieces = []
        with contextlib.suppress(IndexError):
            while True:
                pieces.append(self._unechoed.popleft())
        if pieces:
            echo.write("".join(pieces))

    def end_line_of_this_thread(self) -> None:
        """End the partial line of this thread, so that its next output starts a new one."""
        self._splitter.end_of(threading.get_ident())

    def retire(self) -> None:
        """Only pass text on to the original from now on: references to this stream may outlive the attempt."""
        self._retired = True

    @property
    def buffer(self) -> _Bytes:
        """The binary stream beneath, for ``sys.stdout.buffer.write``."""
        if self._bytes is None:
            self._bytes = _Bytes(self)
        return self._bytes

    def flush(self) -> None:
        if os.getpid() != self._pid:  # the buffered text is the parent's to write
            return
        if self._echo is not None and not self._retired:
            self._write_echo(self._echo)
        stream = self._original if self._retired else self._echo
        if stream is not None:
            stream.flush()

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def reconfigure(self, **_options: Any) -> None:
        """Accept any options, as a real stream does; there is nothing to configure."""

    def close(self) -> None:
        """Do nothing: a standard stream stays open."""


class _Bytes(io.BufferedIOBase):
    """The binary side of a :class:`CapturedStream`."""

    def __init__(self, stream: CapturedStream) -> None:
        super().__init__()
        self._stream = stream
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        self._stream.write(self._decode(view))
        return len(view)

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        """Do nothing, as the stream does."""
