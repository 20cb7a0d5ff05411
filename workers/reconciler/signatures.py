"""Runs that have waited until their signature expired: no worker may start them any more, so they end and say so.

A queue that is served needs none of this: a worker finds the same when it rings again, or takes the run.
"""

from __future__ import annotations

import logging
from contextlib import suppress

from dispatcher.errors import Malformed, Refused, UnknownRun
from dispatcher.records.base import Records
from dispatcher.runs import indexes
from dispatcher.runs.change import Change
from dispatcher.runs.record import Record
from dispatcher.runs.states import State
from workers.refusal import refusal

logger = logging.getLogger(__name__)

#: Seconds since its doorbell was last rung from which on a waiting run is looked at: no signature holds for less.
LEAST = 3600.0

#: Runs of one queue read at once, those that wait longest first; where none of them has expired, no more are read.
PAGE = 50


def sweep_signatures(records: Records) -> int:
    """End waiting runs whose signature has expired, or never held; how many."""
    ended = 0
    for queue in records.queues.known():
        try:
            ended += _sweep_queue(records, queue)
        except Malformed as error:
            logger.warning("queue %s is left out: %s", queue, error)
    return ended


def _sweep_queue(records: Records, queue: str) -> int:
    ended = 0
    while True:
        until = records.runs.now() - LEAST
        waiting = records.runs.members(indexes.waiting(queue), until=until, limit=PAGE)
        refused = sum(_refused(records, run_id) for run_id, _ in waiting)
        ended += refused
        if not refused or len(waiting) < PAGE:
            return ended


def _refused(records: Records, run_id: str) -> bool:
    def step(record: Record, now: float) -> Change | None:
        waits = record.state is State.QUEUED and records.runs.knows(record)
        return refusal(records, record, now) if waits else None

    with suppress(Refused, UnknownRun):
        return records.runs.update(run_id, step).terminal
    return False
