"""Records in this process, for ``memory://`` and for tests: the same steps and the same answers as on a server."""

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
from dispatcher.records.memory.runs import Beside, MemoryRuns
from dispatcher.records.memory.shared import Shared
from dispatcher.records.memory.users import MemoryUsers
from dispatcher.records.memory.workers import MemoryWorkers

__all__ = ["open_memory"]


def open_memory(*, clock: Callable[[], float] = time.time, bell: Bell | None = None) -> Records:
    """Empty records in this process, usable from many threads.

    Args:
        clock: gives seconds since the epoch; stands for the server's clock.
        bell: rings doorbells, always by :meth:`Bell.publish`; none rings nothing.
    """
    shared = Shared(clock)
    beside = Beside(
        blobs=MemoryBlobs(shared),
        logs=MemoryLogs(shared),
        events=MemoryEvents(shared),
        queues=MemoryQueues(shared),
        leases=MemoryLeases(shared),
        workers=MemoryWorkers(shared),
        inbox=MemoryInbox(shared),
    )
    runs = MemoryRuns(shared, beside, bell=bell)
    return Records(
        instance=secrets.token_hex(4),
        runs=runs,
        blobs=beside.blobs,
        logs=beside.logs,
        events=beside.events,
        workers=beside.workers,
        leases=beside.leases,
        queues=beside.queues,
        inbox=beside.inbox,
        rejections=MemoryRejections(shared),
        users=MemoryUsers(shared),
        close=beside.events.close,
    )
