"""Lookups of single Jobs on a thread of their own, so that a slow API server never delays an observation.

Used for Jobs that no watch has shown.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from backends.kubernetes.handle import JobKey

logger = logging.getLogger(__name__)


class JobLookup:
    """Keeps each result until it is taken, once. UIDs are never reused, so a kept negative result stays right.

    Args:
        exists: returns True if a Job exists, by one request. An exception that it raises is a result, too.
        on_result: called on the thread when there is a result to take.
    """

    def __init__(self, exists: Callable[[JobKey], bool], on_result: Callable[[JobKey], None]) -> None:
        self._exists = exists
        self._on_result = on_result
        self._requested: queue.SimpleQueue[JobKey | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._results: dict[JobKey, bool | Exception | None] = {}  # None: under way
        self._thread: threading.Thread | None = None

    def result(self, key: JobKey) -> bool | Exception | None:
        """Return the result without waiting; None if there is none yet. Starts a lookup if none is under way."""
        with self._lock:
            if key in self._results:
                result = self._results[key]
                if result is not None:
                    del self._results[key]
                return result
            self._results[key] = None
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="kubernetes-lookup", daemon=True)
                self._thread.start()
        self._requested.put(key)
        return None

    def forget(self, key: JobKey) -> None:
        """Drop the result of a Job that is no longer polled."""
        with self._lock:
            self._results.pop(key, None)

    def stop(self) -> None:
        """Stop the thread, without waiting for a request under way."""
        self._requested.put(None)

    def _run(self) -> None:
        while (key := self._requested.get()) is not None:
            try:
                result: bool | Exception = self._exists(key)
            except Exception as error:
                logger.info("Lookup of Job %s/%s failed: %s", key.namespace, key.name, error)
                result = error
            with self._lock:
                if key in self._results:
                    self._results[key] = result
            self._on_result(key)
