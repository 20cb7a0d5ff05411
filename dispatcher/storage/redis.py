"""Flows in Redis by value, under the digest of their code: the default. Reads and writes through the records' blobs."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, ClassVar

from dispatcher.errors import InvalidFlow, InvalidInput, SealBroken
from dispatcher.storage.base import Storage, as_flow

if TYPE_CHECKING:
    from dispatcher.flows.flow import Flow
    from dispatcher.records.blobs import Blobs


class _Recent:
    """Sealed code read lately in this process, by digest. Bytes, not flows: what a run changes in one is its own."""

    def __init__(self, most: int) -> None:
        self._most = most  # bytes
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, digest: str) -> bytes | None:
        with self._lock:
            if digest in self._kept:
                self._kept.move_to_end(digest)
            return self._kept.get(digest)

    def put(self, digest: str, data: bytes) -> None:
        with self._lock:
            self._kept[digest] = data
            self._kept.move_to_end(digest)
            while sum(map(len, self._kept.values())) > self._most:
                self._kept.popitem(last=False)

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()


_recent = _Recent(most=64 * 2**20)


class RedisStorage(Storage):
    """Keeps a flow's code in Redis, once however often it is submitted, as long as a run may start with it.

    The location is the code's SHA-256. It works where records are open: in submits and in workers.
    """

    shared_blob: ClassVar[bool] = True
    in_containers: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self._blobs: Blobs | None = None
        self._limit: int | None = None

    def bind(self, blobs: Blobs, *, limit: int | None = None) -> None:
        self._blobs, self._limit = blobs, limit if limit is not None else self._limit

    def add_flow(self, flow: Flow[..., Any]) -> str:
        from dispatcher.storage.packed_flow import packed

        name = as_flow(flow).name
        data = packed.flow(flow)
        if self._limit is not None and len(data) > self._limit:
            raise InvalidFlow(
                f"flow {name!r}: its code is {len(data):,} bytes, at most {self._limit:,} may travel by value "
                "(DISPATCHER__LIMITS__FLOW): give large data as parameters, or use ModuleStorage"
            )
        self.flows[name] = location = self._bound().share(data)
        return location

    def get_flow(self, location: str) -> Flow[..., Any]:
        from dispatcher.flows.flow import opened

        data = _recent.get(location)
        if data is None:
            data = self._read(location)
            _recent.put(location, data)
        return opened(data, what=f"blob {location[:16]}")

    def _read(self, location: str) -> bytes:
        try:
            data = self._bound().get(location)
        except KeyError:
            raise InvalidInput(f"RedisStorage: no code under {location!r}: no open run refers to it any more") from None
        if hashlib.sha256(data).hexdigest() != location:
            raise SealBroken(f"RedisStorage: what is kept under {location!r} was changed")
        return data

    def _bound(self) -> Blobs:
        if self._blobs is None:
            raise InvalidInput(
                "RedisStorage isn't connected: submit with a Dispatcher, or execute directly with LocalStorage or "
                "ModuleStorage"
            )
        return self._blobs
