"""Lines of Dask's own tasks on a worker (``dask.delayed``, collections, ``Client.submit``), for the run's log.

Tasks of a flow send theirs by :mod:`dispatcher.executors.task_logs`. For all others, this replaces the worker's
standard streams and adds a handler of the root logger: what a thread prints or logs while it runs a task also goes to
the scheduler, which sends it to the runner. It stays in the container's log as well, like everything else.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from typing import Any, TextIO

from distributed.worker import thread_state

from dispatcher.executors.dask_cluster.messages import LINES
from dispatcher.executors.task_logs import in_task
from dispatcher.logs.shipper import clean
from dispatcher.logs.stdout import CapturedStream, LineSplitter

_LONGEST = 32 * 2**10  # bytes of a line; the run's own limit is applied later

#: Stream, text, level and logger of a line; see :class:`dispatcher.executors.dask_cluster.messages.ClusterLine`.
Line = tuple[str, str, int | None, str | None]


def install(worker: Any) -> None:
    """Send the lines of a ``distributed.Worker``'s tasks to its scheduler, for as long as this process lives."""
    sender = _Sender(worker)
    sys.stdout = _Stream(sender.put, sys.stdout, 1)
    sys.stderr = _Stream(sender.put, sys.stderr, 2)
    logging.root.addHandler(_Handler(sender.put))
    if logging.root.level in {logging.NOTSET, logging.WARNING}:
        logging.root.setLevel(logging.INFO)  # as in a flow's process


def _runs_task() -> bool:
    """Return True if this thread runs a task of Dask's own."""
    return getattr(thread_state, "execution_state", None) is not None and not in_task()


class _Sender:
    """Sends lines in batches, from any thread."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._lock = threading.RLock()  # a destructor may print while its thread sends
        self._lines: list[Line] = []

    def put(self, line: Line) -> None:
        with self._lock:
            self._lines.append(line)
            if len(self._lines) == 1:
                self._worker.loop.add_callback(self._flush)

    def _flush(self) -> None:
        with self._lock:
            lines, self._lines = self._lines, []
        self._worker.batched_send({"op": LINES, "lines": lines})


class _Stream(CapturedStream):
    """A standard stream that echoes everything, and sends what tasks write."""

    def __init__(self, put: Callable[[Line], None], original: TextIO, fd: int) -> None:
        super().__init__(lambda _text: None, original, fd, 0, echo=None)
        name = "stdout" if fd == 1 else "stderr"
        self._lines = LineSplitter(lambda text: put((name, clean(text, _LONGEST), None, None)), _LONGEST)
        self.retire()  # all text goes to the original

    def write(self, text: str, /) -> int:
        count = super().write(text)
        if _runs_task():
            self._lines.feed(text, threading.get_ident())
        return count


class _Handler(logging.Handler):
    """Sends the records of tasks. Prints warnings as Python does where the root logger has no handler."""

    def __init__(self, put: Callable[[Line], None]) -> None:
        super().__init__()
        self._put = put

    def emit(self, record: logging.LogRecord) -> None:
        if in_task():  # the task's own handler has it
            return
        try:
            if _runs_task():
                for text in self.format(record).splitlines():
                    self._put(("log", clean(text, _LONGEST), record.levelno, record.name))
            if record.levelno >= logging.WARNING and all(map(_is_ours, logging.root.handlers)):
                sys.__stderr__.write(f"{self.format(record)}\n")  # type: ignore[union-attr]
        except Exception:
            self.handleError(record)


def _is_ours(handler: logging.Handler) -> bool:
    return type(handler).__module__.startswith("dispatcher.")
