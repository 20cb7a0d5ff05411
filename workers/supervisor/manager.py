"""The supervisors of one worker, one per container backend that it serves, on one thread with its own connection; a
second thread waits for reports and wakes it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from dispatcher import registry
from dispatcher.errors import ServerUnavailable
from dispatcher.records.base import Records
from dispatcher.serialization import KeyRing
from dispatcher.settings import Settings
from workers.backend_cache import BackendCache
from workers.execution.provisioning import Provisioner
from workers.identity import Identity
from workers.reconciler.dead_workers import DeadWorkers
from workers.supervisor.supervisor import Supervisor

#: Seconds between two ticks, at least: what comes meanwhile is done together.
BREATH = 0.05

#: Seconds that one wait for reports takes at most: the shards held may change.
LISTEN = 1.0


def supervised(backends: frozenset[str]) -> list[str]:
    """Those of ``backends`` whose runs start elsewhere."""
    return sorted(name for name in backends if not registry.backend(name).in_process)


class SupervisorManager:
    """Ticks the supervisors; opened at the first tick."""

    def __init__(
        self,
        settings: Settings,
        keys: KeyRing,
        identity: Identity,
        backends: BackendCache,
        open_records: Callable[[], Records],
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._identity = identity
        self._open = open_records
        self._records: Records | None = None
        self._backends = backends
        self._supervisors: list[Supervisor] = []
        self._leases: DeadWorkers | None = None
        self._next = 0.0
        self._ended = 0.0
        self._ticked = threading.Event()
        self.wake: Callable[[], None] = lambda: None  #: wakes the thread that ticks

    @property
    def held(self) -> list[str]:
        """Names of all shards held."""
        return [shard for one in self._supervisors for shard in one.held]

    def tick(self) -> float:
        """One round of every supervisor if it is due, else what has changed; the seconds until the next round."""
        time.sleep(max(0.0, self._ended + BREATH - time.monotonic()))
        try:
            records = self._opened()
            if time.monotonic() >= self._next:
                self._next = time.monotonic() + self._settings.timing.poll
                self._round(records)
                again = None
            else:
                again = min((soon for one in self._supervisors if (soon := one.tick()) is not None), default=None)
        except ServerUnavailable:
            for supervisor in self._supervisors:
                supervisor.deaf()
            raise
        finally:
            self._ended = time.monotonic()
            self._next = max(self._next, self._ended + BREATH)
            self._ticked.set()
        wait = max(0.0, self._next - time.monotonic())
        return wait if again is None else min(wait, again)

    def cancelled(self, shard: str, run_id: str) -> None:
        """A run of a shard is said to be cancelled: who holds the shard looks at it. Safe from any thread."""
        for supervisor in self._supervisors:
            if shard in supervisor.held:
                supervisor.cancelled(run_id)

    def await_tick(self) -> None:
        """Wait until what was there before is done, for a second at most."""
        self._ticked.clear()
        self.wake()
        self._ticked.wait(LISTEN)

    def close(self) -> None:
        """Give all shards back."""
        if self._records is None:
            return
        for supervisor in self._supervisors:
            supervisor.leave()
        self._backends.close()
        self._records.close()

    def _round(self, records: Records) -> None:
        if self._leases is not None:
            self._leases.sweep()
            self._leases.note_holders(holder for one in self._supervisors for holder in one.holders)
        live = {info.id: info for info in records.workers.live(within=self._settings.timing.lease)}
        dead = self._leases.dead if self._leases else frozenset()
        for supervisor in self._supervisors:
            family = supervisor.family
            alive = (worker for worker, info in live.items() if family in info.data.get("supervises", ()))
            supervisor.round(alive, dead)

    def _opened(self) -> Records:
        if self._records is None:
            records = self._open()
            self._leases = DeadWorkers(records, self._settings.timing, worker=self._identity.id)
            provisioner = Provisioner(
                records=records,
                keys=self._keys,
                settings=self._settings,
                backend=self._backends,
                owner=self._identity.id,
            )
            names = supervised(self._identity.offer.backends)
            self._supervisors = [Supervisor(provisioner, self._backends(name), self.wake) for name in names]
            self._records = records
        return self._records


class ReportListener:
    """Waits for reports of the shards held; on a thread and a connection of its own."""

    def __init__(self, supervision: SupervisorManager, open_records: Callable[[], Records]) -> None:
        self._supervision = supervision
        self._open = open_records
        self._records: Records | None = None

    def tick(self) -> float:
        """Wait for the next report, and for the supervisor to have acted on it."""
        if self._records is None:
            self._records = self._open()
        shards = self._supervision.held
        if not shards:
            return LISTEN / 5
        if self._records.inbox.wait(shards, block=LISTEN):
            self._supervision.await_tick()
        return 0.0

    def close(self) -> None:
        """Close the connection."""
        if self._records is not None:
            self._records.close()
