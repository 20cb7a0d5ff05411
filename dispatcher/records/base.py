"""The records of an installation: all interfaces in one bundle.

Each interface stands in a file of its own beside this one, where the contract of each method is written once; read
:mod:`dispatcher.records.runs` first. Rules common to all of them:

- Methods are synchronous and bounded in time.
- Methods raise :class:`~dispatcher.errors.ServerUnavailable` if the server can't be reached or refuses us.
- Methods are safe to repeat, and repeat themselves after a lost reply, so that callers never need to.
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
from dispatcher.records.static import StaticObjects
from dispatcher.records.users import Users
from dispatcher.records.workers import Workers


@dataclass(frozen=True, kw_only=True)
class Records:
    """Records that belong together. ``instance`` is the installation's id, created once."""

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
    static: StaticObjects
    close: Callable[[], None]
