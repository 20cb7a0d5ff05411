"""The signals that shut a worker down. They replace Celery's handlers, so that the event loop runs while it drains."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from dispatcher.support.hangup import on_hangup


class ShutdownSignals:
    """Handlers of SIGTERM, SIGHUP, SIGINT and SIGQUIT in the worker's parent process.

    Args:
        worker: Celery's worker.
        drain: begins to shut down; with True, running flows are interrupted at once. Safe in a signal handler.
    """

    def __init__(self, worker: Any, drain: Callable[[bool], None]) -> None:
        self._worker = worker
        self._drain = drain
        self._interrupts = 0
        self.exit_status = 0  #: of the worker, by the signals that came

    def handle_hangup(self) -> None:
        """Drain at SIGHUP. Call before Celery sets its handler, which restarts the worker where it has no terminal."""
        self._worker._isatty = True  # Celery reads it only to decide whether to leave SIGHUP alone
        on_hangup(self._on_sigterm)

    def install(self) -> None:
        """Set the other handlers. Call after Celery has set its own."""
        signal.signal(signal.SIGTERM, self._on_sigterm)
        signal.signal(signal.SIGINT, self._on_sigint)
        signal.signal(signal.SIGQUIT, self._on_sigquit)

    def _on_sigterm(self, signum: int, frame: object) -> None:
        self._drain(False)

    def _on_sigint(self, signum: int, frame: object) -> None:
        """Act as Celery does: the first signal drains, the second ends running flows, the third is a cold shutdown."""
        self._interrupts += 1
        if self._interrupts > 1:
            from celery.apps.worker import install_worker_term_hard_handler

            install_worker_term_hard_handler(self._worker, sig="SIGINT", verbose=False)
            self.exit_status = 1
        self._drain(self._interrupts > 1)

    def _on_sigquit(self, signum: int, frame: object) -> None:
        """End running flows at once. Celery would wait for the pool for ever."""
        self.exit_status = 1
        self._drain(True)
