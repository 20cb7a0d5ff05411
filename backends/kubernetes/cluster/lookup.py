"""Asks for Jobs by name on a thread of its own, lest a slow API server be in the way of all that is seen by watches."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)

Names = tuple[str, str, str]  # namespace, name, UID


class Asking:
    """Keeps each answer until it is taken, once. A UID never comes back, so that no kept "no" gets wrong.

    Args:
        there: whether a Job exists, by one request; what it raises is an answer, too.
        answered: called on the thread when there is an answer to take.
    """

    def __init__(self, there: Callable[[Names], bool], answered: Callable[[Names], None]) -> None:
        self._there = there
        self._answered = answered
        self._wanted: queue.SimpleQueue[Names | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._answers: dict[Names, bool | Exception | None] = {}  # None: it is being asked for
        self._thread: threading.Thread | None = None

    def ask(self, names: Names) -> bool | Exception | None:
        """The answer, at once; None while there is none, and it is being asked for."""
        with self._lock:
            if names in self._answers:
                answer = self._answers[names]
                if answer is not None:
                    del self._answers[names]
                return answer
            self._answers[names] = None
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="kubernetes-asking", daemon=True)
                self._thread.start()
        self._wanted.put(names)
        return None

    def forget(self, names: Names) -> None:
        """Nobody will take the answer."""
        with self._lock:
            self._answers.pop(names, None)

    def stop(self) -> None:
        """Ask no more; a request under way isn't waited for."""
        self._wanted.put(None)

    def _run(self) -> None:
        while (names := self._wanted.get()) is not None:
            try:
                answer: bool | Exception = self._there(names)
            except Exception as error:
                logger.info("Job %s/%s can't be asked for: %s", *names[:2], error)
                answer = error
            with self._lock:
                if names in self._answers:
                    self._answers[names] = answer
            self._answered(names)
