"""Rejections in Redis: one hash, of counts and times."""

from __future__ import annotations

import secrets
from contextlib import suppress

from dispatcher.errors import Malformed
from dispatcher.records.redis.connection.client import Client
from dispatcher.records.redis.keys import Keys
from dispatcher.records.redis.scripts import script
from dispatcher.records.rejections import Rejected, Rejections, Tally
from dispatcher.support.parsing import number_of, whole_of

#: Seconds for which a refusal is known, so that noting it again counts nothing.
_KNOWN = 60


class RedisRejections(Rejections):
    """Each refusal carries a nonce while it is noted."""

    def __init__(self, client: Client, keys: Keys, *, clock_offset: float) -> None:
        self._client = client
        self._keys = keys
        self._offset = clock_offset

    def note(self, what: Rejected) -> None:
        keys = [self._keys.refusals, self._keys.report(secrets.token_hex(8))]
        self._client.run(script("refuse"), keys, self._offset, _KNOWN, what)

    def tallies(self) -> dict[Rejected, Tally]:
        flat = self._client.one("HGETALL", self._keys.refusals)
        kept = {name.decode(errors="replace"): told for name, told in zip(flat[0::2], flat[1::2], strict=True)}
        found: dict[Rejected, Tally] = {}
        for what in Rejected:
            with suppress(KeyError, Malformed):  # none was refused; or a count that can't be read
                count, last = kept[what], kept[f"{what}:last"]
                found[what] = Tally(count=whole_of(count, "refusals"), last=number_of(last, "refusals"))
        return found
