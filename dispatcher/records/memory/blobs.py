"""Blobs in this process."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from dispatcher.records.blobs import Blobs
from dispatcher.records.effects import STRAY, UNUSED_BLOB
from dispatcher.records.memory.shared import SharedState


@dataclass
class _CommonBlob:
    data: bytes
    references: int
    until: float  #: when it expires without references


@dataclass
class _OwnBlob:
    data: bytes
    until: float | None  #: None: kept as long as its run's record


class MemoryBlobs(Blobs):
    """Bytes in dictionaries; expired blobs are dropped on access."""

    def __init__(self, shared: SharedState) -> None:
        self._shared = shared
        self._common: dict[str, _CommonBlob] = {}
        self._owned: dict[str, dict[str, _OwnBlob]] = {}
        self._runs: set[str] = set()

    def share(self, data: bytes, digest: str = "") -> str:
        digest = digest or hashlib.sha256(data).hexdigest()
        with self._shared.changed:
            until = self._shared.clock() + UNUSED_BLOB
            blob = self._common.setdefault(digest, _CommonBlob(bytes(data), 0, until))
            blob.until = until
        return digest

    def own(self, run_id: str, name: str, data: bytes) -> str:
        with self._shared.changed:
            until = None if run_id in self._runs else self._shared.clock() + STRAY
            self._owned.setdefault(run_id, {})[name] = _OwnBlob(bytes(data), until)
        return f"{run_id}/{name}"

    def get(self, name: str) -> bytes:
        with self._shared.changed:
            self._drop_expired()
            run_id, slash, own = name.partition("/")
            return self._owned[run_id][own].data if slash else self._common[name].data

    def has(self, name: str) -> bool:
        try:
            self.get(name)
        except KeyError:
            return False
        return True

    def missing(self, names: Iterable[str]) -> list[str]:
        """Return the missing ones of these shared blobs."""
        return [name for name in dict.fromkeys(names) if not self.has(name)]

    def adopt(self, run_id: str, names: Iterable[str]) -> None:
        """Add the references of an accepted run to ``names``."""
        self._runs.add(run_id)
        for name in names:
            self._common[name].references += 1

    def free(self, names: Iterable[str]) -> None:
        """Remove the references of an ended run to ``names``."""
        for name in names:
            if (blob := self._common.get(name)) is not None:
                blob.references -= 1
                blob.until = max(blob.until, self._shared.clock() + UNUSED_BLOB)

    def purge(self, run_id: str) -> None:
        """Drop the own blobs of a run."""
        self._runs.discard(run_id)
        self._owned.pop(run_id, None)

    def count(self) -> int:
        """Count all blobs."""
        with self._shared.changed:
            self._drop_expired()
            return len(self._common) + sum(len(names) for names in self._owned.values())

    def _drop_expired(self) -> None:
        now = self._shared.clock()
        for digest in [d for d, blob in self._common.items() if blob.references <= 0 and blob.until <= now]:
            del self._common[digest]
        for run_id, names in list(self._owned.items()):
            for name in [n for n, blob in names.items() if blob.until is not None and blob.until <= now]:
                del names[name]
            if not names:
                del self._owned[run_id]
