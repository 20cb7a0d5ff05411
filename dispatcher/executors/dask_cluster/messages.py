"""The messages of a scheduler's process to the runner that has started it: lines of JSON through a pipe.

Written by :class:`Messages`, which never blocks the scheduler; read by
:mod:`dispatcher.executors.dask_cluster.scheduler_process`.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections import deque
from typing import Any, NamedTuple

from dispatcher.runs.cluster import WorkerReport

#: The operation by which workers send lines of tasks to their scheduler.
LINES = "dispatcher-lines"

_MOST_LINES = 10_000  # that wait while the runner doesn't read
_CLOSE_TIMEOUT = 1.0  # seconds for the last messages


class ClusterLine(NamedTuple):
    """A line for the run's log.

    Attributes:
        worker: name of the worker that it comes from; empty for the scheduler.
        stream: ``stdout``, ``stderr`` or ``log``.
        text: the line.
        level, logger: of a log record; None for printed lines.
    """

    worker: str
    stream: str
    text: str
    level: int | None = None
    logger: str | None = None


class Messages:
    """Sends messages by a thread of its own. Reports replace each other until they are sent.

    Args:
        descriptor: of the pipe.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._condition = threading.Condition()
        self._report: WorkerReport | None = None
        self._refusal = ""
        self._lines: deque[ClusterLine] = deque()
        self._missing = 0
        self._closed = False
        self._thread = threading.Thread(target=self._send, name="dispatcher-messages", daemon=True)
        self._thread.start()

    def report(self, report: WorkerReport) -> None:
        """Send the latest report."""
        with self._condition:
            self._report = report
            self._condition.notify()

    def refuse(self, problem: str) -> None:
        """Send why the flow can't run with these workers."""
        with self._condition:
            self._refusal = problem
            self._condition.notify()

    def line(self, line: ClusterLine) -> None:
        """Send a line. If too many wait, it is only counted."""
        with self._condition:
            if len(self._lines) >= _MOST_LINES:
                self._missing += 1
                return
            self._lines.append(line)
            self._condition.notify()

    def close(self) -> None:
        """Send what waits, and no more."""
        with self._condition:
            self._closed = True
            self._condition.notify()
        self._thread.join(_CLOSE_TIMEOUT)

    def _send(self) -> None:
        with contextlib.suppress(OSError):  # the runner has gone
            while messages := self._take():
                data = "".join(f"{json.dumps(message)}\n" for message in messages).encode()
                while data:
                    data = data[os.write(self._descriptor, data) :]

    def _take(self) -> list[dict[str, Any]]:
        """Wait for messages, and return them; none once closed."""
        with self._condition:
            self._condition.wait_for(lambda: self._closed or self._lines or self._refusal or self._report is not None)
            messages: list[dict[str, Any]] = [{"line": line} for line in self._lines]
            if self._missing:
                text = f"{self._missing:,} lines of the Dask cluster are missing: they came too fast"
                messages.append({"line": ClusterLine("", "stderr", text)})
            if self._refusal:
                messages.append({"refusal": self._refusal})
            if self._report is not None:
                messages.append({"workers": self._report.to_json()})
            self._lines.clear()
            self._missing, self._refusal, self._report = 0, "", None
            return messages
