"""A supervisor's requests to its backend: made on threads, paused between repetitions, answered on its own thread."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from dispatcher.errors import Transient
from dispatcher.support.log_throttle import LogThrottle
from workers.error_isolation import ErrorIsolation
from workers.supervisor.request_threads import Key, RequestThreads

logger = logging.getLogger(__name__)

#: Receives a request's result, or the exception that it raised.
AnswerHandler = Callable[[Any], None]


class BackendRequests:
    """The requests of one supervisor. For its thread alone.

    Args:
        threads: make the requests.
        pause: seconds between two requests with the same key, where neither caller nor service asks for another pause.
    """

    def __init__(self, threads: RequestThreads, *, pause: float) -> None:
        self._threads = threads
        self._pause = pause
        self._handlers: dict[Key, tuple[AnswerHandler | None, float]] = {}
        self._not_before: dict[Key, float] = {}  # by the monotonic clock
        self._isolation = ErrorIsolation(logger)
        self._throttle = LogThrottle(logger)

    def is_pending(self, key: Key) -> bool:
        """Return True if a request with this key runs, or its answer wasn't handled yet."""
        return self._threads.is_pending(key)

    def is_due(self, key: Key) -> bool:
        """Return True if no request with this key is pending, and the pause after the last one is over."""
        return not self.is_pending(key) and self._not_before.get(key, 0.0) <= time.monotonic()

    def submit(
        self, key: Key, call: Callable[[], Any], on_answer: AnswerHandler | None = None, *, pause: float | None = None
    ) -> None:
        """Make a request, unless one with the same key is pending.

        Args:
            key: the request's kind, its run (or another object), and what else distinguishes it.
            call: makes the request, on another thread.
            on_answer: called with the result or the exception; without it, exceptions are logged.
            pause: seconds until this key is due again, unless the service asks for another pause.
        """
        if self._threads.submit(key, call):
            self._handlers[key] = on_answer, self._pause if pause is None else pause

    def handle_answers(self) -> None:
        """Call the handlers of all requests that were answered. A handler that fails affects no other."""
        at = time.monotonic()
        for key, answer in self._threads.results():
            on_answer, pause = self._handlers.pop(key)
            with self._isolation.run(str(key[1])):
                if on_answer is not None:
                    on_answer(answer)
                elif isinstance(answer, Exception):
                    self._throttle.warn(f"Run {key[1]}: the {key[0]} request failed; it will be repeated", answer)
            self._not_before[key] = at + (answer.retry_in if isinstance(answer, Transient) else pause)
        self._not_before = {key: until for key, until in self._not_before.items() if until > at}

    def shutdown(self) -> None:
        """Make no more requests; running ones aren't waited for."""
        self._threads.shutdown()
