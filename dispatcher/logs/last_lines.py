"""The last lines of an attempt whose process died: stored from its journal, and read for its outcome.

Used by the worker's parent process, by the parent process of a container and by supervisors, before they record the
attempt's end.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from dispatcher.errors import Malformed
from dispatcher.logs.journal import JournalLine
from dispatcher.logs.limits import Limits
from dispatcher.logs.shipper import TAIL, clean
from dispatcher.records.logs import Line, Logs


def store_last_lines(
    logs: Logs, run_id: str, attempt: int, journal_lines: Sequence[JournalLine], limits: Limits
) -> tuple[str, ...]:
    """Store the lines that the process hadn't sent, and return the texts of the last :data:`TAIL`. Safe to repeat.

    Raises:
        ServerUnavailable: the server is away; try again later.
    """
    lines = [
        Line(
            attempt=attempt,
            number=line.number,
            time=line.time,
            stream=line.stream,
            text=clean(line.text, limits.line),
            level=clean(line.level, limits.line),
        )
        for line in journal_lines
    ]
    if lines:
        with suppress(Malformed):
            logs.append(run_id, lines)
    return tuple(line.text for line in lines[-TAIL:])


def last_line_number(logs: Logs, run_id: str, attempt: int) -> int:
    """Return the number of an attempt's last line, after which another process counts on; 0 if there is none."""
    with suppress(Malformed):
        if lines := logs.tail(run_id, 1, attempt=attempt):
            return lines[-1].number
    return 0


def stored_last_lines(logs: Logs, run_id: str, attempt: int, count: int) -> tuple[str, ...]:
    """Return the texts of the last ``count`` lines that an attempt has in its log; none if the log can't be read.

    Raises:
        ServerUnavailable: the server is away; try again later.
    """
    with suppress(Malformed):
        return tuple(line.text for line in logs.tail(run_id, count, attempt=attempt, gaps=False))
    return ()
