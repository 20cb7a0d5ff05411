"""Leases in Redis: a hash of names, each with epoch and owner."""

from __future__ import annotations

from dispatcher.records.base import Lease, Leases
from dispatcher.records.redis.client import Client
from dispatcher.records.redis.keys import Keys
from dispatcher.records.redis.scripts import script


class RedisLeases(Leases):
    """A lease given back keeps its epoch under no owner."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def acquire(self, name: str, owner: str, *, seen: Lease | None) -> Lease | None:
        before = ("", "") if seen is None else (seen.owner, seen.epoch)
        epoch = self._client.run(script("acquire"), [self._keys.leases], name, owner, *before)
        return Lease(name=name, owner=owner, epoch=int(epoch)) if epoch else None

    def release(self, lease: Lease) -> None:
        kept, given_back = f"{lease.epoch} {lease.owner}", f"{lease.epoch} "
        self._client.run(script("release"), [self._keys.leases], lease.name, kept, given_back)

    def held(self, prefix: str) -> dict[str, Lease]:
        flat = [word.decode() for word in self._client.one("HGETALL", self._keys.leases)]
        found = {}
        for name, kept in zip(flat[0::2], flat[1::2], strict=True):
            epoch, _, owner = kept.partition(" ")
            if owner and name.startswith(prefix):
                found[name] = Lease(name=name, owner=owner, epoch=int(epoch))
        return found
