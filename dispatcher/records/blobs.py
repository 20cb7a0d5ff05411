"""Blobs: flows, parameters and results too large for a record. Rules common to all interfaces:
:mod:`dispatcher.records.base`."""

from __future__ import annotations

from abc import ABC, abstractmethod


class Blobs(ABC):
    """Bytes by name: shared ones by content (SHA-256 in hex), counted; and those of one run, which go with it."""

    @abstractmethod
    def share(self, data: bytes, digest: str = "") -> str:
        """Keep ``data`` and give its digest; kept for an hour at least, then as long as a run refers to it.

        Args:
            data: the bytes.
            digest: theirs, where the caller has it already: to find it takes as long as to send them.
        """

    @abstractmethod
    def own(self, run_id: str, name: str, data: bytes) -> str:
        """Keep ``data`` with a run; the blob's name. Kept for a day at least, and to the end of retention if the
        run's outcome names it."""

    @abstractmethod
    def get(self, name: str) -> bytes:
        """The bytes.

        Raises:
            KeyError: there is no such blob.
        """

    @abstractmethod
    def has(self, name: str) -> bool:
        """Return True if there is such a blob."""
