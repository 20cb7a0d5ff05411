"""Leases of shards, by which supervisors share the runs of a backend.

The rules common to all interfaces stand in :mod:`dispatcher.records.base`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The lease of a shard: its holder, and its epoch, which grows with each new holder."""

    name: str
    owner: str
    epoch: int


class Leases(ABC):
    """Leases of shards. A lease lasts as long as its owner's heartbeats."""

    @abstractmethod
    def acquire(self, name: str, owner: str, *, expected: Lease | None) -> Lease | None:
        """Take the lease of a shard if it is unchanged, with the next epoch; return None if it changed.

        Args:
            name: of the shard.
            owner: the new holder.
            expected: the lease as the caller read it; None if nobody held it.
        """

    @abstractmethod
    def release(self, lease: Lease) -> None:
        """Give a lease back, if it is unchanged."""

    @abstractmethod
    def held(self, prefix: str) -> dict[str, Lease]:
        """Return the leases that have a holder, by name, for names that start with ``prefix``."""
