"""Everything that is kept of an installation, as one bundle of interfaces, one per noun.

The contract of each method is written once, on its interface (:mod:`dispatcher.records.runs` and its neighbours);
implementations in ``memory`` and ``redis`` don't repeat it. Rules common to all of them:

- Methods are synchronous and bounded in time.
- Every method raises :class:`~dispatcher.errors.ServerUnavailable` if the server can't be reached or refuses us.
- Every method is safe to repeat, and repeats itself after a lost reply: callers never retry for that reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dispatcher.records.blobs import Blobs
from dispatcher.records.events import Events
from dispatcher.records.inbox import Inbox
from dispatcher.records.leases import Leases
from dispatcher.records.logs import Logs
from dispatcher.records.queues import Queues
from dispatcher.records.rejections import Rejections
from dispatcher.records.runs import Runs
from dispatcher.records.users import Users
from dispatcher.records.workers import Workers


@dataclass(frozen=True, kw_only=True)
class Records:
    """All that is kept, together. ``instance`` is the installation's id, created once."""

    instance: str
    runs: Runs
    blobs: Blobs
    logs: Logs
    events: Events
    workers: Workers
    leases: Leases
    queues: Queues
    inbox: Inbox
    rejections: Rejections
    users: Users
    close: Callable[[], None]
