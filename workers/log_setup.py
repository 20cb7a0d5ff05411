"""The log of a worker: readable one-liners on stderr, and nothing of its own in the logs of flows."""

from __future__ import annotations

import logging
import os
import re
import threading
from typing import Any

from dispatcher.support.escaping import escaped, escaped_lines
from dispatcher.support.log_throttle import LogThrottle

#: Whose words a worker prints. Flows log to the root logger, which the runner captures.
OURS = ("workers", "dispatcher", "backends")
THEIRS = ("celery", "kombu", "multiprocessing", "py.warnings")


# What Celery and kombu say over a lost connection.
_RECONNECTS = re.compile("consumer: (Cannot connect|Connection to broker lost)|maybe_refresh_binding_expiry")


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


class Seldomly:
    """A filter for what Celery says: the same comes once in a while.

    Args:
        reconnects: whether to show at all that it reconnects. Our threads say so where they use the same server.
    """

    def __init__(self, *, reconnects: bool) -> None:
        self._reconnects = reconnects
        self._lock = threading.Lock()
        self._seldom = LogThrottle(logging.getLogger(__name__))

    def __call__(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if _RECONNECTS.match(text):
            if not self._reconnects:
                return False
            text = "reconnects"
        with self._lock:
            return self._seldom.due(text) is not None


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


def connect(*, two_servers: bool) -> None:
    """Take Celery's place in setting up the logging of a worker; see :func:`set_up`."""
    from celery import signals

    def on_setup(loglevel: int | None = None, **_: Any) -> None:
        set_up(loglevel or logging.INFO, two_servers=two_servers)

    signals.setup_logging.connect(on_setup, weak=False)


def set_up(level: int = logging.INFO, *, two_servers: bool = False) -> None:
    """Print to a copy of stderr, so that what a pool process says isn't taken for its flow's output.

    Args:
        level: what to print.
        two_servers: doorbells come from another server than the one of the records.
    """
    number = os.dup(2)
    handler = Descriptor(number)
    handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    handler.addFilter(lambda record: not record.name.startswith("dispatcher.flow"))
    theirs = Descriptor(number)
    theirs.setFormatter(handler.formatter)
    theirs.addFilter(Seldomly(reconnects=two_servers or level <= logging.DEBUG))
    for names, one, lowest in ((OURS, handler, level), (THEIRS, theirs, max(level, logging.WARNING))):
        for name in names:
            logger = logging.getLogger(name)
            logger.handlers = [one]
            logger.setLevel(lowest)
    logging.getLogger("py.warnings").setLevel(logging.ERROR)  # Celery announces its next release on each reconnect
    logging.getLogger("celery.worker.request").setLevel(logging.CRITICAL)  # we say ourselves who died
    logging.getLogger("multiprocessing").setLevel(logging.CRITICAL)
