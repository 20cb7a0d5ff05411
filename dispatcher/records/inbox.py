"""The reports of runners in containers; the interface stands beside those of :mod:`dispatcher.records.base`, under the
same contract."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping


class Inbox(ABC):
    """Reports of runners in containers, a stream per shard. Entries are flat text, authenticated by their reader."""

    @abstractmethod
    def report(self, shard: str, entry: Mapping[str, str]) -> None:
        """Add an entry.

        Raises:
            ServerUnavailable: also where the inbox takes none until its supervisor has repaired it.
        """

    @abstractmethod
    def read(
        self, shard: str, *, after: str = "", limit: int = 1000, block: float = 0.0
    ) -> list[tuple[str, dict[str, str]]]:
        """Entries behind position ``after``, each with its position; waits up to ``block`` seconds for the first."""

    @abstractmethod
    def wait(self, shards: Collection[str], *, block: float) -> bool:
        """Return True if there is an entry for one of them; waits up to ``block`` seconds for the first."""

    @abstractmethod
    def drop(self, shard: str, *, until: str) -> None:
        """Remove entries up to position ``until``: they were acted upon."""

    @abstractmethod
    def repair(self, shards: Collection[str]) -> list[str]:
        """Make inboxes anew to which nothing can be added any more, keeping their entries; which of ``shards`` were."""
