"""An HTTP proxy that fails as networks and busy API servers do. It stands before any API server, also a real one."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Fault:
    """What happens to the next ``times`` requests of a method whose path holds ``path``.

    ``kind``: ``lost_reply`` (carried out, then cut), ``cut`` (never passed on), ``status`` (answered with ``status``),
    ``silent`` (passed on, and never answered), ``truncate`` (cut in the middle of a chunk), ``stall`` (nothing comes
    any more, after the headers). Of watches: ``gone`` (begins with the event that says 410), ``garbage`` (with a line
    that is no JSON), ``bookmarks`` (whatever else happens isn't told).
    """

    kind: str
    method: str
    path: str
    times: int = 1
    status: int = 500
    reason: str = ""
    message: str = "injected"
    headers: Mapping[str, str] = field(default_factory=dict)


_EXPIRED = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}

#: What a watch begins with.
_FIRST = {
    "gone": json.dumps({"type": "ERROR", "object": _EXPIRED}).encode() + b"\n",
    "garbage": b"\x00no json\n",
}


class FaultProxy:
    """Passes requests on to ``connect()``, an open connection to an API server.

    Args:
        connect: makes a connection.
        headers: added to each request, such as a credential.
    """

    def __init__(self, connect: Callable[[], HTTPConnection], headers: Mapping[str, str] | None = None) -> None:
        self.connect = connect
        self.headers = dict(headers or {})
        self.faults: list[Fault] = []
        self.triggered: list[Fault] = []  #: those that happened, in order
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self._server = _Server(self)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def inject(self, kind: str, method: str, path: str, **more: Any) -> None:
        """Let the next such request fail."""
        with self.lock:
            self.faults.append(Fault(kind, method, path, **more))

    def take(self, method: str, path: str) -> Fault | None:
        """The fault for this request, if there is one."""
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and fault.method == method and fault.path in path:
                    fault.times -= 1
                    self.triggered.append(fault)
                    return fault
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, proxy: FaultProxy) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.proxy = proxy

    def handle_error(self, request: Any, client_address: Any) -> None: ...


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self._pass()

    def do_POST(self) -> None:
        self._pass()

    def do_DELETE(self) -> None:
        self._pass()

    def log_message(self, format: str, *args: Any) -> None: ...

    def _pass(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else None
        fault = self.server.proxy.take(self.command, self.path)
        kind = fault.kind if fault else ""
        if kind == "cut":
            self._cut()
        elif fault is not None and kind == "status":
            self._refuse(fault)
        else:
            self._forward(body, kind)

    def _forward(self, body: bytes | None, kind: str) -> None:
        proxy = self.server.proxy
        upstream = proxy.connect()
        passed = {name: value for name, value in self.headers.items() if name.lower() not in {"host", "connection"}}
        try:
            upstream.request(self.command, self.path, body, {**passed, **proxy.headers})
            response = upstream.getresponse()
            if kind == "lost_reply":
                response.read()
                self._cut()
            elif kind == "silent":
                response.read()
                proxy.closing.wait()
                self._cut()
            elif response.headers.get("Transfer-Encoding") == "chunked":
                self._stream(response, kind)
            else:
                self._whole(response, kind)
        except OSError:
            self._cut()
        finally:
            upstream.close()

    def _whole(self, response: HTTPResponse, kind: str) -> None:
        data = response.read()
        self._head(response, {"Content-Length": str(len(data))})
        self.wfile.write(data[: len(data) // 2] if kind == "truncate" else data)
        if kind == "truncate":
            self._cut()

    def _stream(self, response: HTTPResponse, kind: str) -> None:
        self._head(response, {"Transfer-Encoding": "chunked"})
        if kind == "stall":
            self.server.proxy.closing.wait()
        if kind in _FIRST:
            self._chunk(_FIRST[kind])
        while data := response.readline() if kind == "bookmarks" else response.read1(65536):
            if kind == "truncate":
                self.wfile.write(b"%x\r\n%b" % (len(data), data[: len(data) // 2]))
                self._cut()
                return
            if kind != "bookmarks" or b'"BOOKMARK"' in data[:40]:
                self._chunk(data)
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()

    def _head(self, response: HTTPResponse, framing: Mapping[str, str]) -> None:
        self.send_response(response.status)
        self.send_header("Content-Type", response.headers.get("Content-Type", "application/json"))
        for name, value in framing.items():
            self.send_header(name, value)
        self.end_headers()

    def _refuse(self, fault: Fault) -> None:
        said = {"kind": "Status", "code": fault.status, "reason": fault.reason, "message": fault.message}
        data = json.dumps(said).encode()
        self.send_response(fault.status)
        for name, value in {**fault.headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _cut(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
