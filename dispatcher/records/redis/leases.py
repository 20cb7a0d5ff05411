"""Leases in Redis: a hash from names to epoch and owner."""

from __future__ import annotations

from functools import partial

from dispatcher.records.leases import Lease, Leases
from dispatcher.records.malformed import MalformedEntries
from dispatcher.records.redis.connection.client import Client
from dispatcher.records.redis.keys import Keys
from dispatcher.records.redis.scripts import script
from dispatcher.support.parsing import name_of, whole_of


class RedisLeases(Leases):
    """A released lease keeps its epoch, with an empty owner."""

    def __init__(self, client: Client, keys: Keys, malformed: MalformedEntries) -> None:
        self._client = client
        self._keys = keys
        self._malformed = malformed

    def acquire(self, name: str, owner: str, *, expected: Lease | None) -> Lease | None:
        before = ("", "") if expected is None else (expected.owner, expected.epoch)
        epoch = self._client.run(script("acquire"), [self._keys.leases], name, owner, *before)
        return Lease(name=name, owner=owner, epoch=int(epoch)) if epoch else None

    def release(self, lease: Lease) -> None:
        stored, released = f"{lease.epoch} {lease.owner}", f"{lease.epoch} "
        self._client.run(script("release"), [self._keys.leases], lease.name, stored, released)

    def held(self, prefix: str) -> dict[str, Lease]:
        flat = self._client.one("HGETALL", self._keys.leases)
        leases: dict[str, Lease] = {}
        for name, stored in zip(flat[0::2], flat[1::2], strict=True):
            lease = self._malformed.read(f"lease {name!r}", partial(_parse_lease, name, stored))
            if lease is not None and lease.owner and lease.name.startswith(prefix):
                leases[lease.name] = lease
        return leases


def _parse_lease(name: bytes, stored: bytes) -> Lease:
    epoch, _, owner = name_of(stored, "lease").partition(" ")
    return Lease(name=name_of(name, "lease"), owner=owner, epoch=whole_of(epoch, "lease: epoch"))
