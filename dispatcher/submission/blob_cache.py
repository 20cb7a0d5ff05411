"""A cache in front of the blobs, so that 10,000 submits of one flow send its code once. Used by the client."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable

from dispatcher.records.blobs import Blobs

#: Seconds for which a shared blob isn't sent again. The server keeps it for at least an hour.
RESEND_AFTER = 1800.0

#: Digests remembered. When there are more, all are dropped and sent again.
MOST_REMEMBERED = 1000


class BlobCache(Blobs):
    """Share bytes, except those that were sent a short while ago.

    Args:
        blobs: where they are kept.
        clock: monotonic seconds.
    """

    def __init__(self, blobs: Blobs, clock: Callable[[], float] = time.monotonic) -> None:
        self._blobs = blobs
        self._clock = clock
        self._sent: dict[str, float] = {}
        self._lock = threading.Lock()

    def share(self, data: bytes, digest: str = "") -> str:
        digest = digest or hashlib.sha256(data).hexdigest()
        now = self._clock()
        with self._lock:
            if now - self._sent.get(digest, -RESEND_AFTER) < RESEND_AFTER:
                return digest
        digest = self._blobs.share(data, digest)
        with self._lock:
            if len(self._sent) > MOST_REMEMBERED:
                self._sent.clear()
            self._sent[digest] = now
        return digest

    def forget(self) -> None:
        """Send everything again from now on, because the server has lost something."""
        with self._lock:
            self._sent.clear()

    def get(self, name: str) -> bytes:
        return self._blobs.get(name)

    def own(self, run_id: str, name: str, data: bytes) -> str:
        return self._blobs.own(run_id, name, data)

    def has(self, name: str) -> bool:
        return self._blobs.has(name)
