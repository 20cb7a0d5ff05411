"""Blobs in Redis: hashes of parts, so that no single command is too large for its timeout."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Any

from dispatcher.errors import Malformed
from dispatcher.records.blobs import Blobs
from dispatcher.records.effects import STRAY, UNUSED_BLOB
from dispatcher.records.redis.bounds import MOST_HELD
from dispatcher.records.redis.connection.client import Client
from dispatcher.records.redis.keys import Keys
from dispatcher.records.redis.scripts import script
from dispatcher.support.failpoints import failpoint
from dispatcher.support.ids import is_blob, is_run_id
from dispatcher.support.parsing import whole_of

#: Most bytes of a part.
PART = 4 * 2**20

#: Up to so many bytes, a shared blob is sent without checking first whether it is stored.
_SMALL = 16 * 2**10


class RedisBlobs(Blobs):
    """Parts are numbered from 0. The field ``parts`` holds their number, and is written last."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def share(self, data: bytes, digest: str = "") -> str:
        digest = digest or hashlib.sha256(data).hexdigest()
        key = self._keys.blob(digest)
        keep = int(UNUSED_BLOB)
        shared = script("share")
        if len(data) > _SMALL and self._client.run(shared, [key], keep, ""):
            return digest
        if len(data) <= PART:
            self._client.run(shared, [key], keep, 1, data)
            return digest
        parts = list(_parts(data))
        for number, part in enumerate(parts):
            self._client.accepted(self._client.call([("HSET", key, number, part), ("EXPIRE", key, keep)]))
            failpoint("blob.part")
        self._client.run(shared, [key], keep, len(parts))
        return digest

    def own(self, run_id: str, name: str, data: bytes) -> str:
        if not is_blob(name):
            raise KeyError(name)
        keys, record = [self._keys.blobs(run_id)], self._keys.run(run_id)
        owned = script("own")
        parts = list(_parts(data))
        for number, part in enumerate(parts[:-1]):
            self._client.run(owned, keys, record, int(STRAY), f"{name}/{number}", part)
            failpoint("result.part", run_id)
        last = len(parts) - 1
        self._client.run(owned, keys, record, int(STRAY), f"{name}/{last}", parts[last], f"{name}/parts", len(parts))
        failpoint("result.kept", run_id)
        return f"{run_id}/{name}"

    def get(self, name: str) -> bytes:
        key, prefix = self._place(name)
        try:
            count, first = self._client.one("HMGET", key, f"{prefix}parts", f"{prefix}0")
            if count is None or first is None:
                raise KeyError(name)
            parts = [first]
            for number in range(1, whole_of(count, "blob: parts")):
                part = self._client.one("HGET", key, f"{prefix}{number}")
                if part is None:
                    raise KeyError(name)
                parts.append(part)
        except Malformed:
            raise KeyError(name) from None
        return b"".join(parts) if len(parts) > 1 else bytes(first)

    def has(self, name: str) -> bool:
        try:
            key, prefix = self._place(name)
        except KeyError:
            return False
        with suppress(Malformed):
            return bool(self._client.one("HEXISTS", key, f"{prefix}parts"))
        return False

    def _place(self, name: str) -> tuple[str, str]:
        """Return the key of a blob's hash, and the prefix of its fields.

        Raises:
            KeyError: no blob can have this name.
        """
        run_id, slash, own = name.partition("/")
        if not slash:
            return self._keys.blob(name), ""
        if not is_run_id(run_id) or not is_blob(own):
            raise KeyError(name)
        return self._keys.blobs(run_id), f"{own}/"


def hold(client: Client, keys: Keys, digests: Collection[str], *, within: float) -> None:
    """Keep shared blobs while the records that refer to them are sent.

    Args:
        client: to the server.
        keys: of the installation.
        digests: the blobs.
        within: seconds after which to give up.

    Raises:
        LookupError: some are missing (args: the digests).
    """
    blob_keys = [keys.blob(digest) for digest in sorted(digests)]
    portions = (blob_keys[start : start + MOST_HELD] for start in range(0, len(blob_keys), MOST_HELD))
    commands = [script("hold").command(portion, int(UNUSED_BLOB)) for portion in portions]
    replies = client.accepted(client.run_many(commands, within=within)) if commands else []
    if missing := [keys.digest(key.decode()) for reply in replies for key in reply]:
        raise LookupError(*missing)


def _parts(data: bytes) -> Iterator[Any]:
    view = memoryview(data)
    for start in range(0, max(len(data), 1), PART):
        yield view[start : start + PART]
