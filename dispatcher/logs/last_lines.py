"""The last words of a dead process, as lines of its attempt. Called by whoever records its end."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from dispatcher.errors import Malformed
from dispatcher.logs.journal import JournalLine
from dispatcher.logs.limits import Limits
from dispatcher.logs.shipper import clean
from dispatcher.records.base import Line, Logs

#: Lines kept with the outcome of an attempt that died.
TAIL = 50


def store_last_lines(
    logs: Logs, run_id: str, attempt: int, said: Sequence[JournalLine], limits: Limits
) -> tuple[str, ...]:
    """Add those lines that the process hadn't sent; safe to repeat. The last :data:`TAIL` texts of what it said.

    Raises:
        ServerUnavailable: to be tried again.
    """
    lines = [
        Line(
            attempt=attempt,
            number=one.number,
            time=one.time,
            stream=one.stream,
            text=clean(one.text, limits.line),
            level=clean(one.level, limits.line),
        )
        for one in said
    ]
    if lines:
        with suppress(Malformed):
            logs.append(run_id, lines)
    return tuple(line.text for line in lines[-TAIL:])
