"""The end of a run that nobody may act upon. For whoever in the engine finds one: tasks, sweeps, provisioning."""

from __future__ import annotations

import logging

from dispatcher.records.base import Records
from dispatcher.records.rejections import Rejected, count_rejection
from dispatcher.runs import transitions
from dispatcher.runs.change import Change
from dispatcher.runs.record import Record

logger = logging.getLogger(__name__)


def refusal(records: Records, record: Record, now: float) -> Change | None:
    """The step that ends a run whose signature doesn't hold, counted; None where it holds, or the run has ended.

    Args:
        records: check the signature, and count.
        record: the run.
        now: the server's clock, in seconds since the epoch.
    """
    why = records.runs.vet(record, now)
    change = transitions.refuse(record, now, reason="SealBroken", message=why) if why else None
    if change is not None:
        count_rejection(records.rejections, Rejected.RUN)
        logger.warning("run %s: refused: %s", record.id, why)
    return change
