"""A proxy of the server that fails as networks do: replies lost after the command ran, silence, cut connections."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable
from pathlib import Path


class Proxy:
    """Listens on a socket and forwards bytes.

    ``requests`` counts the requests of clients. Instead of the reply to request number ``lose``, both ends are closed.
    After request number ``last``, connections are closed instead of forwarding another. While ``silent``, nothing is
    forwarded in either direction.
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
        """Close all current connections."""
        for end in self._ends:
            with_shutdown(end)

    def close(self) -> None:
        """Stop listening, and close all connections."""
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
    """Close a socket in both directions, so that threads that wait for it go on."""
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
