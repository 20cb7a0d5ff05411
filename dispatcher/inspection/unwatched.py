"""Runs with infrastructure that no live worker watches, for ``doctor``. Nobody sees how they end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from dispatcher.inspection.explain import command_for
from dispatcher.inspection.finding import Finding, warning
from dispatcher.inspection.holders import owned_by_shard, shard_holders
from dispatcher.records.base import Records
from dispatcher.records.workers import WorkerInfo
from dispatcher.runs import indexes
from dispatcher.runs.record import Record

#: Open runs that are read at most, the oldest first.
MOST = 5000

_PORTION = 500


def examine_watching(records: Records, workers: Sequence[WorkerInfo]) -> Iterator[Finding]:
    """Check whether live workers hold the shards of the open runs. Yields one finding for each place without any.

    Args:
        records: the runs, and the leases of shards.
        workers: the live workers.
    """
    ids = [run_id for run_id, _ in records.runs.members(indexes.OPEN, limit=MOST)]
    families: dict[str, list[Record]] = defaultdict(list)
    live = {worker.id for worker in workers}
    for start in range(0, len(ids), _PORTION):
        runs = [record for record in records.runs.get_many(ids[start : start + _PORTION]) if record is not None]
        watched = [record for record in runs if owned_by_shard(record)]
        holders = shard_holders(records, watched)
        for record in watched:
            if holders.get(record.owner) not in live:
                families[record.owner.rpartition("/")[0]].append(record)
    for family, unwatched in sorted(families.items()):
        first = unwatched[0]
        count = f"{len(unwatched)} runs" if len(unwatched) > 1 else "1 run"
        text = (
            f"{count} of {family} {'are' if len(unwatched) > 1 else 'is'} watched by no live worker, such as {first.id}"
        )
        yield warning("watching", text, f"start one: `{command_for(first.spec.route, first.owner)}`")
