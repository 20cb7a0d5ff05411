"""A way to the server, over TCP on loopback, that fails as networks do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")

#: Most bytes passed on at a time.
_CHUNK = 65536


class Proxy:
    """Passes connections on to a server. All methods are safe on any thread.

    Args:
        host, port: the server's.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._ways: set[_Way] = set()
        self._refusing = False
        self._silent = False
        self._delay = 0.0
        self._to_lose: tuple[bytes, int] | None = None
        self.lost = 0  #: replies that were dropped
        self.seen = 0  #: requests that matched since :meth:`lose_reply`
        self.port = 0

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._server.close)
        self._do(self._cut)
        self._call(self._finish())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def url(self, db: int = 0) -> str:
        """Of the server, by this way."""
        return f"redis://127.0.0.1:{self.port}/{db}"

    def cut(self, *, refuse: bool = False) -> None:
        """Reset all connections; refuse new ones, if asked, until :meth:`heal`."""
        self._refusing = refuse
        self._do(self._cut)

    def redirect(self, host: str, port: int) -> None:
        """Lead to another server from now on; connections to the one before are reset."""
        self._target = host, port
        self._do(self._cut)

    def swallow(self) -> None:
        """A black hole: connections stay open, new ones are accepted, and nothing comes through until :meth:`heal`.

        What was sent meanwhile is lost, and with it the connection it was sent on.
        """
        self._silent = True

    def slow_down(self, seconds: float) -> None:
        """Let each portion of bytes wait so long, both ways."""
        self._delay = seconds

    def lose_reply(self, containing: bytes, nth: int = 1) -> None:
        """Let the n-th request from now that holds some bytes reach the server, and reset instead of its reply."""
        self.seen = 0
        self._to_lose = containing, nth

    def has_lost(self) -> bool:
        """Return True if the reply that was to be lost is lost."""
        return self._to_lose is None

    def heal(self) -> None:
        """Pass on everything again. Connections that lost bytes are reset, as both ends would find out."""
        self._refusing = self._silent = False
        self._delay = 0.0
        self._to_lose = None
        self._do(self._end_holed)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        way = _Way(self, writer)
        self._ways.add(way)
        try:
            far_reader, way.far = await asyncio.open_connection(*self._target)
            await asyncio.gather(
                way.carry(reader, way.far, way.request), way.carry(far_reader, writer, lambda data: True)
            )
        except OSError:
            pass
        finally:
            way.reset()
            self._ways.discard(way)

    async def passing(self) -> bool:
        """Before a portion is passed on: wait, if we are slow; whether it gets through."""
        if self._delay:
            await asyncio.sleep(self._delay)
        return not self._silent

    def doomed(self, request: bytes) -> bool:
        """Return True if the reply to a request is to be lost."""
        if self._to_lose is None or self._to_lose[0] not in request:
            return False
        self.seen += request.count(self._to_lose[0])
        if self.seen < self._to_lose[1]:
            return False
        self._to_lose = None
        self.lost += 1
        return True

    def _cut(self) -> None:
        for way in list(self._ways):
            way.reset()

    def _end_holed(self) -> None:
        for way in [way for way in self._ways if way.holed]:
            way.reset()

    async def _finish(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _do(self, work: Callable[[], object]) -> None:
        async def run() -> None:
            work()

        self._call(run())


class _Way:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, near: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._near = near
        self.far: asyncio.StreamWriter | None = None
        self.holed = False
        self._doomed = False

    def request(self, data: bytes) -> bool:
        """Pass a request on; note if its reply is to be lost."""
        self._doomed = self._doomed or self._proxy.doomed(data)
        return True

    async def carry(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, look: Callable[[bytes], bool]
    ) -> None:
        """Carry bytes one way until it ends."""
        with suppress(OSError):
            while data := await source.read(_CHUNK):
                if not await self._proxy.passing():
                    self.holed = True
                    continue
                if target is self._near and self._doomed:
                    break
                look(data)
                target.write(data)
                await target.drain()
        self.reset()

    def reset(self) -> None:
        """End both connections without a goodbye."""
        for writer in (self._near, self.far):
            if writer is not None:
                writer.transport.abort()
