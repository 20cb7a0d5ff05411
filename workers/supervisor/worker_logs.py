"""Last lines of workers of a run's own cluster that were lost: read from the backend, added to the run's log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from backends.base import Scaled
from dispatcher.errors import Malformed
from dispatcher.records.logs import WORKER, Line, Logs
from dispatcher.runs.record import Record
from dispatcher.runs.worker_loss import WorkerLoss
from workers.supervisor.backend_requests import BackendRequests
from workers.supervisor.cluster_workers import WorkerEnd

logger = logging.getLogger(__name__)

#: Lines of one worker that are added to a run's log, and that are stored with the outcome of its attempt.
LOG_LINES, OUTCOME_LINES = 200, 20

#: Losses of one attempt up to which lines are read: where more workers are lost, theirs say nothing new.
MOST_READ = 50

#: Numbers of lines that each loss has for itself.
NUMBERS = 1000

#: Called with the end of a worker, and its last lines.
OnLines = Callable[[WorkerEnd, Sequence[str]], None]


class WorkerLogs:
    """Reader of last lines of workers.

    Args:
        logs: the runs'.
        requests: made to the backend.
        now: the server's clock.
    """

    def __init__(self, logs: Logs, requests: BackendRequests, now: Callable[[], float]) -> None:
        self._logs = logs
        self._requests = requests
        self._now = now

    def read(self, backend: Scaled, record: Record, end: WorkerEnd, on_lines: OnLines) -> None:
        """Have a worker's last lines read, and ``on_lines`` called with them; without any if they can't be read."""
        key = ("last lines of a worker", record.id, record.attempt, end.name)
        lost = 0 if record.workers is None else record.workers.lost
        if end.vanished or end.hopeless or lost >= MOST_READ or record.handle is None:
            on_lines(end, ())
            return
        call = partial(backend.worker_logs, record.handle, end.name)
        self._requests.submit(key, call, partial(_handle, record.id, end, on_lines))

    def store(self, record: Record, loss: WorkerLoss, number: int, lines: Sequence[str]) -> None:
        """Add the last lines of a lost worker to its run's log, and what became of it. Safe to repeat.

        Args:
            record: the run.
            loss: the worker's.
            number: the loss's, counted from 1 in the attempt.
            lines: the worker's last ones.
        """
        now, stream = self._now(), f"{WORKER}{loss.name}"
        texts = [*lines[-LOG_LINES:], loss.text]
        stored = [
            Line(attempt=record.attempt, number=number * NUMBERS + n, time=now, stream=stream, text=text)
            for n, text in enumerate(texts)
        ]
        try:
            self._logs.append(record.id, stored)
        except Malformed as error:
            logger.info("Run %s: can't store the last lines of worker %s: %s", record.id, loss.name, error)


def _handle(run_id: str, end: WorkerEnd, on_lines: OnLines, answer: Any) -> None:
    if isinstance(answer, Exception):
        logger.info("Run %s: the last lines of worker %s can't be read: %s", run_id, end.name, answer)
        answer = ()
    on_lines(end, tuple(map(str, answer)))
