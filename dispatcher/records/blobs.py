"""Blobs: flows, parameters and results that don't fit into a record.

The rules common to all interfaces stand in :mod:`dispatcher.records.base`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod


class Blobs(ABC):
    """Bytes by name: shared blobs, named by content (SHA-256 in hex) and counted; and a run's own, removed with it."""

    @abstractmethod
    def share(self, data: bytes, digest: str = "") -> str:
        """Store a shared blob and return its digest. It is kept for an hour, then while a run refers to it.

        Args:
            data: the bytes.
            digest: of ``data``, if the caller has it already: computing it takes as long as sending them.
        """

    @abstractmethod
    def own(self, run_id: str, name: str, data: bytes) -> str:
        """Store a blob of a run and return its name. It is kept for a day, then as long as the run's record."""

    @abstractmethod
    def get(self, name: str) -> bytes:
        """Return the bytes of a blob.

        Raises:
            KeyError: there is no such blob.
        """

    @abstractmethod
    def has(self, name: str) -> bool:
        """Return True if there is such a blob."""
