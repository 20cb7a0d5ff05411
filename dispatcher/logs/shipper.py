"""The lines of one attempt on their way to the records: numbered, bounded, shipped by one thread (:mod:`.senders`).

Many threads of a flow put lines; none of them waits for the server. What can't be kept is counted and shown as a gap.
Called by :mod:`dispatcher.logs.capture`.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from dispatcher.errors import Malformed
from dispatcher.logs import sender_threads
from dispatcher.logs.limits import Limits
from dispatcher.records.base import Line
from dispatcher.support.outages import pauses

Sink = Callable[[Sequence[Line]], None]

_TAIL = 50
_BATCH = 500
_EVERY = 0.1  # seconds
_PENDING = 50_000, 16 * 2**20  # lines, and bytes, kept while the server is away
_LINGER = 600.0  # seconds that a closed shipment goes on trying

_ESCAPES = re.compile(  # sequences of ESC, and those of the one character (C1) that stands for ESC and a bracket
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?|\x1b[@-_]"
    r"|[\x00-\x08\x0a-\x1f\x7f-\x9f]"
)
_CUT = " …"


def clean(text: str, limit: int) -> str:
    """``text`` without escape sequences and control characters other than tab, cut to ``limit`` bytes of UTF-8."""
    if not text.isprintable():
        text = _ESCAPES.sub("", text).encode("utf-8", "backslashreplace").decode()
    if len(text) * 4 <= limit or len(raw := text.encode()) <= limit:
        return text
    return raw[: limit - len(_CUT.encode())].decode("utf-8", "ignore") + _CUT


class _Signals:
    """Between those who put lines and the thread that sends them."""

    def __init__(self) -> None:
        self.some, self.many, self.closed, self.done = (threading.Event() for _ in range(4))


class Shipment:
    """Takes lines from any thread, gives them to ``sink`` in order, in batches, within 0.1 s.

    Args:
        sink: keeps lines; may raise, then it is asked again. Lines given twice must be dropped by number.
        attempt: which attempt's lines they are.
        limits: most bytes in all, and of one line.
        after: number of the last line that the attempt has already.
        note: told each line as soon as it is put, whether or not it can be kept.
    """

    def __init__(
        self, sink: Sink, attempt: int, limits: Limits, *, after: int = 0, note: Callable[[Line], None] | None = None
    ) -> None:
        self._sink = sink
        self._note = note
        self._attempt = attempt
        self._limits = limits
        self._number = after
        self._kept = 0  # bytes accepted so far
        self._pending = 0  # bytes accepted and not yet given to the sink
        self._missing = 0  # lines dropped since the last one accepted
        self._capped = False
        self._away = False
        self._closed_at = 0.0
        self._lines: deque[tuple[Line, int]] = deque()
        self._tail: deque[Line] = deque(maxlen=_TAIL)
        self._given: deque[tuple[str, str, str]] = deque()
        self._numbering = False
        # Re-entrant: a signal handler or a destructor may print while its thread puts a line.
        self._lock = threading.RLock()
        self._over = False
        self._signals: _Signals | None = None  # from the first line on: most runs say nothing
        sender_threads.prepare()

    def put(self, stream: str, text: str, level: str = "") -> None:
        """Add a line. Never waits, never raises for the server's sake."""
        with self._lock:
            self._given.append((stream, clean(text, self._limits.line), level))
            if self._numbering:  # this thread was interrupted while it numbered an earlier line, which comes first
                return
            self._numbering = True
            try:
                while self._given:
                    self._number_one(*self._given.popleft())
            finally:
                self._numbering = False

    def tail(self) -> tuple[str, ...]:
        """The texts of the last 50 lines."""
        with self._lock:
            return tuple(line.text for line in self._tail)

    def is_silent(self) -> bool:
        """Return True if there was no line so far."""
        return not self._tail

    def close(self, timeout: float) -> bool:
        """Take no more lines and send the rest; whether that was done within ``timeout`` seconds. Else it goes on."""
        with self._lock:
            if not self._over:
                self._close_gap()
                self._closed_at = time.monotonic()
                self._over = True
            signals = self._signals
        if signals is None:
            return True
        for one in (signals.closed, signals.some, signals.many):
            one.set()
        return signals.done.wait(timeout)

    def _number_one(self, stream: str, text: str, level: str) -> None:
        if self._over:
            return
        self._number += 1
        line = Line(attempt=self._attempt, number=self._number, time=time.time(), stream=stream, text=text, level=level)
        if self._note is not None:
            self._note(line)
        size = 1 + (len(text) if text.isascii() else len(text.encode()))
        self._tail.append(line)
        if self._refuses(size):
            self._missing += 1
            return
        if self._missing:
            self._gap(line.number - 1)
        self._accept(line, size)

    def _refuses(self, size: int) -> bool:
        """Return True if a line must be dropped: for good where the attempt has logged too much, else until there is
        room."""
        self._capped = self._capped or self._kept + size > self._limits.log
        lines, most = _PENDING
        room = 0.5 if self._away else 1.0
        self._away = len(self._lines) >= lines * room or self._pending + size > most * room
        return self._capped or self._away

    def _accept(self, line: Line, size: int) -> None:
        self._lines.append((line, size))
        if self._signals is None:
            self._signals = _Signals()
            sender_threads.start(partial(self._ship, self._signals))
        self._kept += size
        self._pending += size
        if not self._signals.some.is_set():
            self._signals.some.set()
        if len(self._lines) >= _BATCH:
            self._signals.many.set()

    def _gap(self, last: int) -> None:
        """Say how many lines are missing, the last of them number ``last``."""
        why = f"more than {self._limits.log:,} bytes of log" if self._capped else "the server was away"
        text = f"{self._missing:,} lines are missing ({why})"
        gap = Line(attempt=self._attempt, number=last, time=time.time(), stream="gap", text=text)
        self._lines.append((gap, 0))
        self._missing = 0

    def _close_gap(self) -> None:
        """After a gap that never closed, add the last lines in spite of the limits."""
        if not self._missing:
            return
        last = [line for line in self._tail if line.number > self._number - self._missing]
        self._missing -= len(last)
        if self._missing:
            self._gap(self._number - len(last))
        for line in last:
            self._accept(line, 0)
        self._missing = 0

    def _ship(self, signals: _Signals) -> None:
        while True:
            signals.some.wait()
            signals.many.wait(_EVERY)
            signals.some.clear()
            signals.many.clear()
            closed = signals.closed.is_set()  # asked before the last look at the lines, so that none is left behind
            self._send(len(self._lines), signals.closed)
            if closed:
                signals.done.set()
                return

    def _send(self, count: int, closed: threading.Event) -> None:
        """Send that many; lines that come meanwhile wait until there are many of them, or for the next time."""
        while count:
            batch = [self._lines.popleft() for _ in range(min(_BATCH, count))]
            count -= len(batch)
            retries = pauses()
            while not self._sent([line for line, _ in batch]):
                if closed.is_set() and time.monotonic() > self._closed_at + _LINGER:
                    return
                pause = next(retries)
                if closed.is_set():
                    time.sleep(pause)
                else:
                    closed.wait(pause)  # closing cuts it short: perhaps the server is back, and somebody waits
            with self._lock:
                self._pending -= sum(size for _, size in batch)

    def _sent(self, lines: Sequence[Line]) -> bool:
        try:
            self._sink(lines)
        except Malformed:  # where they would be kept stands something else, which another try won't change
            return True
        except Exception:  # whatever it is, the flow must not feel it
            return False
        return True
