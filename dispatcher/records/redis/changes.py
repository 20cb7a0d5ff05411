"""Write changes of records in Redis: computed ones (``lua/commit.lua``), and prepared ones (``lua/prepared.lua``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dispatcher.errors import LeasePassed, SpecUsed
from dispatcher.records.effects import spec_used
from dispatcher.records.leases import Lease
from dispatcher.records.redis.claims import stands
from dispatcher.records.redis.connection.client import Client
from dispatcher.records.redis.keys import Keys
from dispatcher.records.redis.run_scripts.change import fields_of
from dispatcher.records.redis.scripts import script
from dispatcher.records.redis.speculation.templates import ChangeTemplate
from dispatcher.records.redis.stored_records import StoredRecords
from dispatcher.runs.record import Record


class ChangeWriter:
    """Applies changes on the server, each by one call.

    Args:
        client, keys, records: of the installation.
        clock_offset: seconds that the server's clock is taken to be ahead.
    """

    def __init__(self, client: Client, keys: Keys, records: StoredRecords, *, clock_offset: float) -> None:
        self._client = client
        self._keys = keys
        self._records = records
        self._offset = clock_offset

    def apply_prepared(self, run_id: str, change: ChangeTemplate, values: Sequence[str]) -> Any:
        """Apply a prepared change, and send its template if the server doesn't have it; return the script's reply."""
        prepared, keys = script("prepared"), [self._keys.run(run_id)]
        reply = self._client.run(prepared, keys, self._offset, change.digest, "", *values)
        if reply == b"template":
            reply = self._client.run(prepared, keys, self._offset, change.digest, change.document, *values)
        return reply

    def apply(
        self,
        after: Record,
        version: int,
        steps: bytes,
        *apart: str,
        lease: Lease | None = None,
        claim: tuple[str, bytes] | tuple[()] = (),
    ) -> tuple[Record | None, float]:
        """Apply steps if the record still has the version; return the record stored now, and the time.

        Args:
            after: the record after the steps, returned if they were applied.
            version: expected.
            steps: as JSON.
            apart: long values of the steps.
            lease: that must be unchanged.
            claim: key of a claim that forbids the steps, and the void claim that doesn't.

        Raises:
            LeasePassed: ``lease`` has changed.
            ClaimStands: another claim than the void one stands.
            SpecUsed: the steps would use the run's spec again.
        """
        keys = [self._keys.run(after.id)]
        held: tuple[str, str] | tuple[()] = ("", "") if claim or apart else ()
        if lease is not None:
            keys.append(self._keys.leases)
            held = lease.name, f"{lease.epoch} {lease.owner}"
        if apart and not claim:
            claim = "", b""
        reply = self._client.run(script("commit"), keys, self._offset, version, steps, *held, *claim, *apart)
        now = float(reply[0])
        if len(reply) == 1:
            return after, now
        if reply[1] == b"used":
            raise SpecUsed(spec_used(after.id, reply[2].decode()))
        if reply[1] == b"passed" and lease is not None:
            raise LeasePassed(f"shard {lease.name} has another holder now: epoch {lease.epoch} is over")
        if reply[1] == b"claimed":
            raise stands(after.id, reply[2], now)
        if not reply[1]:
            return None, now
        stored = self._records.parse(after.id, fields_of(reply[1]))
        return after if after.change and stored.change == after.change else stored, now
