"""The last lines of attempts that ended without a report: the runner's own, else read once from where it ran.

A state never waits for them; the teardown does, for a few seconds.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from backends.base import Backend, Logged
from dispatcher.errors import Malformed, Refused, UnknownRun
from dispatcher.records.base import Line, Records
from dispatcher.runs import infrastructure
from dispatcher.runs.record import Record
from workers.supervisor.request_threads import RequestThreads
from workers.supervisor.shards import Shards

logger = logging.getLogger(__name__)

#: Lines kept with an outcome, and lines read from where it ran.
KEPT = 20
MOST = 200

#: How many are read at once.
AT_ONCE = 8


class LogTails:
    """Reads last lines.

    Args:
        records: where the runners' lines are.
        backend: asked where there are none, if it can tell.
        wake: called when something was read.
    """

    def __init__(self, records: Records, backend: Backend, wake: Callable[[], None]) -> None:
        self._records = records
        self._backend = backend
        self._hands = RequestThreads(AT_ONCE, wake)
        self._asked: dict[tuple[str, int], Record] = {}

    def sent(self, record: Record) -> tuple[str, ...]:
        """The last lines that the runner sent."""
        last: deque[str] = deque(maxlen=KEPT)
        after = ""
        with suppress(Malformed):
            while True:
                lines, after = self._records.logs.read(record.id, after=after)
                if not lines:
                    break
                last.extend(one.text for one in lines if one.attempt == record.attempt and one.stream != "gap")
        return tuple(last)

    def ask(self, record: Record) -> None:
        """Read what the attempt has printed; :meth:`note` stores it."""
        if isinstance(self._backend, Logged) and record.handle is not None:
            key = (record.id, record.attempt)
            self._asked[key] = record
            self._hands.give(key, partial(self._backend.logs, record.handle))

    def busy(self, run_id: str, attempt: int) -> bool:
        """Return True if it is being read: what is read from mustn't go yet."""
        return self._hands.busy((run_id, attempt))

    def note(self, shards: Shards) -> None:
        """Store what was read."""
        for key, read in self._hands.done():
            record = self._asked.pop(key)
            lease = shards.lease(record.owner)
            if isinstance(read, Exception):
                logger.info("run %s: its last lines can't be read: %s", record.id, read)
            if isinstance(read, Exception) or not read or lease is None:
                continue
            step = partial(infrastructure.last_lines, attempt=record.attempt, lines=read[-KEPT:])
            try:
                _, now = self._records.runs.get(record.id)
                self._records.logs.append(record.id, _lines(record, read[-MOST:], now))
                self._records.runs.update(record.id, step, lease=lease)
            except (Refused, UnknownRun, Malformed) as error:
                logger.info("nothing to do: %s", error)

    def stop(self) -> None:
        """Read no more."""
        self._hands.stop()


def _lines(record: Record, texts: tuple[str, ...], now: float) -> list[Line]:
    return [
        Line(attempt=record.attempt, number=number, time=now, stream="stdout", text=text)
        for number, text in enumerate(texts, start=1)
    ]
