"""Everything that a flow prints and logs, as lines in order.

Called by :mod:`dispatcher.runner.in_process` and by the runner in a container, around the code of one attempt. It
replaces ``sys.stdout`` and ``sys.stderr``, adds a handler to the root logger and, in a process of the flow's own, takes
file descriptors 1 and 2; leaving restores all of them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import TextIO

from dispatcher.logs.descriptors import Descriptors
from dispatcher.logs.journal import Journal, JournalLine, current_journal
from dispatcher.logs.limits import Limits
from dispatcher.logs.shipper import Shipment, Sink
from dispatcher.logs.stdout import CapturedStream, LineSplitter, Put
from dispatcher.records.base import Line
from dispatcher.runs.context import log_limits

_FLUSH = 5.0  # seconds that leaving waits for the server
_FLOW_LOGGER = "dispatcher.flow"
_STREAMS = {1: "stdout", 2: "stderr"}


class Capture:
    """The handle of :func:`captured`: the attempt's last lines, and a second chance to send what is left."""

    def __init__(self, shipment: Shipment, flush: Callable[[], None]) -> None:
        self._shipment = shipment
        self._flush = flush

    def tail(self) -> tuple[str, ...]:
        """The last 50 lines so far."""
        self._flush()
        return self._shipment.tail()

    def is_silent(self) -> bool:
        """Return True if nothing was printed or logged so far."""
        self._flush()
        return self._shipment.is_silent()

    def close(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds until all lines are sent; whether they are. Safe to call again."""
        return self._shipment.close(timeout)


_least = logging.INFO


def set_log_level(level: str) -> None:
    """In a process of flows alone: keep log records from this level on, of loggers that have none of their own."""
    global _least  # noqa: PLW0603 - levels are the whole process's
    _least = logging.getLevelNamesMapping()[level]
    for logger in (logging.getLogger(), logging.getLogger(_FLOW_LOGGER)):
        logger.setLevel(_least)  # now: to change it for each run costs


@contextlib.contextmanager
def captured(
    sink: Sink, attempt: int, limits: Limits, fds: bool, *, after: int = 0, echo: bool = False, run_id: str = ""
) -> Iterator[Capture]:
    """Capture what is printed and logged inside.

    Args:
        sink: keeps lines; see :class:`~dispatcher.logs.shipper.Shipment`.
        attempt: the lines' attempt.
        limits: sizes.
        fds: take file descriptors 1 and 2 too, and log lines away from other handlers; only in a process that is the
            flow's own.
        after: number of the last line that the attempt has already.
        echo: also print where it would have gone.
        run_id: of the run, for the journal of this process, if it has one and ``fds`` is set.
    """
    journal = current_journal() if fds else None
    note = None
    if journal is not None:
        journal.begin(run_id, after)
        note = partial(_note, journal)
    shipment = Shipment(sink, attempt, limits, after=after, note=note)
    originals = sys.stdout, sys.stderr
    with contextlib.suppress(OSError, ValueError, AttributeError):
        for stream in originals:
            stream.flush()
    splitters = {
        number: LineSplitter(_to(shipment, name), limits.line, hold=_hold(journal, f"pipe {number}"))
        for number, name in _STREAMS.items()
    }
    pipes = (
        Descriptors({number: one.feed for number, one in splitters.items()}, echo=echo, journal=journal)
        if fds
        else None
    )
    echoes = _echoes(originals, pipes) if echo else dict.fromkeys(_STREAMS)
    before = pipes.drain if pipes else _nothing
    writers = [
        CapturedStream(
            _to(shipment, name, before), original, number, limits.line, echo=echoes[number], hold=_hold(journal, name)
        )
        for (number, name), original in zip(_STREAMS.items(), originals, strict=True)
    ]

    ends = [one.end for one in writers] + [one.end for one in splitters.values()]

    def flush() -> None:
        if pipes is not None:
            pipes.drain()
        for one in ends:
            one()

    sys.stdout, sys.stderr = writers
    token = log_limits.set((limits.log, limits.line))
    try:
        with _logging_to(_Handler(shipment, before, echoes[2] if fds else None), alone=fds):
            yield Capture(shipment, flush)
    finally:
        log_limits.reset(token)
        sys.stdout, sys.stderr = originals
        for writer in writers:
            writer.retire()
        if pipes is not None:
            pipes.close()
        flush()
        for stream in echoes.values() if pipes is not None else ():
            _close(stream)
        shipment.close(_FLUSH)


def _echoes(originals: tuple[TextIO, TextIO], pipes: Descriptors | None) -> dict[int, TextIO | None]:
    """Return the streams to which what is captured is shown too: past the pipes, which would catch it again."""
    return {
        number: original if pipes is None else pipes.original(number)
        for number, original in zip(_STREAMS, originals, strict=True)
    }


def _note(journal: Journal, line: Line) -> None:
    journal.add(JournalLine(line.number, line.time, line.stream, line.level, line.text))


def _hold(journal: Journal | None, slot: str) -> Put | None:
    return None if journal is None else partial(journal.hold, slot)


def _close(stream: TextIO | None) -> None:
    if stream is not None:
        with contextlib.suppress(OSError):  # nobody reads there
            stream.close()


def _nothing() -> None:
    pass


def _to(shipment: Shipment, stream: str, before: Callable[[], None] = _nothing) -> Put:
    def put(text: str) -> None:
        before()
        shipment.put(stream, text)

    return put


class _Handler(logging.Handler):
    """Puts log records among the printed lines."""

    def __init__(self, shipment: Shipment, before: Callable[[], None], echo: TextIO | None) -> None:
        super().__init__()  # of any level: loggers have theirs
        self._echo = echo
        self._shipment = shipment
        self._before = before
        self._pid = os.getpid()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
            if record.name not in {_FLOW_LOGGER, "root"}:
                text = f"{record.name}: {text}"
            if os.getpid() != self._pid:  # in a forked child nothing ships lines
                os.write(2, f"{text}\n".encode(errors="backslashreplace"))
                return
            self._before()
            for line in text.splitlines() or [""]:
                self._shipment.put("log", line, record.levelname)
            if self._echo is not None:
                self._echo.write(f"{text}\n")
        except Exception:
            self.handleError(record)


@contextlib.contextmanager
def _logging_to(handler: logging.Handler, *, alone: bool) -> Iterator[None]:
    """Have what the flow's logger lets through, and in a process of its own all loggers, reach ``handler``."""
    root, flow = logging.getLogger(), logging.getLogger(_FLOW_LOGGER)
    handlers, levels = list(root.handlers), (root.level, flow.level)
    if flow.level == logging.NOTSET:
        flow.setLevel(_least)
    if alone:
        root.handlers[:] = [handler]  # others write to descriptor 2, so each line would come twice
        _level(root, _least)
    else:
        root.addHandler(handler)
    try:
        yield
    finally:
        if alone:
            root.handlers[:] = handlers
            _level(root, levels[0])
        else:
            root.removeHandler(handler)
        _level(flow, levels[1])


def _level(logger: logging.Logger, level: int) -> None:
    """Set it only where it differs: each time, all loggers of the process forget what they know."""
    if logger.level != level:
        logger.setLevel(level)
