"""What a worker prints: readable one-liners on stderr, and nothing of its own in the logs of flows."""

from __future__ import annotations

import logging
import os
from typing import Any

from dispatcher.escaping import escaped, escaped_lines

#: Whose words a worker prints. Flows log to the root logger, which the runner captures.
OURS = ("workers", "dispatcher", "backends")
THEIRS = ("celery", "kombu", "multiprocessing", "py.warnings")


class OneLine(logging.Formatter):
    """A record is one line, whatever its words hold; only where debugging is on does a traceback add its lines."""

    def format(self, record: logging.LogRecord) -> str:
        if record.exc_info and not logging.getLogger("workers").isEnabledFor(logging.DEBUG):
            record = logging.makeLogRecord({**record.__dict__, "exc_info": None, "exc_text": None})
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        return escaped(super().formatMessage(record).rstrip())

    def formatException(self, info: Any) -> str:  # noqa: N802
        return escaped_lines(super().formatException(info))

    def formatStack(self, text: str) -> str:  # noqa: N802
        return escaped_lines(super().formatStack(text))


class Descriptor(logging.Handler):
    """Writes to a file descriptor without a buffer: a fork while another thread prints leaves no lock behind."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def emit(self, record: logging.LogRecord) -> None:
        try:
            os.write(self._number, f"{self.format(record)}\n".encode(errors="backslashreplace"))
        except Exception:
            self.handleError(record)


def connect() -> None:
    """Take Celery's place in setting up the logging of a worker."""
    from celery import signals

    signals.setup_logging.connect(_on_setup, weak=False)


def set_up(level: int = logging.INFO) -> None:
    """Print to a copy of stderr, so that what a pool process says isn't taken for its flow's output."""
    handler = Descriptor(os.dup(2))
    handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    handler.addFilter(lambda record: not record.name.startswith("dispatcher.flow"))
    for names, lowest in ((OURS, level), (THEIRS, max(level, logging.WARNING))):
        for name in names:
            logger = logging.getLogger(name)
            logger.handlers = [handler]
            logger.setLevel(lowest)
    logging.getLogger("py.warnings").setLevel(logging.ERROR)  # Celery announces its next release on each reconnect
    logging.getLogger("celery.worker.request").setLevel(logging.CRITICAL)  # we say ourselves who died
    logging.getLogger("multiprocessing").setLevel(logging.CRITICAL)


def _on_setup(loglevel: int | None = None, **_: Any) -> None:
    set_up(loglevel or logging.INFO)
