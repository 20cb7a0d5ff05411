"""Lines that tasks have printed and logged elsewhere: they are printed and logged here, where a run's log captures them.

Used by the flow's side of a Dask cluster.
"""

from __future__ import annotations

import logging
import sys


def emit(stream: str, text: str, level: int | None, name: str | None, *, worker: str = "") -> None:
    """Print or log a line.

    Args:
        stream: ``stdout`` or ``stderr``; has no meaning for a log record.
        text: the line.
        level, name: of a log record and its logger; None for a printed line.
        worker: shown before each line, if given.
    """
    if worker:
        text = "\n".join(f"[{worker}] {line}" for line in text.split("\n"))
    if level is None or name is None:
        (sys.stdout if stream == "stdout" else sys.stderr).write(f"{text}\n")
        return
    record = logging.LogRecord(name, level, "", 0, "%s", (text,), None)
    logging.getLogger(None if name == "root" else name).handle(record)
