"""Leases of shards. The interface stands beside those of :mod:`dispatcher.records.base`, under the same contract."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The holder of a shard, and its epoch."""

    name: str
    owner: str
    epoch: int


class Leases(ABC):
    """Leases of shards; each ends with its owner's beat."""

    @abstractmethod
    def acquire(self, name: str, owner: str, *, seen: Lease | None) -> Lease | None:
        """Take ``name`` if its lease is still the one ``seen`` (None: nobody's); epoch + 1. None if it changed."""

    @abstractmethod
    def release(self, lease: Lease) -> None:
        """Give it back, if it is still ours."""

    @abstractmethod
    def held(self, prefix: str) -> dict[str, Lease]:
        """All leases whose name starts with ``prefix``."""
