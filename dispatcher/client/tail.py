"""Iterators over a run's events and log lines, which follow a run until its end and survive outages.

Used by ``Run.events`` and ``Run.logs``; all events of an installation come from
:mod:`dispatcher.client.subscription`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from dispatcher.errors import UnknownRun
from dispatcher.inspection.deadlocks import Lookout
from dispatcher.records.base import Records
from dispatcher.records.logs import Line
from dispatcher.runs.events import Event
from dispatcher.support.outages import MAX_OUTAGE, retry_while_unavailable

T = TypeVar("T")

#: Seconds that one read waits for the next entry. Nothing announces the end of the lines, so that their follower checks
#: more often whether the run has ended.
BLOCK = 5.0
BLOCK_LINES = 0.5


def events_of(records: Records, run_id: str, *, follow: bool) -> Iterator[Event]:
    """Yield the run's events in order; with ``follow`` until its last one.

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


def first_lines(records: Records, run_id: str) -> dict[int, float]:
    """Return when each attempt's first line was written, as far as the first lines of the run tell."""
    times: dict[int, float] = {}
    for line in records.logs.read(run_id)[0]:
        times.setdefault(line.attempt, line.time)
    return times


def _entries(
    records: Records, run_id: str, read: Callable[..., tuple[Sequence[T], str]], *, block: float
) -> Iterator[T]:
    ended = records.runs.get(run_id)[0].terminal or not block
    lookout = Lookout.here(records) if block else None
    cursor = ""
    while True:
        read_next = partial(read, run_id, after=cursor, block=0.0 if ended else block)
        entries, cursor = retry_while_unavailable(read_next, within=MAX_OUTAGE)
        yield from entries
        if not entries and ended:
            return
        if not entries:  # entries from before the end are read after it is noticed
            ended = retry_while_unavailable(partial(_has_ended, records, run_id), within=MAX_OUTAGE)
            if lookout is not None and not ended:
                lookout.look([run_id])


def _has_ended(records: Records, run_id: str) -> bool:
    try:
        return records.runs.get(run_id)[0].terminal
    except UnknownRun:
        return True
