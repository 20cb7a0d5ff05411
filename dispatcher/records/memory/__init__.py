"""Records in this process, for ``memory://`` and for tests. They behave as those on a server do."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from dispatcher.records.base import Records
from dispatcher.records.bell import Bell
from dispatcher.records.memory.blobs import MemoryBlobs
from dispatcher.records.memory.events import MemoryEvents
from dispatcher.records.memory.inbox import MemoryInbox
from dispatcher.records.memory.leases import MemoryLeases
from dispatcher.records.memory.logs import MemoryLogs
from dispatcher.records.memory.queues import MemoryQueues
from dispatcher.records.memory.rejections import MemoryRejections
from dispatcher.records.memory.runs import MemoryRuns, Neighbors
from dispatcher.records.memory.shared import SharedState
from dispatcher.records.memory.static import MemoryStaticObjects
from dispatcher.records.memory.users import MemoryUsers
from dispatcher.records.memory.workers import MemoryWorkers

__all__ = ["open_memory"]


def open_memory(*, clock: Callable[[], float] = time.time, bell: Bell | None = None) -> Records:
    """Return empty records in this process, usable from many threads.

    Args:
        clock: returns seconds since the epoch; stands for the server's clock.
        bell: rings doorbells, always by :meth:`Bell.publish`; None rings nothing.
    """
    shared = SharedState(clock)
    neighbors = Neighbors(
        blobs=MemoryBlobs(shared),
        logs=MemoryLogs(shared),
        events=MemoryEvents(shared),
        queues=MemoryQueues(shared),
        leases=MemoryLeases(shared),
        workers=MemoryWorkers(shared),
        inbox=MemoryInbox(shared),
    )
    return Records(
        instance=secrets.token_hex(4),
        runs=MemoryRuns(shared, neighbors, bell=bell),
        blobs=neighbors.blobs,
        logs=neighbors.logs,
        events=neighbors.events,
        workers=neighbors.workers,
        leases=neighbors.leases,
        queues=neighbors.queues,
        inbox=neighbors.inbox,
        rejections=MemoryRejections(shared),
        users=MemoryUsers(shared),
        static=MemoryStaticObjects(shared),
        close=neighbors.events.close,
    )
