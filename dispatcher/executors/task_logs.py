"""Capture of the lines that a task prints and logs in a process that it shares with others, such as a Dask worker.

While tasks run, ``sys.stdout`` and ``sys.stderr`` are replaced by streams that assign text to the task in whose context
it is written, and pass on all other text. A handler of the root logger does the same with log records. After the last
task everything is restored. Called by :mod:`dispatcher.executors.dask_worker`, but independent of Dask.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, TextIO

from dispatcher.executors.task_log_levels import TaskLogLevels
from dispatcher.logs.shipper import clean
from dispatcher.logs.stdout import CapturedStream, LineSplitter

#: Stream, text, level and logger of a line. Level and logger are None for printed lines.
TaskLine = tuple[str, str, int | None, str | None]

_STREAMS = ("stdout", "stderr")
_LAST_LINES = 50  # last lines of a task that are sent even if its run has exceeded its limit
_MAX_RUNS = 256  # runs whose bytes are counted
_sent_bytes: OrderedDict[str, int] = OrderedDict()  # bytes so far by run, of the runs that had tasks here last


class TaskLog:
    """The lines of one task.

    Args:
        send: called with each line, in order; must not block.
        run: name of the run, whose tasks share ``max_bytes``.
        max_bytes: most bytes of the run's lines that this process sends.
        max_line: most bytes of one line.
        levels: the lowest level that is kept, by logger; the root logger's name is ``""``.
    """

    def __init__(
        self, send: Callable[[TaskLine], None], run: str, max_bytes: int, max_line: int, levels: Mapping[str, int]
    ) -> None:
        self._send = send
        self._run = run
        self._max_bytes = max_bytes
        self._max_line = max_line
        self.levels = levels
        self.ended = False
        self._lock = threading.RLock()
        self._unsent: deque[TaskLine] = deque(maxlen=_LAST_LINES)
        self._missing = 0
        self._splitters = {name: LineSplitter(self._printer(name), max_line) for name in _STREAMS}

    def write(self, stream: str, text: str) -> None:
        """Add printed text."""
        with self._lock:
            self._splitters[stream].feed(text, threading.get_ident())

    def log(self, text: str, level: int, logger: str) -> None:
        """Add a log record."""
        lines = "\n".join(clean(line, self._max_line) for line in text.splitlines())
        self._put(("log", lines, level, logger))

    def end(self) -> None:
        """End partial lines, and report how many lines are missing. Later lines don't belong to the task."""
        with self._lock:
            for splitter in self._splitters.values():
                splitter.end()
            self.ended = True
            hidden = self._missing - len(self._unsent)
            if hidden > 0:
                text = f"{hidden:,} lines of this task are missing (more than {self._max_bytes:,} bytes of log)"
                self._send(("stderr", text, None, None))
            for line in self._unsent:
                self._send(line)
            self._unsent.clear()

    def _printer(self, stream: str) -> Callable[[str], None]:
        return lambda text: self._put((stream, clean(text, self._max_line), None, None))

    def _put(self, line: TaskLine) -> None:
        with self._lock:
            size = _sent_bytes.pop(self._run, 0) + len(line[1]) + 1
            _sent_bytes[self._run] = size
            if len(_sent_bytes) > _MAX_RUNS:
                _sent_bytes.popitem(last=False)
            if size <= self._max_bytes:
                self._send(line)
                return
            self._missing += 1
            self._unsent.append(line)


_current_log: ContextVar[TaskLog | None] = ContextVar("dispatcher_task_lines", default=None)


def _open_log() -> TaskLog | None:
    """Return the log of the current task, if it hasn't ended."""
    log = _current_log.get()
    return None if log is None or log.ended else log


def in_task() -> bool:
    """Return True if what is printed here goes to the log of a task."""
    return _open_log() is not None


class _Stream(CapturedStream):
    """Replaces a standard stream. Text that a task writes goes to its log, all other text to the original stream."""

    def __init__(self, original: TextIO, fd: int) -> None:
        super().__init__(lambda text: None, original, fd, 0, echo=None)
        self._stream = _STREAMS[fd - 1]
        self.retire()  # outside of tasks, text goes to the original

    def write(self, text: str, /) -> int:
        log = _open_log() if os.getpid() == self._pid else None
        if log is None or not isinstance(text, str):
            return super().write(text)
        log.write(self._stream, text)
        return len(text)


class _TaskLogHandler(logging.Handler):
    """Adds log records to the log of the task in whose context they are made."""

    def __init__(self, levels: TaskLogLevels) -> None:
        super().__init__()
        self._levels = levels

    def emit(self, record: logging.LogRecord) -> None:
        log = _open_log()
        if log is None:
            self._handle_outside(record)
            return
        if not self._levels.keeps(record, log.levels):
            return
        try:
            log.log(self.format(record), record.levelno, record.name)
        except Exception:
            self.handleError(record)

    def _handle_outside(self, record: logging.LogRecord) -> None:
        """Print a warning as Python would if the root logger had no handler: this one would be its only one."""
        last = logging.lastResort
        if len(logging.root.handlers) == 1 and last is not None and record.levelno >= last.level:
            last.handle(record)


class _ProcessCapture:
    """Replaces the streams of this process and adds the handler, while tasks run here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks = 0
        self._levels = TaskLogLevels()
        self._handler = _TaskLogHandler(self._levels)
        self._replacements: tuple[Any, ...] = ()
        self._originals: tuple[Any, ...] = ()

    def enter(self, levels: Mapping[str, int]) -> None:
        with self._lock:
            if not self._tasks:
                self._originals = sys.stdout, sys.stderr
                self._replacements = tuple(_Stream(stream, fd) for fd, stream in enumerate(self._originals, 1))
                sys.stdout, sys.stderr = self._replacements
                logging.root.addHandler(self._handler)
            self._tasks += 1
            self._levels.add(levels)

    def leave(self, levels: Mapping[str, int]) -> None:
        with self._lock:
            self._tasks -= 1
            self._levels.remove(levels)
            if self._tasks:
                return
            logging.root.removeHandler(self._handler)
            for name, replacement, original in zip(_STREAMS, self._replacements, self._originals, strict=True):
                if getattr(sys, name) is replacement:  # else other code has replaced it meanwhile
                    setattr(sys, name, original)


_process_capture = _ProcessCapture()


@contextlib.contextmanager
def capture(log: TaskLog) -> Iterator[None]:
    """Add everything that is printed and logged in this context, and in copies of it, to a task's log."""
    _process_capture.enter(log.levels)
    token = _current_log.set(log)
    try:
        yield
    finally:
        _current_log.reset(token)
        _process_capture.leave(log.levels)
        log.end()
