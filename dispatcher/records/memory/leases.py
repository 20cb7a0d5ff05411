"""Leases in this process."""

from __future__ import annotations

from dispatcher.records.leases import Lease, Leases
from dispatcher.records.memory.shared import SharedState


class MemoryLeases(Leases):
    """Leases by name. A released lease keeps its epoch, with an empty owner."""

    def __init__(self, shared: SharedState) -> None:
        self._shared = shared
        self._leases: dict[str, Lease] = {}

    def acquire(self, name: str, owner: str, *, expected: Lease | None) -> Lease | None:
        with self._shared.changed:
            stored = self._leases.get(name) or Lease(name=name, owner="", epoch=0)
            if stored.owner == owner and (expected is None or stored.epoch == expected.epoch + 1):
                return stored
            before = "" if expected is None else expected.owner
            if stored.owner != before or (expected is not None and stored.epoch != expected.epoch):
                return None
            taken = Lease(name=name, owner=owner, epoch=stored.epoch + 1)
            self._leases[name] = taken
            return taken

    def release(self, lease: Lease) -> None:
        with self._shared.changed:
            if self._leases.get(lease.name) == lease:
                self._leases[lease.name] = Lease(name=lease.name, owner="", epoch=lease.epoch)

    def held(self, prefix: str) -> dict[str, Lease]:
        with self._shared.changed:
            return {name: lease for name, lease in self._leases.items() if lease.owner and name.startswith(prefix)}
