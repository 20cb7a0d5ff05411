"""A connection to the server that fails as networks do: an answer lost after the command ran, silence, a cut."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable
from pathlib import Path


class Proxy:
    """Listens on a socket of its own and passes bytes on.

    ``requests`` counts what clients sent; the answer to request number ``lose`` never arrives: both ends are closed in
    its place. After request number ``last`` none is passed on any more: the connection is closed in its place. While
    ``silent``, nothing is passed on, either way.
    """

    def __init__(self, target: Path, path: Path) -> None:
        self._target = target
        self.url = f"unix://{path}?db=0"
        self.requests = 0
        self.lose = 0
        self.last = 0
        self.when_lost: Callable[[], object] = lambda: None  #: called before the ends are closed
        self.silent = False
        self._closing = False
        self._ends: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Close every connection that there is now."""
        for end in self._ends:
            with_shutdown(end)

    def close(self) -> None:
        """Stop."""
        self._closing = True
        with_shutdown(self._listener)
        self.cut()
        self._thread.join(5)

    def _accept(self) -> None:
        while not self._closing:
            try:
                client, _ = self._listener.accept()
            except OSError:
                break
            threading.Thread(target=self._pass, args=[client], daemon=True).start()
        self._listener.close()

    def _pass(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX)
        self._ends += [client, server]
        with client, server, selectors.DefaultSelector() as selector:
            try:
                server.connect(str(self._target))
                selector.register(client, selectors.EVENT_READ)
                selector.register(server, selectors.EVENT_READ)
                while self._step(selector, client, server):
                    pass
            except OSError:
                return

    def _step(self, selector: selectors.BaseSelector, client: socket.socket, server: socket.socket) -> bool:
        for key, _ in selector.select():
            data = key.fileobj.recv(65536)  # type: ignore[union-attr]
            if not data:
                return False
            if self.silent:
                continue
            if key.fileobj is client:
                if self.last and self.requests >= self.last:
                    return False
                self.requests += 1
                server.sendall(data)
            elif self.lose and self.requests >= self.lose:
                self.lose = 0
                self.when_lost()
                return False
            else:
                client.sendall(data)
        return True


def with_shutdown(end: socket.socket) -> None:
    """End both directions, wherever a thread waits for them."""
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
