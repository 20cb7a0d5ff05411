"""The supervisors of one worker, one per container backend that it serves, on one thread with its own connection."""

from __future__ import annotations

from collections.abc import Callable

from dispatcher import registry
from dispatcher.payload import KeyRing
from dispatcher.records.base import Records
from dispatcher.settings import Settings
from workers.backends import Backends
from workers.identity import Identity
from workers.provisioning import Provisioner
from workers.reconciler.leases import Leases
from workers.supervisor.supervisor import Supervisor


def supervised(backends: frozenset[str]) -> list[str]:
    """Those of ``backends`` whose runs start elsewhere."""
    return sorted(name for name in backends if not registry.backend(name).in_process)


class Supervision:
    """Ticks the supervisors; opened at the first tick."""

    def __init__(
        self, settings: Settings, keys: KeyRing, identity: Identity, open_records: Callable[[], Records]
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._identity = identity
        self._open = open_records
        self._records: Records | None = None
        self._supervisors: list[Supervisor] = []
        self._leases: Leases | None = None

    def tick(self) -> float:
        """One round of every supervisor; the seconds until the next."""
        records = self._opened()
        if self._leases is not None:
            self._leases.sweep()
            self._leases.note_holders(holder for one in self._supervisors for holder in one.holders)
        live = {info.id: info.offer.backends for info in records.workers.live(within=self._settings.timing.lease)}
        dead = self._leases.dead if self._leases else frozenset()
        for supervisor in self._supervisors:
            supervisor.tick((worker for worker, offer in live.items() if supervisor.backend in offer), dead)
        return self._settings.timing.poll

    def close(self) -> None:
        """Give all shards back."""
        if self._records is None:
            return
        for supervisor in self._supervisors:
            supervisor.leave()
        self._records.close()

    def _opened(self) -> Records:
        if self._records is None:
            records = self._open()
            self._leases = Leases(records, self._settings.timing, worker=self._identity.id)
            backends = Backends(self._settings)
            provisioner = Provisioner(
                records=records,
                keys=self._keys,
                settings=self._settings,
                backend=backends,
                owner=self._identity.id,
            )
            names = supervised(self._identity.offer.backends)
            self._supervisors = [Supervisor(provisioner, backends(name)) for name in names]
            self._records = records
        return self._records
