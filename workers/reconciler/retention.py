"""The end of retention, queues that nobody uses any more, and what keeps events from being kept."""

from __future__ import annotations

import logging

from dispatcher.records.base import Records
from dispatcher.settings import TimingSettings
from dispatcher.support.escaping import counted
from dispatcher.support.failpoints import failpoint

logger = logging.getLogger(__name__)

#: Runs removed in one go.
PAGE = 1000


def sweep_retention(records: Records, timing: TimingSettings) -> None:
    """Remove runs whose retention is over, retire unused queues, and repair the stream of all events."""
    records.events.repair()
    while removed := records.runs.purge(limit=PAGE):
        failpoint("retention.purged")
        logger.info("past their retention and removed: %s", counted(removed, "run"))
        if removed < PAGE:
            break
    if retired := records.queues.retire(unused_for=timing.queue_unused):
        logger.info("unused queues were retired: %s", ", ".join(retired[:10]))
