"""Flows in Redis, named by the digest of their code: the default storage.

Used where records are open, by submitters and workers. Reads and writes through the records' blobs.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, ClassVar

from dispatcher.errors import InvalidFlow, InvalidInput, SealBroken
from dispatcher.flows.flow import Flow, as_flow, unpack_flow
from dispatcher.storage.base import Storage
from dispatcher.storage.code_cache import code_cache

if TYPE_CHECKING:
    from dispatcher.records.blobs import Blobs


class RedisStorage(Storage):
    """Keeps a flow's code in Redis, once however often it is submitted, as long as a run may start with it.

    The location is the code's SHA-256. This storage works where records are open: in submits and in workers.
    """

    shared_blob: ClassVar[bool] = True
    in_containers: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self._blobs: Blobs | None = None
        self._limit: int | None = None
        self._modules: dict[str, frozenset[str]] = {}  # of the location added last

    def bind(self, blobs: Blobs, *, limit: int | None = None) -> None:
        self._blobs, self._limit = blobs, limit if limit is not None else self._limit

    def add_flow(self, flow: Flow[..., Any]) -> str:
        from dispatcher.flows.packing import add_bundle

        data = add_bundle(self._pack(flow), flow, bundler=self.bundler)
        self.flows[flow.name] = location = self._bound_blobs().share(data)
        return location

    def add_code(self, flow: Flow[..., Any]) -> str:
        from dispatcher.serialization import pickles

        data = self._pack(flow)
        self.flows[flow.name] = location = self._bound_blobs().share(data)
        if location not in self._modules:
            self._modules = {location: pickles.modules(data)}
        return location

    def modules(self, location: str) -> frozenset[str]:
        return self._modules.get(location, frozenset())

    def get_flow(self, location: str) -> Flow[..., Any]:
        return unpack_flow(self._read(location), subject=f"blob {location[:16]}")

    def kept_bundle(self, location: str) -> bytes | None:
        from dispatcher.serialization import pickles

        return pickles.bundle_in(self._read(location))

    def _pack(self, flow: Flow[..., Any]) -> bytes:
        from dispatcher.storage.flow_cache import flow_cache

        name = as_flow(flow).name
        data = flow_cache.pack(flow)
        if self._limit is not None and len(data) > self._limit:
            raise InvalidFlow(
                f"flow {name!r}: its code is {len(data):,} bytes, at most {self._limit:,} may travel by value "
                "(DISPATCHER__LIMITS__FLOW): give large data as parameters, or use ModuleStorage"
            )
        return data

    def _read(self, location: str) -> bytes:
        data = code_cache.get(location)
        if data is None:
            data = self._fetch(location)
            code_cache.put(location, data)
        return data

    def _fetch(self, location: str) -> bytes:
        try:
            data = self._bound_blobs().get(location)
        except KeyError:
            raise InvalidInput(f"RedisStorage: no code under {location!r}: no open run refers to it any more") from None
        if hashlib.sha256(data).hexdigest() != location:
            raise SealBroken(f"RedisStorage: the code under {location!r} was changed")
        return data

    def _bound_blobs(self) -> Blobs:
        if self._blobs is None:
            raise InvalidInput(
                "RedisStorage isn't connected: submit with a Dispatcher, or execute directly with LocalStorage or "
                "ModuleStorage"
            )
        return self._blobs
