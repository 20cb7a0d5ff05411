"""The inbox: reports of runners in containers, read by supervisors.

The rules common to all interfaces stand in :mod:`dispatcher.records.base`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping


class Inbox(ABC):
    """Reports of runners in containers, a stream per shard. Entries are flat text; their reader authenticates them."""

    @abstractmethod
    def report(self, shard: str, entry: Mapping[str, str]) -> None:
        """Add an entry.

        Raises:
            ServerUnavailable: also if the inbox takes no entries until a supervisor has repaired it.
        """

    @abstractmethod
    def read(
        self, shard: str, *, after: str = "", limit: int = 1000, block: float = 0.0
    ) -> list[tuple[str, dict[str, str]]]:
        """Return entries behind position ``after``, each with its position; wait up to ``block`` seconds for one.

        Each has the field ``time``: when it was added, by the server's clock, in seconds since the epoch.
        """

    @abstractmethod
    def wait(self, shards: Collection[str], *, block: float) -> bool:
        """Return True if one of the shards has an entry; wait up to ``block`` seconds for the first."""

    @abstractmethod
    def drop(self, shard: str, *, until: str) -> None:
        """Remove entries up to position ``until``, once they were processed."""

    @abstractmethod
    def repair(self, shards: Collection[str]) -> list[str]:
        """Recreate inboxes that take no more entries, keeping those they have; return which of ``shards`` were."""
