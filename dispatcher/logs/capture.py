"""Capture everything that a flow prints and logs, as lines in order.

Called by :mod:`dispatcher.runner.in_process` and by the runner in a container, around the code of one attempt. The
capture replaces ``sys.stdout`` and ``sys.stderr``, adds a handler to the root logger and, in a process of the flow's
own, redirects file descriptors 1 and 2; leaving restores all of them. The lines go to :mod:`dispatcher.logs.shipper`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import TextIO

from dispatcher.logs.descriptors import DescriptorCapture
from dispatcher.logs.journal import Journal, JournalLine, current_journal
from dispatcher.logs.limits import Limits
from dispatcher.logs.shipper import LogShipper, Sink
from dispatcher.logs.stdout import CapturedStream, LineSplitter, PutLine
from dispatcher.records.logs import Line
from dispatcher.runs.context import log_limits

_FLUSH_TIMEOUT = 5.0  # seconds that leaving waits for the server
_FLOW_LOGGER = "dispatcher.flow"
_STREAMS = {1: "stdout", 2: "stderr"}


class Capture:
    """The handle of :func:`captured`: the attempt's last lines, and another chance to send unsent ones."""

    def __init__(self, shipper: LogShipper, flush: Callable[[], None]) -> None:
        self._shipper = shipper
        self._flush = flush

    def tail(self) -> tuple[str, ...]:
        """Return the last 50 lines so far."""
        self._flush()
        return self._shipper.tail()

    def is_silent(self) -> bool:
        """Return True if nothing was printed or logged so far."""
        self._flush()
        return self._shipper.is_silent()

    def close(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds until all lines are sent. Return True if they are. Safe to call again."""
        return self._shipper.close(timeout)


_default_level = logging.INFO


def set_log_level(level: str) -> None:
    """Set the level of loggers without one of their own. Only for processes that run nothing but flows."""
    global _default_level  # noqa: PLW0603 - levels are the whole process's
    _default_level = logging.getLevelNamesMapping()[level]
    for logger in (logging.getLogger(), logging.getLogger(_FLOW_LOGGER)):
        logger.setLevel(_default_level)  # once, because a change for each run is slow


@contextlib.contextmanager
def captured(
    sink: Sink, attempt: int, limits: Limits, fds: bool, *, after: int = 0, echo: bool = False, run_id: str = ""
) -> Iterator[Capture]:
    """Capture what is printed and logged inside the context.

    Args:
        sink: stores lines; see :class:`~dispatcher.logs.shipper.LogShipper`.
        attempt: the lines' attempt.
        limits: sizes.
        fds: also redirect file descriptors 1 and 2, and bypass other log handlers; only in a process that is the flow's
            own.
        after: number of the last line that the attempt already has.
        echo: also write to the original streams.
        run_id: the run, for the journal of this process; used only if it has a journal and ``fds`` is set.
    """
    journal = current_journal() if fds else None
    on_line = None
    if journal is not None:
        journal.begin(run_id, after)
        on_line = partial(_write_to_journal, journal)
    shipper = LogShipper(sink, attempt, limits, after=after, on_line=on_line)
    originals = sys.stdout, sys.stderr
    with contextlib.suppress(OSError, ValueError, AttributeError):
        for stream in originals:
            stream.flush()
    splitters = {
        number: LineSplitter(_line_sink(shipper, name), limits.line, on_partial=_partial_of(journal, f"pipe {number}"))
        for number, name in _STREAMS.items()
    }
    pipes = (
        DescriptorCapture({number: splitter.feed for number, splitter in splitters.items()}, echo=echo, journal=journal)
        if fds
        else None
    )
    echoes = _echo_streams(originals, pipes) if echo else dict.fromkeys(_STREAMS)
    before = pipes.drain if pipes else _nothing
    streams = [
        CapturedStream(
            _line_sink(shipper, name, before),
            original,
            number,
            limits.line,
            echo=echoes[number],
            on_partial=_partial_of(journal, name),
        )
        for (number, name), original in zip(_STREAMS.items(), originals, strict=True)
    ]

    ends = [stream.end for stream in streams] + [splitter.end for splitter in splitters.values()]

    def flush() -> None:
        if pipes is not None:
            pipes.drain()
        for end in ends:
            end()

    sys.stdout, sys.stderr = streams
    token = log_limits.set((limits.log, limits.line))
    try:
        with _logging_to(_CaptureHandler(shipper, before, echoes[2] if fds else None), alone=fds):
            yield Capture(shipper, flush)
    finally:
        log_limits.reset(token)
        sys.stdout, sys.stderr = originals
        for stream in streams:
            stream.retire()
        if pipes is not None:
            pipes.close()
        flush()
        for echo_stream in echoes.values() if pipes is not None else ():
            _close(echo_stream)
        shipper.close(_FLUSH_TIMEOUT)


def _echo_streams(originals: tuple[TextIO, TextIO], pipes: DescriptorCapture | None) -> dict[int, TextIO | None]:
    """Return the streams to which captured text is echoed. They bypass the pipes, which would capture it again."""
    return {
        number: original if pipes is None else pipes.original(number)
        for number, original in zip(_STREAMS, originals, strict=True)
    }


def _write_to_journal(journal: Journal, line: Line) -> None:
    journal.add(JournalLine(line.number, line.time, line.stream, line.level, line.text))


def _partial_of(journal: Journal | None, slot: str) -> PutLine | None:
    return None if journal is None else partial(journal.set_partial, slot)


def _close(stream: TextIO | None) -> None:
    if stream is not None:
        with contextlib.suppress(OSError):  # its reader is gone
            stream.close()


def _nothing() -> None:
    pass


def _line_sink(shipper: LogShipper, stream: str, before: Callable[[], None] = _nothing) -> PutLine:
    def put(text: str) -> None:
        before()
        shipper.put(stream, text)

    return put


class _CaptureHandler(logging.Handler):
    """Puts log records among the printed lines."""

    def __init__(self, shipper: LogShipper, before: Callable[[], None], echo: TextIO | None) -> None:
        super().__init__()  # accepts all levels: the loggers have filtered already
        self._echo = echo
        self._shipper = shipper
        self._before = before
        self._pid = os.getpid()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
            if record.name not in {_FLOW_LOGGER, "root"}:
                text = f"{record.name}: {text}"
            if os.getpid() != self._pid:  # a forked child has no shipper thread
                os.write(2, f"{text}\n".encode(errors="backslashreplace"))
                return
            self._before()
            for line in text.splitlines() or [""]:
                self._shipper.put("log", line, record.levelname)
            if self._echo is not None:
                self._echo.write(f"{text}\n")
        except Exception:
            self.handleError(record)


@contextlib.contextmanager
def _logging_to(handler: logging.Handler, *, alone: bool) -> Iterator[None]:
    """Send the records of all loggers to ``handler``; with ``alone``, to no other handler of the root logger."""
    root, flow = logging.getLogger(), logging.getLogger(_FLOW_LOGGER)
    handlers, levels = list(root.handlers), (root.level, flow.level)
    if flow.level == logging.NOTSET:
        flow.setLevel(_default_level)
    if alone:
        root.handlers[:] = [handler]  # others write to descriptor 2, so each line would appear twice
        _set_level(root, _default_level)
    else:
        root.addHandler(handler)
    try:
        yield
    finally:
        if alone:
            root.handlers[:] = handlers
            _set_level(root, levels[0])
        else:
            root.removeHandler(handler)
        _set_level(flow, levels[1])


def _set_level(logger: logging.Logger, level: int) -> None:
    """Set a level only if it differs, because setting one clears the caches of all loggers."""
    if logger.level != level:
        logger.setLevel(level)
