"""The supervisors of a worker, one per container backend, on one thread with a connection of its own.

A second thread waits for reports of runners and wakes the first.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dispatcher import registry
from dispatcher.errors import LeasePassed, ServerUnavailable
from dispatcher.records.base import Records
from dispatcher.serialization import KeyRing
from dispatcher.settings import Settings
from dispatcher.support.log_throttle import LogThrottle
from dispatcher.support.tracebacks import described, is_defect
from workers.backend_cache import BackendCache
from workers.execution.provisioning import Provisioner
from workers.identity import Identity
from workers.reconciler.dead_workers import DeadWorkers
from workers.supervisor.supervisor import Supervisor

logger = logging.getLogger(__name__)

#: Seconds between two ticks, at least, so that several changes are handled together.
MIN_TICK_INTERVAL = 0.05

#: Seconds for which one wait for reports lasts at most, since the shards held may change.
REPORT_WAIT = 1.0

#: Seconds until the next check for reports while no shard is held.
NO_SHARDS_INTERVAL = 0.2


def supervised(backends: frozenset[str]) -> list[str]:
    """Return those of ``backends`` whose runs start elsewhere."""
    return sorted(name for name in backends if not registry.backend(name).in_process)


class SupervisorManager:
    """Ticks the supervisors. Each is created at the first round that can."""

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
        self._provisioner: Provisioner | None = None
        self._supervisors: list[Supervisor] = []
        self._supervised: set[str] = set()  # names of their backends
        self._throttle = LogThrottle(logger)
        self._dead_workers: DeadWorkers | None = None
        self._next_round = 0.0
        self._last_tick = 0.0
        self._ticked = threading.Event()
        self.wake: Callable[[], None] = lambda: None  #: wakes the thread that ticks

    @property
    def held(self) -> list[str]:
        """Names of all shards held."""
        return [shard for supervisor in self._supervisors for shard in supervisor.held]

    def tick(self) -> float:
        """Run a round of every supervisor if it is due, else a tick. Return the seconds until the next call."""
        time.sleep(max(0.0, self._last_tick + MIN_TICK_INTERVAL - time.monotonic()))
        try:
            records = self._connected()
            if time.monotonic() >= self._next_round:
                self._next_round = time.monotonic() + self._settings.timing.poll
                self._round(records)
            else:
                self._tick_supervisors()
        except ServerUnavailable:
            for supervisor in self._supervisors:
                supervisor.note_outage()
            raise
        finally:
            self._last_tick = time.monotonic()
            self._next_round = max(self._next_round, self._last_tick + MIN_TICK_INTERVAL)
            self._ticked.set()
        waits = (supervisor.next_in for supervisor in self._supervisors)
        return min([max(0.0, self._next_round - time.monotonic()), *waits])

    def cancel_requested(self, shard: str, run_id: str) -> None:
        """Have the supervisor of a shard read the record of a run that may have been cancelled. Safe from any
        thread."""
        for supervisor in self._supervisors:
            if shard in supervisor.held:
                supervisor.cancel_requested(run_id)

    def await_tick(self) -> None:
        """Wake the thread, and wait until it has ticked, for at most :data:`REPORT_WAIT` seconds."""
        self._ticked.clear()
        self.wake()
        self._ticked.wait(REPORT_WAIT)

    def close(self) -> None:
        """Release all shards, and close the backends and the connection."""
        if self._records is None:
            return
        for supervisor in self._supervisors:
            supervisor.leave()
        self._backends.close()
        self._records.close()

    def _round(self, records: Records) -> None:
        if self._dead_workers is not None:
            self._dead_workers.sweep()
            self._dead_workers.note_holders(holder for supervisor in self._supervisors for holder in supervisor.holders)
        live = {info.id: info for info in records.workers.live(within=self._settings.timing.lease)}
        dead = self._dead_workers.dead if self._dead_workers else frozenset()
        self._add_supervisors()
        for supervisor in self._supervisors:
            family = supervisor.family
            peers = (worker for worker, info in live.items() if family in info.data.get("supervises", ()))
            with self._isolated(f"the supervisor of {family}"):
                supervisor.round(peers, dead)

    def _tick_supervisors(self) -> None:
        """Tick all. A defect of one backend is no other's; its next round is soon."""
        for supervisor in self._supervisors:
            with self._isolated(f"the supervisor of {supervisor.family}"):
                supervisor.tick()

    def _add_supervisors(self) -> None:
        """Create the supervisors that are missing: all at first, then those whose backend couldn't be created."""
        if self._provisioner is None:
            return
        for name in supervised(self._identity.offer.backends):
            if name not in self._supervised:
                with self._isolated(f"backend {name}"):
                    self._supervisors.append(Supervisor(self._provisioner, self._backends(name), self.wake))
                    self._supervised.add(name)

    @contextmanager
    def _isolated(self, subject: str) -> Iterator[None]:
        """Log an unforeseen error of one backend, so that the others' runs are supervised.

        Raises:
            ServerUnavailable, LeasePassed: unchanged, because they concern all.
        """
        try:
            yield
        except (ServerUnavailable, LeasePassed):
            raise
        except Exception as error:
            reason = described(error)
            if self._throttle.due(f"{subject} {reason}") is not None:
                logger.error("Error in %s, which is tried again: %s", subject, reason, exc_info=is_defect(error))

    def _connected(self) -> Records:
        if self._records is None:
            records = self._open()
            self._dead_workers = DeadWorkers(records, self._settings.timing, worker=self._identity.id)
            self._provisioner = Provisioner(
                records=records,
                keys=self._keys,
                settings=self._settings,
                backend=self._backends,
                owner=self._identity.id,
            )
            self._records = records
        return self._records


class ReportListener:
    """Waits for reports of the shards held, on a thread and a connection of its own."""

    def __init__(self, manager: SupervisorManager, open_records: Callable[[], Records]) -> None:
        self._manager = manager
        self._open = open_records
        self._records: Records | None = None

    def tick(self) -> float:
        """Wait for the next report, and until the supervisors have acted on it. Return the seconds to pause."""
        if self._records is None:
            self._records = self._open()
        shards = self._manager.held
        if not shards:
            return NO_SHARDS_INTERVAL
        if self._records.inbox.wait(shards, block=REPORT_WAIT):
            self._manager.await_tick()
        return 0.0

    def close(self) -> None:
        """Close the connection."""
        if self._records is not None:
            self._records.close()
