"""Reports in this process."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from dispatcher.records.inbox import Inbox
from dispatcher.records.memory.shared import SharedState


class MemoryInbox(Inbox):
    """A list of entries per shard; a position is a number as text."""

    def __init__(self, shared: SharedState) -> None:
        self._shared = shared
        self._entries: dict[str, dict[int, dict[str, str]]] = {}
        self._next = 1

    def report(self, shard: str, entry: Mapping[str, str]) -> None:
        with self._shared.changed:
            self._entries.setdefault(shard, {})[self._next] = {"time": repr(self._shared.clock()), **entry}
            self._next += 1
            self._shared.changed.notify_all()

    def read(
        self, shard: str, *, after: str = "", limit: int = 1000, block: float = 0.0
    ) -> list[tuple[str, dict[str, str]]]:
        start = int(after or 0)

        def following() -> list[tuple[str, dict[str, str]]]:
            entries = self._entries.get(shard, {}).items()
            return [(str(position), dict(entry)) for position, entry in entries if position > start][:limit]

        return self._shared.wait_for(following, block)

    def wait(self, shards: Collection[str], *, block: float) -> bool:
        return bool(self._shared.wait_for(lambda: [shard for shard in shards if self._entries.get(shard)], block))

    def drop(self, shard: str, *, until: str) -> None:
        with self._shared.changed:
            entries = self._entries.get(shard, {})
            for position in [position for position in entries if position <= int(until)]:
                del entries[position]
            if not entries:
                self._entries.pop(shard, None)

    def repair(self, shards: Collection[str]) -> list[str]:
        return []  # nobody else adds entries
