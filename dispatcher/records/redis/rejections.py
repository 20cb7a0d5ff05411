"""Counters of rejections in Redis: one hash of counts and times."""

from __future__ import annotations

import secrets
from contextlib import suppress

from dispatcher.errors import Malformed
from dispatcher.records.redis.connection.client import Client
from dispatcher.records.redis.keys import Keys
from dispatcher.records.redis.scripts import script
from dispatcher.records.rejections import Rejected, Rejections, Tally
from dispatcher.support.parsing import number_of, whole_of

#: Seconds for which a rejection's nonce is stored, so that noting it again counts nothing.
_NONCE_KEPT = 60


class RedisRejections(Rejections):
    """Each rejection is noted with a nonce, so that it is counted once."""

    def __init__(self, client: Client, keys: Keys, *, clock_offset: float) -> None:
        self._client = client
        self._keys = keys
        self._offset = clock_offset

    def note(self, kind: Rejected, count: int = 1) -> None:
        keys = [self._keys.refusals, self._keys.report(secrets.token_hex(8))]
        self._client.run(script("refuse"), keys, self._offset, _NONCE_KEPT, kind, count)

    def tallies(self) -> dict[Rejected, Tally]:
        flat = self._client.one("HGETALL", self._keys.refusals)
        fields = {name.decode(errors="replace"): value for name, value in zip(flat[0::2], flat[1::2], strict=True)}
        tallies: dict[Rejected, Tally] = {}
        for kind in Rejected:
            with suppress(KeyError, Malformed):  # none was rejected, or the count can't be read
                count, last = fields[kind], fields[f"{kind}:last"]
                tallies[kind] = Tally(count=whole_of(count, "refusals"), last=number_of(last, "refusals"))
        return tallies
