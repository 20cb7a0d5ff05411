"""Store the last lines of a dead process, recovered from its journal, as lines of its attempt.

Called by the worker's parent process and by the parent process of a container, before they record the attempt's end.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from dispatcher.errors import Malformed
from dispatcher.logs.journal import JournalLine
from dispatcher.logs.limits import Limits
from dispatcher.logs.shipper import clean
from dispatcher.records.logs import Line, Logs

#: Lines stored with the outcome of an attempt that died.
TAIL = 50


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
