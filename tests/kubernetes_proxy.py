"""An HTTP proxy that injects the faults of networks and busy API servers, before a fake or a real API server."""

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
    """A fault of the next ``times`` requests with a method and with ``path`` in their path.

    ``kind``: ``lost_reply`` (carried out, then cut), ``cut`` (never forwarded), ``status`` (answered with ``status``),
    ``silent`` (forwarded, and never answered), ``truncate`` (cut in the middle of a chunk), ``stall`` (nothing follows
    the headers). Of watches: ``gone`` (starts with a 410 event), ``garbage`` (starts with a line that isn't JSON),
    ``bookmarks`` (only bookmarks are forwarded).
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

#: First line of a watch, by the kind of fault.
_FIRST_LINE = {
    "gone": json.dumps({"type": "ERROR", "object": _EXPIRED}).encode() + b"\n",
    "garbage": b"\x00no json\n",
}


class FaultProxy:
    """Forwards requests to an API server.

    Args:
        connect: opens a connection to the API server.
        headers: added to each request, such as a credential.
    """

    def __init__(self, connect: Callable[[], HTTPConnection], headers: Mapping[str, str] | None = None) -> None:
        self.connect = connect
        self.headers = dict(headers or {})
        self.faults: list[Fault] = []
        self.triggered: list[Fault] = []  #: faults that occurred, in order
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
        """Make the next such request fail."""
        with self.lock:
            self.faults.append(Fault(kind, method, path, **more))

    def take(self, method: str, path: str) -> Fault | None:
        """Return the fault for this request, if there is one."""
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
        self._respond()

    def do_POST(self) -> None:
        self._respond()

    def do_DELETE(self) -> None:
        self._respond()

    def log_message(self, format: str, *args: Any) -> None: ...

    def _respond(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else None
        fault = self.server.proxy.take(self.command, self.path)
        kind = fault.kind if fault else ""
        if kind == "cut":
            self._cut()
        elif fault is not None and kind == "status":
            self._send_status(fault)
        else:
            self._forward(body, kind)

    def _forward(self, body: bytes | None, kind: str) -> None:
        proxy = self.server.proxy
        upstream = proxy.connect()
        headers = {name: value for name, value in self.headers.items() if name.lower() not in {"host", "connection"}}
        try:
            upstream.request(self.command, self.path, body, {**headers, **proxy.headers})
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
                self._send_whole(response, kind)
        except OSError:
            self._cut()
        finally:
            upstream.close()

    def _send_whole(self, response: HTTPResponse, kind: str) -> None:
        data = response.read()
        self._send_head(response, {"Content-Length": str(len(data))})
        self.wfile.write(data[: len(data) // 2] if kind == "truncate" else data)
        if kind == "truncate":
            self._cut()

    def _stream(self, response: HTTPResponse, kind: str) -> None:
        self._send_head(response, {"Transfer-Encoding": "chunked"})
        if kind == "stall":
            self.server.proxy.closing.wait()
        if kind in _FIRST_LINE:
            self._send_chunk(_FIRST_LINE[kind])
        while data := response.readline() if kind == "bookmarks" else response.read1(65536):
            if kind == "truncate":
                self.wfile.write(b"%x\r\n%b" % (len(data), data[: len(data) // 2]))
                self._cut()
                return
            if kind != "bookmarks" or b'"BOOKMARK"' in data[:40]:
                self._send_chunk(data)
        self.wfile.write(b"0\r\n\r\n")

    def _send_chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()

    def _send_head(self, response: HTTPResponse, framing: Mapping[str, str]) -> None:
        self.send_response(response.status)
        self.send_header("Content-Type", response.headers.get("Content-Type", "application/json"))
        for warning in response.headers.get_all("Warning") or ():
            self.send_header("Warning", warning)
        for name, value in framing.items():
            self.send_header(name, value)
        self.end_headers()

    def _send_status(self, fault: Fault) -> None:
        status = {"kind": "Status", "code": fault.status, "reason": fault.reason, "message": fault.message}
        data = json.dumps(status).encode()
        self.send_response(fault.status)
        for name, value in {**fault.headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _cut(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
