"""Print and log here what tasks have printed and logged elsewhere: a run's log captures it here.

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
    # Dask's own loggers pass nothing on to the root logger, where a run's log has its handler.
    is_root = name == "root" or name.partition(".")[0] == "distributed"
    logging.getLogger(None if is_root else name).handle(record)
