"""Blobs in this process."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from dispatcher.records.blobs import Blobs
from dispatcher.records.effects import STRAY, UNUSED_BLOB
from dispatcher.records.memory.shared import Shared


@dataclass
class _Shared:
    data: bytes
    users: int
    until: float  #: kept so long without users


@dataclass
class _Owned:
    data: bytes
    until: float | None  #: None: as long as its run's record


class MemoryBlobs(Blobs):
    """Bytes in dictionaries; what is out of date is dropped when it is looked at."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._common: dict[str, _Shared] = {}
        self._owned: dict[str, dict[str, _Owned]] = {}
        self._runs: set[str] = set()

    def share(self, data: bytes, digest: str = "") -> str:
        digest = digest or hashlib.sha256(data).hexdigest()
        with self._shared.changed:
            until = self._shared.clock() + UNUSED_BLOB
            blob = self._common.setdefault(digest, _Shared(bytes(data), 0, until))
            blob.until = until
        return digest

    def own(self, run_id: str, name: str, data: bytes) -> str:
        with self._shared.changed:
            until = None if run_id in self._runs else self._shared.clock() + STRAY
            self._owned.setdefault(run_id, {})[name] = _Owned(bytes(data), until)
        return f"{run_id}/{name}"

    def get(self, name: str) -> bytes:
        with self._shared.changed:
            self._drop_old()
            run_id, slash, own = name.partition("/")
            return self._owned[run_id][own].data if slash else self._common[name].data

    def has(self, name: str) -> bool:
        try:
            self.get(name)
        except KeyError:
            return False
        return True

    def missing(self, names: Iterable[str]) -> list[str]:
        """Return those of these shared blobs that aren't there."""
        return [name for name in dict.fromkeys(names) if not self.has(name)]

    def adopt(self, run_id: str, names: Iterable[str]) -> None:
        """A run was accepted that refers to ``names``."""
        self._runs.add(run_id)
        for name in names:
            self._common[name].users += 1

    def free(self, names: Iterable[str]) -> None:
        """A run that refers to ``names`` has ended."""
        for name in names:
            if (blob := self._common.get(name)) is not None:
                blob.users -= 1
                blob.until = max(blob.until, self._shared.clock() + UNUSED_BLOB)

    def purge(self, run_id: str) -> None:
        """Drop what belongs to a run."""
        self._runs.discard(run_id)
        self._owned.pop(run_id, None)

    def count(self) -> int:
        """Count the blobs that are kept now."""
        with self._shared.changed:
            self._drop_old()
            return len(self._common) + sum(len(names) for names in self._owned.values())

    def _drop_old(self) -> None:
        now = self._shared.clock()
        for digest in [d for d, blob in self._common.items() if blob.users <= 0 and blob.until <= now]:
            del self._common[digest]
        for run_id, names in list(self._owned.items()):
            for name in [n for n, blob in names.items() if blob.until is not None and blob.until <= now]:
                del names[name]
            if not names:
                del self._owned[run_id]
