"""Lookups of what no watch shows, on a thread of their own, so that a slow API server never delays an observation."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

from backends.kubernetes.handle import JobKey

logger = logging.getLogger(__name__)

#: Seconds for which the failure of a lookup stands, before the next one.
FAILURE_KEPT = 2.0

#: Looks up the objects of a Job, and stores them. An exception that it raises is the lookup's result.
Call = Callable[[], None]


class Lookups:
    """Makes lookups, one at a time.

    Args:
        on_result: called on the thread when a lookup has ended.
    """

    def __init__(self, on_result: Callable[[JobKey], None]) -> None:
        self._on_result = on_result
        self._requested: queue.SimpleQueue[tuple[JobKey, Call] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._pending: set[JobKey] = set()
        self._failures: dict[JobKey, tuple[float, Exception]] = {}
        self._thread: threading.Thread | None = None

    def request(self, key: JobKey, call: Call) -> Exception | None:
        """Request a lookup, unless one of this Job is under way. Return at once: the failure of the last one, if that
        was a moment ago or the next is still under way."""
        with self._lock:
            failed_at, failure = self._failures.get(key, (0.0, None))
            if key in self._pending or (failure is not None and time.monotonic() - failed_at < FAILURE_KEPT):
                return failure
            self._pending.add(key)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="kubernetes-lookup", daemon=True)
                self._thread.start()
        self._requested.put((key, call))
        return failure

    def forget(self, key: JobKey) -> None:
        """Drop the failure of a Job that is no longer polled."""
        with self._lock:
            self._failures.pop(key, None)

    def stop(self) -> None:
        """Stop the thread, without waiting for a request under way."""
        self._requested.put(None)

    def _run(self) -> None:
        while (requested := self._requested.get()) is not None:
            key, call = requested
            failure: Exception | None = None
            try:
                call()
            except Exception as error:
                logger.info("Lookup of Job %s/%s failed: %s", key.namespace, key.name, error)
                failure = error
            with self._lock:
                self._pending.discard(key)
                self._failures.pop(key, None)
                if failure is not None:
                    self._failures[key] = time.monotonic(), failure
            self._on_result(key)
