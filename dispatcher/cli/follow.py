"""Follow one run to its end, while signals may cancel it. Used by ``run`` only."""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

from dispatcher.cli.formatting import cancel_status
from dispatcher.cli.views import View
from dispatcher.errors import DispatcherError, UnknownRun
from dispatcher.records.logs import Line
from dispatcher.runs.events import Event
from dispatcher.support.mailbox import Mailbox

if TYPE_CHECKING:
    from dispatcher.client.run import Run

#: Seconds between two frames of the view, and the longest that a signal waits.
_FRAME_INTERVAL = 0.1
#: Seconds without a start after which the reasons are shown.
_HINTS_AFTER = 5.0
#: Seconds between two looks at why a queued run waits.
_WHY_INTERVAL = 2.0
#: Seconds within which several signals count as one: `timeout` and others send two.
_SIGNAL_WINDOW = 0.5


class Signals:
    """Counter of SIGINT and SIGTERM."""

    def __init__(self) -> None:
        self.count = 0
        self.last = signal.SIGINT
        self._at = 0.0

    def arrived(self, number: int, frame: FrameType | None) -> None:
        """Count a signal. This is the signal handler, so it does nothing else."""
        now = time.monotonic()
        if self.count == 0 or now > self._at + _SIGNAL_WINDOW:
            self.count += 1
        self._at = now
        self.last = signal.Signals(number)

    @property
    def exit_code(self) -> int:
        """Exit code with which shells report a process that a signal ended."""
        return 128 + self.last


@contextmanager
def count_signals() -> Iterator[Signals]:
    """Count SIGINT and SIGTERM instead of ending at them."""
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals  # only the main thread may set handlers
        return
    previous = {number: signal.signal(number, signals.arrived) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Failed:
    """Tells the main thread that a stream can't be followed any longer."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Watch:
    """Shows a run's events and lines until its end. The first signal cancels the run, the second one leaves it."""

    def __init__(
        self, run: Run[Any], view: View, signals: Signals, hints: Callable[[], list[str]], why: Callable[[], str]
    ) -> None:
        self._run = run
        self._view = view
        self._signals = signals
        self._hints = hints
        self._why = why
        self._updates: Mailbox[Event | Line | _Failed] = Mailbox()
        self._last_numbers: dict[tuple[int, str], int] = {}  # numbering → its last number shown
        self._ended = False
        self._cancelled = False
        self._started = False
        self._hints_at = time.monotonic() + _HINTS_AFTER
        self._why_at = time.monotonic() + _WHY_INTERVAL

    def to_end(self) -> bool:
        """Follow the run. Return True at its end, False if a second signal left it.

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
            self._show_why()
            self._show_hints()
            self._show_next()
        for line in self._run.logs():  # the log stream may lag behind the last event
            self._show_line(line)
        return True

    def _pump_events(self) -> None:
        self._pump(self._run.events)
        gone = UnknownRun(f"run {self._run.id} was removed before its end was seen")
        self._updates.put(_Failed(gone))  # ignored after the final event

    def _pump_logs(self) -> None:
        self._pump(self._run.logs)

    def _pump(self, stream: Callable[..., Iterable[Event | Line]]) -> None:
        try:
            for entry in stream(follow=True):
                self._updates.put(entry)
        except BaseException as error:  # raised by the main thread
            self._updates.put(_Failed(error))

    def _show_next(self) -> None:
        try:
            update = self._updates.get(timeout=_FRAME_INTERVAL)
        except queue.Empty:
            self._view.tick()
            return
        match update:
            case Event():
                self._started = self._started or update.kind not in {"queued"}
                self._ended = update.final
                self._view.event(update)
            case Line():
                self._show_line(update)
            case _Failed(error=error):
                raise error

    def _show_line(self, line: Line) -> None:
        if line.number > self._last_numbers.get(line.numbering, 0):
            self._last_numbers[line.numbering] = line.number
            self._view.line(line)

    def _cancel(self) -> None:
        self._cancelled = True
        self._view.note("cancelling; a second interrupt leaves the run alone")
        try:
            if not self._run.cancel() and (record := self._run.last_record) is not None and record.settled is not None:
                self._view.note(f"it has ended as {cancel_status(record)}")
        except DispatcherError as error:
            self._view.note(f"cancel: {error}")

    def _show_why(self) -> None:
        """Show why a queued run waits. Once it is claimed, events say it."""
        if self._started or self._cancelled or time.monotonic() < self._why_at:
            return
        self._why_at = time.monotonic() + _WHY_INTERVAL
        with suppress(DispatcherError):  # the server is away: the pumps tell if it stays so
            self._view.waiting(self._why())

    def _show_hints(self) -> None:
        """Show once why the run hasn't started, if it hasn't after 5 s."""
        if self._started or self._cancelled or time.monotonic() < self._hints_at:
            return
        self._hints_at = float("inf")
        for hint in self._hints():
            self._view.note(hint)
