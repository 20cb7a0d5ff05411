"""Claims of runners, as ``lua/claim.lua`` keeps them: when, who, and the report of that in JSON, a line each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from dispatcher.errors import ClaimStands, Refused, UnknownRun
from dispatcher.records.effects import CLAIM_KEPT, ends_unstarted
from dispatcher.records.redis.connection.client import Client
from dispatcher.records.redis.keys import Keys
from dispatcher.records.redis.run_scripts.change import fields_of
from dispatcher.records.redis.scripts import script
from dispatcher.runs.change import Change


class Claims:
    """Makes claims, and tells changes which to heed."""

    def __init__(self, client: Client, keys: Keys, *, clock_offset: float) -> None:
        self._client = client
        self._keys = keys
        self._offset = clock_offset

    def make(
        self, run_id: str, *, attempt: int, holder: str, shard: str, entry: Mapping[str, str], void: str
    ) -> tuple[dict[str, bytes], float]:
        """As :meth:`Runs.claim_attempt`, with the record as it is stored."""
        keys = self._keys.run(run_id), self._keys.claim(run_id, attempt), self._keys.inbox(shard)
        words = (word for pair in entry.items() for word in pair)
        given = CLAIM_KEPT, attempt, holder, _raw(void), json.dumps(dict(entry))
        reply = self._client.run(script("claim"), (), self._offset, *keys, *given, *words)
        if reply[1] == b"unknown":
            raise UnknownRun(f"no run {run_id}, or its retention is over")
        if reply[1] == b"closed":
            raise Refused(f"attempt {attempt} of run {run_id} is closed: it is {reply[2].decode(errors='replace')}")
        if reply[1] == b"claimed":
            raise claim_of(run_id, reply[2], float(reply[0]))
        return fields_of(reply[1]), float(reply[0])

    def heeded(self, change: Change, void: str) -> tuple[Any, ...]:
        """For ``lua/commit.lua``: the key of the claim that stands in a change's way, and the one that doesn't."""
        if change.before is None or not ends_unstarted(change):
            return ()
        return self._keys.claim(change.after.id, change.before.attempt), _raw(void)


def claim_of(run_id: str, raw: bytes, now: float) -> ClaimStands:
    """Return the claim that stands in the way; whatever was written there by whoever could.

    Args:
        run_id: the run.
        raw: the claim as it is kept.
        now: the server's clock.
    """
    text = raw.decode(errors="surrogateescape")
    at, _, rest = text.partition("\n")
    entry: Mapping[str, str] = {}
    claimed = now
    with suppress(ValueError, RecursionError):
        claimed = float(at)
        read = json.loads(rest.partition("\n")[2])
        if isinstance(read, dict) and all(isinstance(word, str) for word in read.values()):
            entry = read
    return ClaimStands(run_id, entry=entry, at=claimed, now=now, raw=text)


def _raw(claim: str) -> bytes:
    return claim.encode(errors="surrogateescape")
