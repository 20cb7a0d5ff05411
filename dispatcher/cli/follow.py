"""Following one run to its end while signals may ask to cancel it. Used by ``run`` alone."""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from dispatcher.cli.formatting import stands
from dispatcher.cli.views import View
from dispatcher.errors import DispatcherError, UnknownRun
from dispatcher.records.logs import Line
from dispatcher.runs.events import Event
from dispatcher.support.mailbox import Mailbox

if TYPE_CHECKING:
    from dispatcher.client.run import Run

#: Seconds between two frames of the view, and the longest that a signal waits.
_FRAME = 0.1
#: Seconds within which signals count as one.
_AT_ONCE = 0.5


class Signals:
    """The number of times that SIGINT or SIGTERM arrived; those at once count as one, since `timeout` and others send
    two."""

    def __init__(self) -> None:
        self.count = 0
        self.last = signal.SIGINT
        self._at = 0.0

    def arrived(self, number: int, frame: FrameType | None) -> None:
        """The handler: it counts, nothing else."""
        now = time.monotonic()
        if self.count == 0 or now > self._at + _AT_ONCE:
            self.count += 1
        self._at = now
        self.last = signal.Signals(number)

    @property
    def exit_code(self) -> int:
        """As shells report a process that a signal ended."""
        return 128 + self.last


@contextmanager
def caught() -> Iterator[Signals]:
    """Count SIGINT and SIGTERM in place of dying from them."""
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals  # embedded in another program: its main thread keeps its own handlers
        return
    before = {number: signal.signal(number, signals.arrived) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Failed:
    """A stream can't be followed any longer."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Watch:
    """Shows a run's events and lines until it has ended; cancels it at the first signal, leaves it at the second."""

    def __init__(self, run: Run[Any], view: View, signals: Signals, hints: Callable[[], list[str]]) -> None:
        self._run = run
        self._view = view
        self._signals = signals
        self._hints = hints
        self._news: Mailbox[Event | Line | _Failed] = Mailbox()
        self._seen = (0, 0)  # attempt and number of the last line shown
        self._ended = False
        self._cancelled = False
        self._started = False
        self._hint_at = time.monotonic() + 5.0

    def to_end(self) -> bool:
        """Watch; True when the run has ended, False when a second signal left it.

        Raises:
            DispatcherError: the run can't be followed any longer.
        """
        for pump in (self._pump_events, self._pump_logs):
            threading.Thread(target=pump, daemon=True).start()
        while not self._ended:
            if self._signals.count > 1:
                return False
            if self._signals.count and not self._cancelled:
                self._cancel()
            self._hint()
            self._take()
        for line in self._run.logs():  # the stream above may lag behind the last event
            self._line(line)
        return True

    def _pump_events(self) -> None:
        self._pump(self._run.events)
        gone = UnknownRun(f"run {self._run.id} was removed before its end was seen")
        self._news.put(_Failed(gone))  # not read after the final event

    def _pump_logs(self) -> None:
        self._pump(self._run.logs)

    def _pump(self, stream: Callable[..., Iterable[Event | Line]]) -> None:
        try:
            for one in stream(follow=True):
                self._news.put(one)
        except BaseException as error:  # raised by the main thread
            self._news.put(_Failed(error))

    def _take(self) -> None:
        try:
            news = self._news.get(timeout=_FRAME)
        except queue.Empty:
            self._view.tick()
            return
        match news:
            case Event():
                self._started = self._started or news.kind not in {"queued"}
                self._ended = news.final
                self._view.event(news)
            case Line():
                self._line(news)
            case _Failed(error=error):
                raise error

    def _line(self, line: Line) -> None:
        if (line.attempt, line.number) > self._seen:
            self._seen = (line.attempt, line.number)
            self._view.line(line)

    def _cancel(self) -> None:
        self._cancelled = True
        self._view.note("cancelling; a second interrupt leaves the run alone")
        try:
            if not self._run.cancel() and (known := self._run.last_record) is not None and known.settled is not None:
                self._view.note(f"it has ended as {stands(known)}")
        except DispatcherError as error:
            self._view.note(f"cancel: {error}")

    def _hint(self) -> None:
        """Once, while nothing has happened for 5 s: why it doesn't run."""
        if self._started or self._cancelled or time.monotonic() < self._hint_at:
            return
        self._hint_at = float("inf")
        for hint in self._hints():
            self._view.note(hint)
