"""Text streams that cut what is written to them into lines; they stand in for ``sys.stdout`` and ``sys.stderr``.

Called by :mod:`dispatcher.logs.capture`.
"""

from __future__ import annotations

import codecs
import io
import os
import threading
from collections.abc import Callable
from typing import Any, TextIO

Put = Callable[[str], object]


class LineSplitter:
    """Cuts text into lines and keeps the rest of the last one, for each writer apart.

    A carriage return starts its line anew, as on a terminal, so that a progress bar is one line.

    Args:
        put: takes a line.
        longest: characters of a line that are kept, at least.
        hold: told what the line written last has so far, while it hasn't ended.
    """

    def __init__(self, put: Put, longest: int, *, hold: Put | None = None) -> None:
        self._hold = hold
        self._put = put
        self._longest = longest
        self._rests: dict[int, str] = {}

    def feed(self, text: str, who: int = 0) -> None:
        """Add what ``who`` (a thread) wrote."""
        if who in self._rests:
            text = self._rests.pop(who) + text
        *lines, rest = text.split("\n")
        if rest:
            if "\r" in rest:
                rest = _shown(rest) + "\r" * rest.endswith("\r")
            rest = self._rests[who] = rest[: self._longest + 1]
        for line in lines:
            self._put(_shown(line) if "\r" in line else line)
        if self._hold is not None and (rest or lines):
            self._hold(rest)

    def end_of(self, who: int) -> None:
        """End the partial line of ``who``, if there is one."""
        if who in self._rests:
            self._put(_shown(self._rests.pop(who)))

    def end(self) -> None:
        """End all partial lines."""
        while self._rests:
            _, rest = self._rests.popitem()
            self._put(_shown(rest))


def _shown(line: str) -> str:
    return next((part for part in reversed(line.split("\r")) if part), "")


class CapturedStream(io.TextIOBase):
    """A text stream for print(): lines go to ``put``.

    Args:
        put: takes a line.
        original: the stream that it stands in for.
        fd: that stream's descriptor, which a forked child writes to.
        longest, hold: see :class:`LineSplitter`.
        echo: where to write too, if anywhere.
    """

    encoding = "utf-8"
    errors = "replace"

    def __init__(
        self, put: Put, original: TextIO, fd: int, longest: int, *, echo: TextIO | None, hold: Put | None = None
    ) -> None:
        super().__init__()
        self._splitter = LineSplitter(put, longest, hold=hold)
        self._original = original
        self._fd = fd
        self._echo = echo
        self._over = False
        self._pid = os.getpid()
        self._bytes: _Bytes | None = None
        self.name = f"<{'stdout' if fd == 1 else 'stderr'}>"

    def write(self, text: str, /) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if os.getpid() != self._pid:  # in a forked child nothing ships lines
            os.write(self._fd, text.encode(errors="backslashreplace"))
            return len(text)
        if self._over:
            self._original.write(text)
        else:
            if self._echo is not None:
                self._echo.write(text)
            self._splitter.feed(text, threading.get_ident())
        return len(text)

    def end(self) -> None:
        """End all partial lines."""
        self._splitter.end()

    def end_mine(self) -> None:
        """End the partial line of this thread, which goes on with something else."""
        self._splitter.end_of(threading.get_ident())

    def retire(self) -> None:
        """From now on only pass on to the original: somebody may hold this stream for longer than the attempt."""
        self._over = True

    @property
    def buffer(self) -> _Bytes:
        """A binary stream beneath, for ``sys.stdout.buffer.write``."""
        if self._bytes is None:
            self._bytes = _Bytes(self)
        return self._bytes

    def flush(self) -> None:
        if os.getpid() != self._pid:  # what is buffered is the parent's to write
            return
        stream = self._original if self._over else self._echo
        if stream is not None:
            stream.flush()

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def reconfigure(self, **_options: Any) -> None:
        """As of a real stream; there is nothing to configure."""

    def close(self) -> None:
        """Standard streams stay open, whoever closes them."""


class _Bytes(io.BufferedIOBase):
    def __init__(self, writer: CapturedStream) -> None:
        super().__init__()
        self._writer = writer
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        self._writer.write(self._decode(view))
        return len(view)

    def flush(self) -> None:
        self._writer.flush()

    def fileno(self) -> int:
        return self._writer.fileno()

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        """Stays open, as its writer does."""
