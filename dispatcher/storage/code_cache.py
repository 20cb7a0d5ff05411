"""Sealed code of flows that this process read last."""

from __future__ import annotations

import threading
from collections import OrderedDict


class CodeCache:
    """Code by its SHA-256. Bytes, not flows: each run gets a flow object of its own.

    Args:
        max_bytes: size of the cache.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, digest: str) -> bytes | None:
        with self._lock:
            if digest in self._entries:
                self._entries.move_to_end(digest)
            return self._entries.get(digest)

    def put(self, digest: str, data: bytes) -> None:
        """Add code whose digest was verified."""
        with self._lock:
            self._entries[digest] = data
            self._entries.move_to_end(digest)
            while sum(map(len, self._entries.values())) > self._max_bytes:
                self._entries.popitem(last=False)

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()


#: The cache of this process.
code_cache = CodeCache(max_bytes=64 * 2**20)
