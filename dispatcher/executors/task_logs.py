"""The lines that a task prints and logs in a process that it shares with others, such as a Dask worker's.

While tasks run there, ``sys.stdout`` and ``sys.stderr`` are streams that give each task what is written in its context,
and pass on what others write; a handler of the root logger does the same with log records. After the last task all is
put back. Called by :mod:`dispatcher.executors.dask_worker`. Nothing here knows Dask.
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

from dispatcher.executors.task_log_levels import Levels
from dispatcher.logs.shipper import clean
from dispatcher.logs.stdout import CapturedStream, LineSplitter

#: Stream, text, level and logger of one line; level and logger are None for what was printed.
Said = tuple[str, str, int | None, str | None]

_STREAMS = ("stdout", "stderr")
_LAST = 50  # lines of a task that are kept although its run has said too much
_spent: OrderedDict[str, int] = OrderedDict()  # bytes, by run, of those that had tasks here last
_RUNS = 256


class TaskLines:
    """The lines of one task.

    Args:
        send: takes each line, in order; must not block.
        run: whose tasks share ``most``.
        most: bytes of the run's lines that this process sends.
        longest: bytes of one line.
        levels: the least level that is kept, by logger; of the root logger under ``""``.
    """

    def __init__(self, send: Callable[[Said], None], run: str, most: int, longest: int, levels: Mapping[str, int]):
        self._send = send
        self._run = run
        self._most = most
        self._longest = longest
        self.levels = levels
        self.over = False
        self._lock = threading.RLock()
        self._left: deque[Said] = deque(maxlen=_LAST)
        self._missing = 0
        self._splitters = {name: LineSplitter(self._printer(name), longest) for name in _STREAMS}

    def write(self, stream: str, text: str) -> None:
        """Add what was printed."""
        with self._lock:
            self._splitters[stream].feed(text, threading.get_ident())

    def log(self, text: str, level: int, logger: str) -> None:
        """Add a log record."""
        lines = "\n".join(clean(line, self._longest) for line in text.splitlines())
        self._put(("log", lines, level, logger))

    def end(self) -> None:
        """End partial lines, and say what is missing; what comes later is no line of the task."""
        with self._lock:
            for one in self._splitters.values():
                one.end()
            self.over = True
            hidden = self._missing - len(self._left)
            if hidden > 0:
                text = f"{hidden:,} lines of this task are missing (more than {self._most:,} bytes of log)"
                self._send(("stderr", text, None, None))
            for said in self._left:
                self._send(said)
            self._left.clear()

    def _printer(self, stream: str) -> Callable[[str], None]:
        return lambda text: self._put((stream, clean(text, self._longest), None, None))

    def _put(self, said: Said) -> None:
        with self._lock:
            spent = _spent.pop(self._run, 0) + len(said[1]) + 1
            _spent[self._run] = spent
            if len(_spent) > _RUNS:
                _spent.popitem(last=False)
            if spent <= self._most:
                self._send(said)
                return
            self._missing += 1
            self._left.append(said)


_task: ContextVar[TaskLines | None] = ContextVar("dispatcher_task_lines", default=None)


def _mine() -> TaskLines | None:
    lines = _task.get()
    return None if lines is None or lines.over else lines


class _Stream(CapturedStream):
    """In the place of a standard stream: what a task writes is its own, all else goes to the original."""

    def __init__(self, original: TextIO, fd: int) -> None:
        super().__init__(lambda text: None, original, fd, 0, echo=None)
        self._stream = _STREAMS[fd - 1]
        self.retire()  # without a task, as after one

    def write(self, text: str, /) -> int:
        lines = _mine() if os.getpid() == self._pid else None
        if lines is None or not isinstance(text, str):
            return super().write(text)
        lines.write(self._stream, text)
        return len(text)


class _Handler(logging.Handler):
    """Gives each task the log records of its context."""

    def emit(self, record: logging.LogRecord) -> None:
        lines = _mine()
        if lines is None:
            self._pass_on(record)
            return
        if not self._levels.keeps(record, lines.levels):
            return
        try:
            lines.log(self.format(record), record.levelno, record.name)
        except Exception:
            self.handleError(record)

    def __init__(self, levels: Levels) -> None:
        super().__init__()
        self._levels = levels

    def _pass_on(self, record: logging.LogRecord) -> None:
        """Show a record as Python does where the root logger has no handler but this one: warnings alone."""
        last = logging.lastResort
        if len(logging.root.handlers) == 1 and last is not None and record.levelno >= last.level:
            last.handle(record)


class _Place:
    """The streams and loggers of this process, while tasks run here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks = 0
        self._levels = Levels()
        self._handler = _Handler(self._levels)
        self._ours: tuple[Any, ...] = ()
        self._originals: tuple[Any, ...] = ()

    def enter(self, levels: Mapping[str, int]) -> None:
        with self._lock:
            if not self._tasks:
                self._originals = sys.stdout, sys.stderr
                self._ours = tuple(_Stream(one, fd) for fd, one in enumerate(self._originals, 1))
                sys.stdout, sys.stderr = self._ours
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
            for name, ours, original in zip(_STREAMS, self._ours, self._originals, strict=True):
                if getattr(sys, name) is ours:  # else somebody has put another one there, which is theirs
                    setattr(sys, name, original)


_place = _Place()


@contextlib.contextmanager
def said_by(lines: TaskLines) -> Iterator[None]:
    """Have what is printed and logged inside, and in contexts copied from it, be the task's."""
    _place.enter(lines.levels)
    token = _task.set(lines)
    try:
        yield
    finally:
        _task.reset(token)
        _place.leave(lines.levels)
        lines.end()
