"""The inbox in Redis, a stream per shard."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping

from dispatcher.records.inbox import Inbox
from dispatcher.records.redis.connection.client import Client
from dispatcher.records.redis.connection.streams import block_words, entries_of, next_position, repair, seconds_of
from dispatcher.records.redis.keys import Keys
from dispatcher.records.redis.scripts import script

#: Seconds for which a report's nonce is stored, so that sending the report again adds nothing.
_NONCE_KEPT = 60


class RedisInbox(Inbox):
    """Streams. Each report is sent with a nonce, so that it is added once."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def report(self, shard: str, entry: Mapping[str, str]) -> None:
        keys = self._keys.inbox(shard), self._keys.report(secrets.token_hex(8))
        self._client.run(script("report"), (), *keys, _NONCE_KEPT, *(word for pair in entry.items() for word in pair))

    def read(
        self, shard: str, *, after: str = "", limit: int = 1000, block: float = 0.0
    ) -> list[tuple[str, dict[str, str]]]:
        words = ("XREAD", "COUNT", limit, *block_words(block), "STREAMS", self._keys.inbox(shard), after or "0")
        entries = entries_of(self._client.one(*words, block=block))  # ids ahead of the clock are dropped, too
        return [(position, {"time": f"{seconds_of(position):.3f}", **entry}) for position, entry in entries]

    def wait(self, shards: Collection[str], *, block: float) -> bool:
        if not shards:
            return False
        keys = [self._keys.inbox(shard) for shard in shards]
        words = ("XREAD", "COUNT", 1, *block_words(block), "STREAMS", *keys, *("0" for _ in keys))
        return bool(self._client.one(*words, block=block))

    def drop(self, shard: str, *, until: str) -> None:
        following = next_position(until)
        bound = ("MINID", following) if following else ("MAXLEN", 0)
        self._client.one("XTRIM", self._keys.inbox(shard), *bound)

    def repair(self, shards: Collection[str]) -> list[str]:
        keys = {self._keys.inbox(shard): shard for shard in shards}
        return [keys[key] for key in repair(self._client, list(keys))]
