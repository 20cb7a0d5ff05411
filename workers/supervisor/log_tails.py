"""Last log lines of attempts that ended without a report: the runner's own, else read from the infrastructure.

A run's state never waits for these lines; the teardown waits while they are read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

from backends.base import Backend, Handle, InitLogged, Logged
from dispatcher.errors import Malformed, ServerUnavailable
from dispatcher.logs.last_lines import stored_last_lines
from dispatcher.records.base import Records
from dispatcher.records.leases import Lease
from dispatcher.records.logs import GAP, Line
from dispatcher.runs import infrastructure
from dispatcher.runs.record import Record
from workers.supervisor.request_threads import RequestThreads
from workers.supervisor.shards import Shards
from workers.updates import try_update

#: The stream of a line, and its text.
LastLine = tuple[str, str]

logger = logging.getLogger(__name__)

#: Lines stored with an outcome.
OUTCOME_LINES = 20

#: Lines of the infrastructure that are added to a run's log.
LOG_LINES = 200

#: Most characters of the note in a log whose last lines can't be read.
LONGEST_NOTE = 500

#: Requests for logs at once.
THREADS = 8


class LogTails:
    """Reader of last log lines.

    Args:
        records: the runners' lines.
        backend: asked where there are none, if it has logs.
        wake: called when lines were read.
    """

    def __init__(self, records: Records, backend: Backend, wake: Callable[[], None]) -> None:
        self._records = records
        self._backend = backend
        self._threads = RequestThreads(THREADS, wake)
        self._requested: dict[tuple[str, int], Record] = {}

    def sent(self, record: Record) -> tuple[str, ...]:
        """Return the last lines that the runner sent."""
        return stored_last_lines(self._records.logs, record.id, record.attempt, OUTCOME_LINES)

    def request(self, record: Record) -> None:
        """Begin to read what the attempt has printed; :meth:`store` stores it."""
        if isinstance(self._backend, Logged) and record.handle is not None:
            key = (record.id, record.attempt)
            self._requested[key] = record
            self._threads.submit(key, partial(_read, self._backend, record.handle))

    def is_pending(self, run_id: str, attempt: int) -> bool:
        """Return True while an attempt's lines are read: its infrastructure must not be deleted yet."""
        return self._threads.is_pending((run_id, attempt))

    def store(self, shards: Shards) -> None:
        """Store the lines that were read."""
        for key, lines in self._threads.results():
            record = self._requested.pop(key)
            lease = shards.lease(record.owner)
            if isinstance(lines, Exception):
                logger.info("Run %s: its last log lines can't be read: %s", record.id, lines)
                if lease is not None:
                    self._note(record, lines)
            elif lines and lease is not None:
                try:
                    try_update(self._store, record, lines, lease)
                except ServerUnavailable:
                    raise
                except Exception as error:  # also of what the backend has returned
                    logger.info(
                        "Run %s: can't store its last log lines: %s: %s", record.id, type(error).__name__, error
                    )

    def _note(self, record: Record, error: Exception) -> None:
        """Say in the run's log why its last lines are missing: no words of the flow's."""
        _, now = self._records.runs.get(record.id)
        text = f"the last lines can't be read: {' '.join(str(error).split())}"[:LONGEST_NOTE]
        note = Line(attempt=record.attempt, number=1, time=now, stream=GAP, text=text)
        try:
            self._records.logs.append(record.id, [note])
        except Malformed as problem:
            logger.info("Run %s: can't note that in its log: %s", record.id, problem)

    def _store(self, record: Record, lines: Sequence[LastLine], lease: Lease) -> Record:
        _, now = self._records.runs.get(record.id)
        self._records.logs.append(record.id, lines_of(record, lines[-LOG_LINES:], now))
        texts = [text for _, text in lines[-OUTCOME_LINES:]]
        step = partial(infrastructure.last_lines, attempt=record.attempt, lines=texts)
        return self._records.runs.update(record.id, step, lease=lease)

    def shutdown(self) -> None:
        """Read no more; running requests aren't waited for."""
        self._threads.shutdown()


def _read(backend: Logged, handle: Handle) -> list[LastLine]:
    """Return the last lines of the flow's container; if there are none, of the init containers that failed."""
    if lines := backend.logs(handle):
        return [("stdout", text) for text in lines]
    inits = backend.init_logs(handle) if isinstance(backend, InitLogged) else {}
    return [(f"init/{name}", text) for name, texts in inits.items() for text in texts]


def lines_of(record: Record, lines: Sequence[LastLine], now: float) -> list[Line]:
    """Return what was read from infrastructure as the first lines of an attempt's log."""
    return [
        Line(attempt=record.attempt, number=number, time=now, stream=stream, text=text)
        for number, (stream, text) in enumerate(lines, start=1)
    ]
