"""Ship the lines of one attempt to the records: numbered, bounded, sent by a thread of :mod:`.sender_threads`.

Many threads of a flow put lines; none of them waits for the server. Lines that can't be stored are counted, and the
records show a gap in their place. Called by :mod:`dispatcher.logs.capture`.
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
from dispatcher.records.logs import Line
from dispatcher.support.outages import pauses

Sink = Callable[[Sequence[Line]], None]

#: Last lines of an attempt that its outcome keeps.
TAIL = 50

_BATCH = 500
_BATCH_INTERVAL = 0.1  # seconds that a line waits for others
_PENDING = 50_000, 16 * 2**20  # lines, and bytes, kept while the server is away
_LINGER = 600.0  # seconds for which a closed shipper goes on trying

_ESCAPES = re.compile(  # escape sequences, also those that begin with a C1 character instead of ESC and a bracket
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?|\x1b[@-_]"
    r"|[\x00-\x08\x0a-\x1f\x7f-\x9f]"
)
_CUT = " …"


def clean(text: str, limit: int) -> str:
    """Remove escape sequences and control characters other than tab, and cut the text to ``limit`` bytes of UTF-8."""
    if not text.isprintable():
        text = _ESCAPES.sub("", text).encode("utf-8", "backslashreplace").decode()
    if len(text) * 4 <= limit or len(raw := text.encode()) <= limit:
        return text
    return raw[: limit - len(_CUT.encode())].decode("utf-8", "ignore") + _CUT


class _Signals:
    """Events between the threads that put lines and the thread that sends them."""

    def __init__(self) -> None:
        self.some, self.many, self.closed, self.done = (threading.Event() for _ in range(4))


class LogShipper:
    """Takes lines from any thread and passes them to ``sink`` in order, in batches, within 0.1 s.

    Args:
        sink: stores lines. If it raises, the same lines are passed again, so it must drop duplicates by number.
        attempt: the attempt to which the lines belong.
        limits: most bytes in all, and of one line.
        after: number of the last line that the attempt already has.
        on_line: called with each line as soon as it is put, whether or not it can be stored.
    """

    def __init__(
        self, sink: Sink, attempt: int, limits: Limits, *, after: int = 0, on_line: Callable[[Line], None] | None = None
    ) -> None:
        self._sink = sink
        self._on_line = on_line
        self._attempt = attempt
        self._limits = limits
        self._number = after
        self._accepted = 0  # bytes accepted so far
        self._pending = 0  # bytes accepted and not yet sent
        self._missing = 0  # lines dropped since the last one accepted
        self._capped = False
        self._away = False
        self._closed_at = 0.0
        self._lines: deque[tuple[Line, int]] = deque()
        self._tail: deque[Line] = deque(maxlen=TAIL)
        self._unnumbered: deque[tuple[str, str, str]] = deque()
        self._numbering = False
        # Re-entrant: a signal handler or a destructor may print while its thread puts a line.
        self._lock = threading.RLock()
        self._closed = False
        self._signals: _Signals | None = None  # made at the first line: most runs print nothing
        sender_threads.prepare()

    def put(self, stream: str, text: str, level: str = "") -> None:
        """Add a line. Never waits for the server, and never raises its errors."""
        with self._lock:
            self._unnumbered.append((stream, clean(text, self._limits.line), level))
            if self._numbering:  # this thread was interrupted while it numbered an earlier line, which comes first
                return
            self._numbering = True
            try:
                while self._unnumbered:
                    self._number_line(*self._unnumbered.popleft())
            finally:
                self._numbering = False

    def tail(self) -> tuple[str, ...]:
        """Return the texts of the last :data:`TAIL` lines."""
        with self._lock:
            return tuple(line.text for line in self._tail)

    def is_silent(self) -> bool:
        """Return True if there was no line so far."""
        return not self._tail

    def close(self, timeout: float) -> bool:
        """Take no more lines and send the rest. Return True if that was done within ``timeout`` seconds; otherwise
        sending goes on."""
        with self._lock:
            if not self._closed:
                self._close_gap()
                self._closed_at = time.monotonic()
                self._closed = True
            signals = self._signals
        if signals is None:
            return True
        for event in (signals.closed, signals.some, signals.many):
            event.set()
        return signals.done.wait(timeout)

    def _number_line(self, stream: str, text: str, level: str) -> None:
        if self._closed:
            return
        self._number += 1
        line = Line(attempt=self._attempt, number=self._number, time=time.time(), stream=stream, text=text, level=level)
        if self._on_line is not None:
            self._on_line(line)
        size = 1 + (len(text) if text.isascii() else len(text.encode()))
        self._tail.append(line)
        if self._must_drop(size):
            self._missing += 1
            return
        if self._missing:
            self._add_gap(line.number - 1)
        self._accept(line, size)

    def _must_drop(self, size: int) -> bool:
        """Return True if a line must be dropped: for good once the attempt has logged too much, otherwise until there
        is room."""
        self._capped = self._capped or self._accepted + size > self._limits.log
        lines, most = _PENDING
        room = 0.5 if self._away else 1.0
        self._away = len(self._lines) >= lines * room or self._pending + size > most * room
        return self._capped or self._away

    def _accept(self, line: Line, size: int) -> None:
        self._lines.append((line, size))
        if self._signals is None:
            self._signals = _Signals()
            sender_threads.start(partial(self._ship, self._signals))
        self._accepted += size
        self._pending += size
        if not self._signals.some.is_set():
            self._signals.some.set()
        if len(self._lines) >= _BATCH:
            self._signals.many.set()

    def _add_gap(self, last: int) -> None:
        """Add a line that says how many are missing; the last of them has number ``last``."""
        reason = f"more than {self._limits.log:,} bytes of log" if self._capped else "the server was away"
        text = f"{self._missing:,} lines are missing ({reason})"
        gap = Line(attempt=self._attempt, number=last, time=time.time(), stream="gap", text=text)
        self._lines.append((gap, 0))
        self._missing = 0

    def _close_gap(self) -> None:
        """If lines are missing at the end, add the last ones in spite of the limits."""
        if not self._missing:
            return
        last = [line for line in self._tail if line.number > self._number - self._missing]
        self._missing -= len(last)
        if self._missing:
            self._add_gap(self._number - len(last))
        for line in last:
            self._accept(line, 0)
        self._missing = 0

    def _ship(self, signals: _Signals) -> None:
        while True:
            signals.some.wait()
            signals.many.wait(_BATCH_INTERVAL)
            signals.some.clear()
            signals.many.clear()
            closed = signals.closed.is_set()  # read before the lines, so that the last ones are sent
            self._send(len(self._lines), signals.closed)
            if closed:
                signals.done.set()
                return

    def _send(self, count: int, closed: threading.Event) -> None:
        """Send ``count`` lines. Lines that are put meanwhile wait for the next call."""
        while count:
            batch = [self._lines.popleft() for _ in range(min(_BATCH, count))]
            count -= len(batch)
            retries = pauses()
            while not self._try_to_send([line for line, _ in batch]):
                if closed.is_set() and time.monotonic() > self._closed_at + _LINGER:
                    return
                pause = next(retries)
                if closed.is_set():
                    time.sleep(pause)
                else:
                    closed.wait(pause)  # close() ends the pause: its caller waits, and the server may be back
            with self._lock:
                self._pending -= sum(size for _, size in batch)

    def _try_to_send(self, lines: Sequence[Line]) -> bool:
        """Send lines. Return False if they are to be sent again."""
        try:
            self._sink(lines)
        except Malformed:  # the key of the log holds another type, so another try would fail as well
            return True
        except Exception:  # no error of sending may affect the flow
            return False
        return True
