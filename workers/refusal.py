"""The end of a run whose signature isn't valid. For tasks, sweeps and provisioning, whichever finds one."""

from __future__ import annotations

import logging

from dispatcher.records.base import Records
from dispatcher.records.rejections import Rejected, count_rejection
from dispatcher.runs import transitions
from dispatcher.runs.change import Change
from dispatcher.runs.record import Record
from dispatcher.support.log_throttle import LogThrottle

logger = logging.getLogger(__name__)
_throttle = LogThrottle(logger)


def refusal(records: Records, record: Record, now: float) -> Change | None:
    """Return the change that ends a run whose signature isn't valid, and count it; None if it is, or the run has ended.

    Args:
        records: check the signature, and count.
        record: the run.
        now: the server's clock, in seconds since the epoch.
    """
    problem = records.runs.vet(record, now)
    change = transitions.refuse(record, now, reason="SealBroken", message=problem) if problem else None
    if change is not None:
        count_rejection(records.rejections, Rejected.RUN)
        _throttle.warn(f"Run {record.id} is refused", problem, kind=problem.replace(record.id, "…"))
    return change
