"""Sweep of runs that have waited until their signature expired: no worker may start them, so they end with the reason.

A queue that is served doesn't need it: a worker finds the same when it rings again, or takes the run.
"""

from __future__ import annotations

import logging

from dispatcher.errors import Malformed
from dispatcher.records.base import Records
from dispatcher.runs import indexes
from dispatcher.runs.change import Change
from dispatcher.runs.record import Record
from dispatcher.runs.states import State
from workers.refusal import refusal
from workers.updates import try_update

logger = logging.getLogger(__name__)

#: Seconds since its last doorbell from which on a waiting run is examined: every signature holds for longer.
MIN_WAIT = 3600.0

#: Runs of one queue read at once, longest waiting first. If none of them has expired, no more are read.
PAGE = 50


def sweep_signatures(records: Records) -> int:
    """End waiting runs whose signature has expired, or never was valid. Return their number."""
    ended = 0
    for queue in records.queues.known():
        try:
            ended += _sweep_queue(records, queue)
        except Malformed as error:
            logger.warning("Queue %s is skipped: %s", queue, error)
    return ended


def _sweep_queue(records: Records, queue: str) -> int:
    ended = 0
    while True:
        until = records.runs.now() - MIN_WAIT
        waiting = records.runs.members(indexes.waiting(queue), until=until, limit=PAGE)
        refused = sum(_refuse(records, run_id) for run_id, _ in waiting)
        ended += refused
        if not refused or len(waiting) < PAGE:
            return ended


def _refuse(records: Records, run_id: str) -> bool:
    """End a run if its signature isn't valid. Return True if it has ended."""

    def step(record: Record, now: float) -> Change | None:
        waits = record.state is State.QUEUED and records.runs.knows(record)
        return refusal(records, record, now) if waits else None

    record = try_update(records.runs.update, run_id, step)
    return record is not None and record.terminal
