"""Iterators that follow a run's events and log lines, or all events as a durable subscriber. They survive outages."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import TypeVar

from dispatcher.errors import InvalidInput, UnknownRun
from dispatcher.inspection.deadlocks import Lookout
from dispatcher.records.base import Line, Records
from dispatcher.runs.events import Event
from dispatcher.support.ids import LONGEST_NAME, is_subscriber
from dispatcher.support.outages import MAX_OUTAGE, retry_while_unavailable

T = TypeVar("T")

#: Seconds that one reading waits for the next entry. Nothing tells a follower of lines that there will be none, so it
#: looks more often whether the run has ended.
BLOCK = 5.0
BLOCK_LINES = 0.5


def events_of(records: Records, run_id: str, *, follow: bool) -> Iterator[Event]:
    """The run's events in order; with ``follow`` until its last one.

    Raises:
        UnknownRun: there is no such run.
    """
    for event in _entries(records, run_id, records.events.of, block=BLOCK if follow else 0.0):
        yield event
        if event.final:
            return


def lines_of(records: Records, run_id: str, *, follow: bool) -> Iterator[Line]:
    """Yield the lines that the run printed and logged, in order; with ``follow`` until it has ended.

    Raises:
        UnknownRun: there is no such run.
    """
    return _entries(records, run_id, records.logs.read, block=BLOCK_LINES if follow else 0.0)


def _entries(
    records: Records, run_id: str, read: Callable[..., tuple[Sequence[T], str]], *, block: float
) -> Iterator[T]:
    ended = records.runs.get(run_id)[0].terminal or not block
    lookout = Lookout.here(records) if block else None
    cursor = ""
    while True:
        found, cursor = _retried(partial(read, run_id, after=cursor, block=0.0 if ended else block))
        yield from found
        if not found and ended:
            return
        if not found:  # what was written before the end is read after it
            ended = _retried(partial(_is_over, records, run_id))
            if lookout is not None and not ended:
                lookout.look([run_id])


def _is_over(records: Records, run_id: str) -> bool:
    try:
        return records.runs.get(run_id)[0].terminal
    except UnknownRun:
        return True


def _retried(read: Callable[[], T]) -> T:
    return retry_while_unavailable(read, within=MAX_OUTAGE)


class Subscription:
    """All lifecycle events, durably, under a subscriber's name: at least once, resuming where it stopped.

    Iterate over it; asking for the next event acknowledges the last one, so an event whose handling was cut short comes
    again. Events have deterministic ids: store them with their effect where it must happen once. A new name starts
    with the next event. Use as a context manager, or :meth:`close` it; the position is kept either way.

    Args:
        records: where.
        name: the subscriber's name; two consumers of one name share its events.
        timeout: seconds without an event after which the iteration ends; None: never.

    Raises:
        InvalidInput: the name can't be used.
        ServerUnavailable: the server can't be reached; while iterating, only after ten minutes.
    """

    def __init__(self, records: Records, name: str, *, timeout: float | None = None) -> None:
        if not is_subscriber(name):
            raise InvalidInput(f"subscribe: the name must be 1 to {LONGEST_NAME} printable characters, got {name!r}")
        self.name = name
        self._records = records
        self._timeout = timeout
        self._taken: deque[tuple[str, Event]] = deque(records.events.take(name, block=0.0))
        self._unacknowledged = ""
        self._closed = False

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        if self._unacknowledged:
            _retried(partial(self._records.events.acknowledge, self.name, [self._unacknowledged]))
            self._unacknowledged = ""
        end = None if self._timeout is None else time.monotonic() + self._timeout
        while not self._taken:
            left = BLOCK if end is None else end - time.monotonic()
            if self._closed or left <= 0:
                raise StopIteration
            self._taken.extend(_retried(partial(self._records.events.take, self.name, block=min(BLOCK, left))))
        if self._closed:
            raise StopIteration
        self._unacknowledged, event = self._taken.popleft()
        return event

    def close(self) -> None:
        """End the iteration. The last event given isn't acknowledged, nor are those taken and not given."""
        self._closed = True

    def forget(self) -> None:
        """Drop the subscriber and its position for good."""
        self.close()
        self._records.events.forget(self.name)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Subscription {self.name!r}>"


def first_lines(records: Records, run_id: str) -> dict[int, float]:
    """Attempt → when its first line came, among the first lines of the run."""
    found: dict[int, float] = {}
    for line in records.logs.read(run_id)[0]:
        found.setdefault(line.attempt, line.time)
    return found
