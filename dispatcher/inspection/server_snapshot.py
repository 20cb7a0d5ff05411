"""A snapshot of a server: its queues, workers and counters. Used by ``dispatcher status``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dispatcher.inspection.queues import QueueInfo, queues
from dispatcher.records.base import Records
from dispatcher.records.rejections import Rejected, Tally
from dispatcher.records.workers import WorkerInfo
from dispatcher.runs import indexes


@dataclass(frozen=True)
class ServerSnapshot:
    """The queues, workers and counters of a server, at its time ``now`` in seconds since the epoch."""

    instance: str
    now: float
    open_runs: int
    queues: tuple[QueueInfo, ...]
    workers: tuple[WorkerInfo, ...]
    refused: Mapping[Rejected, Tally]


def take_snapshot(records: Records) -> ServerSnapshot:
    """Read queues, workers and counters; workers are sorted by their start."""
    return ServerSnapshot(
        instance=records.instance,
        now=records.runs.now(),
        open_runs=records.runs.count(indexes.OPEN),
        queues=tuple(queues(records)),
        workers=tuple(sorted(records.workers.live(), key=lambda worker: worker.started_at)),
        refused=records.rejections.tallies(),
    )
