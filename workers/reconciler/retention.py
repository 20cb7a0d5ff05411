"""Sweep of what is no longer needed: runs past their retention, and unused queues. Also repairs the event stream."""

from __future__ import annotations

import logging

from dispatcher.records.base import Records
from dispatcher.settings import TimingSettings
from dispatcher.support.escaping import counted
from dispatcher.support.failpoints import failpoint

logger = logging.getLogger(__name__)

#: Runs removed at once.
PAGE = 1000

#: Queues named in the log.
LOGGED_QUEUES = 10


def sweep_retention(records: Records, timing: TimingSettings) -> None:
    """Remove runs past their retention and unused queues, and repair the stream of all events."""
    records.events.repair()
    while removed := records.runs.purge(limit=PAGE):
        failpoint("retention.purged")
        logger.info("Removed %s past their retention", counted(removed, "run"))
        if removed < PAGE:
            break
    if retired := records.queues.retire(unused_for=timing.queue_unused):
        logger.info("Retired unused queues: %s", ", ".join(retired[:LOGGED_QUEUES]))
