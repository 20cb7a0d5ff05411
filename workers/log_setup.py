"""The log of a worker: one line per record on stderr, kept out of the logs of flows."""

from __future__ import annotations

import logging
import os
import re
import threading
from typing import Any

from dispatcher.support.escaping import escaped, escaped_lines
from dispatcher.support.log_throttle import LogThrottle

#: Loggers that a worker prints. Flows log to the root logger, which the runner captures.
OURS = ("workers", "dispatcher", "backends")
THEIRS = ("celery", "kombu", "multiprocessing", "py.warnings")

# Messages of Celery and kombu about a lost connection.
_RECONNECTS = re.compile("consumer: (Cannot connect|Connection to broker lost)|maybe_refresh_binding_expiry")


class OneLineFormatter(logging.Formatter):
    """Formats a record as one line, whatever its text contains. Tracebacks are added only at level DEBUG."""

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


class RepeatFilter:
    """Filter of Celery's messages: the same message passes once in a while.

    Args:
        reconnects: whether messages about reconnects pass at all. Our threads log outages of a server that both use.
    """

    def __init__(self, *, reconnects: bool) -> None:
        self._reconnects = reconnects
        self._lock = threading.Lock()
        self._throttle = LogThrottle(logging.getLogger(__name__))

    def __call__(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if _RECONNECTS.match(text):
            if not self._reconnects:
                return False
            text = "reconnects"
        with self._lock:
            return self._throttle.due(text) is not None


class DescriptorHandler(logging.Handler):
    """Writes to a file descriptor without a buffer, so that a fork while another thread prints inherits no lock."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def emit(self, record: logging.LogRecord) -> None:
        try:
            os.write(self._number, f"{self.format(record)}\n".encode(errors="backslashreplace"))
        except Exception:
            self.handleError(record)


def connect(*, two_servers: bool) -> None:
    """Set up the logging of a worker instead of Celery; see :func:`set_up`."""
    from celery import signals

    def on_setup(loglevel: int | None = None, **_: Any) -> None:
        set_up(loglevel or logging.INFO, two_servers=two_servers)

    signals.setup_logging.connect(on_setup, weak=False)


def set_up(level: int = logging.INFO, *, two_servers: bool = False) -> None:
    """Log to a copy of stderr, so that log lines of a pool process aren't captured as output of its flow.

    Args:
        level: the lowest level that is printed.
        two_servers: whether doorbells come from another server than the one with the records.
    """
    number = os.dup(2)
    handler = DescriptorHandler(number)
    handler.setFormatter(OneLineFormatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    handler.addFilter(lambda record: not record.name.startswith("dispatcher.flow"))
    celery_handler = DescriptorHandler(number)
    celery_handler.setFormatter(handler.formatter)
    celery_handler.addFilter(RepeatFilter(reconnects=two_servers or level <= logging.DEBUG))
    for names, output, lowest in ((OURS, handler, level), (THEIRS, celery_handler, max(level, logging.WARNING))):
        for name in names:
            logger = logging.getLogger(name)
            logger.handlers = [output]
            logger.setLevel(lowest)
    logging.getLogger("py.warnings").setLevel(logging.ERROR)  # Celery announces its next release on each reconnect
    logging.getLogger("celery.worker.request").setLevel(logging.CRITICAL)  # the monitor logs deaths
    logging.getLogger("multiprocessing").setLevel(logging.CRITICAL)
