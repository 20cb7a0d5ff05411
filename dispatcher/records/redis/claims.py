"""Claims of runners on their attempts, as ``lua/claim.lua`` stores them: a line each for time, holder and report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from dispatcher.errors import ClaimStands, Refused
from dispatcher.records.effects import CLAIM_KEPT, ends_unstarted
from dispatcher.records.redis.connection.client import Client
from dispatcher.records.redis.keys import Keys
from dispatcher.records.redis.run_scripts.change import fields_of
from dispatcher.records.redis.scripts import script
from dispatcher.records.redis.stored_records import unknown
from dispatcher.runs.change import Change


class Claims:
    """Makes claims, and has changes checked against them."""

    def __init__(self, client: Client, keys: Keys, *, clock_offset: float) -> None:
        self._client = client
        self._keys = keys
        self._offset = clock_offset

    def make(
        self, run_id: str, *, attempt: int, holder: str, shard: str, entry: Mapping[str, str], void: str
    ) -> tuple[dict[str, bytes], float]:
        """As :meth:`Runs.claim_attempt`, with the record's fields as stored."""
        keys = self._keys.run(run_id), self._keys.claim(run_id, attempt), self._keys.inbox(shard)
        report = (word for pair in entry.items() for word in pair)
        claim = CLAIM_KEPT, attempt, holder, _encoded(void), json.dumps(dict(entry))
        reply = self._client.run(script("claim"), (), self._offset, *keys, *claim, *report)
        if reply[1] == b"unknown":
            raise unknown(run_id)
        if reply[1] == b"closed":
            state = reply[2].decode(errors="replace")
            raise Refused(f"attempt {attempt} of run {run_id} is closed: the run is {state}")
        if reply[1] == b"claimed":
            raise stands(run_id, reply[2], float(reply[0]))
        return fields_of(reply[1]), float(reply[0])

    def checked_by(self, change: Change, void: str) -> tuple[Any, ...]:
        """Return arguments for ``lua/commit.lua``: the key where a claim forbids the change, and the void claim.

        Empty if no claim can forbid it.
        """
        if change.before is None or not ends_unstarted(change):
            return ()
        return self._keys.claim(change.after.id, change.before.attempt), _encoded(void)


def stands(run_id: str, raw: bytes, now: float) -> ClaimStands:
    """Return the error for a claim that stands. Anybody may have written it, so every value is accepted.

    Args:
        run_id: the run.
        raw: the claim as stored.
        now: the server's clock.
    """
    text = raw.decode(errors="surrogateescape")
    time, _, rest = text.partition("\n")
    entry: Mapping[str, str] = {}
    at = now
    with suppress(ValueError, RecursionError):
        at = float(time)
        report = json.loads(rest.partition("\n")[2])
        if isinstance(report, dict) and all(isinstance(word, str) for word in report.values()):
            entry = report
    return ClaimStands(run_id, entry=entry, at=at, now=now, raw=text)


def _encoded(claim: str) -> bytes:
    return claim.encode(errors="surrogateescape")
