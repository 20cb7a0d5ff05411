"""Reports of runners in Redis, a stream per shard."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping

from dispatcher.records.inbox import Inbox
from dispatcher.records.redis.client import Client
from dispatcher.records.redis.keys import Keys
from dispatcher.records.redis.scripts import script
from dispatcher.records.redis.streams import blocking, read_stream

#: Seconds for which a report is known, so that sending it again adds nothing.
_KNOWN = 60


class RedisInbox(Inbox):
    """Streams; each report carries a nonce while it is sent."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def report(self, shard: str, entry: Mapping[str, str]) -> None:
        keys = self._keys.inbox(shard), self._keys.report(secrets.token_hex(8))
        self._client.run(script("report"), (), *keys, _KNOWN, *(word for pair in entry.items() for word in pair))

    def read(
        self, shard: str, *, after: str = "", limit: int = 1000, block: float = 0.0
    ) -> list[tuple[str, dict[str, str]]]:
        return read_stream(self._client, self._keys.inbox(shard), after=after, limit=limit, block=block)

    def wait(self, shards: Collection[str], *, block: float) -> bool:
        if not shards:
            return False
        keys = [self._keys.inbox(shard) for shard in shards]
        words = ("XREAD", "COUNT", 1, *blocking(block), "STREAMS", *keys, *("0" for _ in keys))
        return bool(self._client.one(*words, block=block))

    def drop(self, shard: str, *, until: str) -> None:
        milliseconds, _, sequence = until.partition("-")
        behind = f"{milliseconds}-{int(sequence or 0) + 1}"
        key = self._keys.inbox(shard)
        self._client.one("XTRIM", key, "MINID", behind)
