"""The worker that is responsible for a run: its owner, or the holder of the shard that owns it."""

from __future__ import annotations

from collections.abc import Iterable

from dispatcher.records.base import Records
from dispatcher.runs.record import Record


def owned_by_shard(record: Record) -> bool:
    """Return True if a shard owns a run, and not a worker: its infrastructure is watched."""
    return bool(record.owner) and record.owner == str((record.request or {}).get("shard", ""))


def shard_holders(records: Records, runs: Iterable[Record]) -> dict[str, str]:
    """Return the ids of the workers that hold the shards which own these runs, by the shard's name.

    A shard that nobody holds is missing. Nothing is read where no shard owns one of them.

    Raises:
        ServerUnavailable: the server can't be reached.
    """
    shards = {record.owner for record in runs if owned_by_shard(record)}
    if not shards:
        return {}
    held = records.leases.held("")
    return {shard: held[shard].owner for shard in shards if shard in held}
