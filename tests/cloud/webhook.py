"""A mutating admission webhook: an HTTPS server on this machine that the API server calls."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.cloud import k8s

Json = dict[str, Any]

#: Returns the JSON patch for a new object.
Change = Callable[[Json], list[Json]]

_MAKE_CERTIFICATE = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=webhook -keyout key.pem -out cert.pem"


class Webhook:
    """Changes each new Job and pod of one namespace.

    Args:
        namespace: the namespace; the webhook's configuration gets its name.
        directory: for its certificate.
        change: returns the patches; called on several threads.
    """

    def __init__(self, namespace: str, directory: Path, change: Change) -> None:
        self._namespace = namespace
        self._directory = directory
        self._server = _Server((k8s.address(), 0), _Handler)
        self._server.change = change
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Webhook:
        host, port = self._server.server_address[:2]
        subject = ["-addext", f"subjectAltName=IP:{host!s}"]
        subprocess.run([*_MAKE_CERTIFICATE.split(), *subject], cwd=self._directory, check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._directory / "cert.pem", self._directory / "key.pem")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread.start()
        k8s.apply(self._configuration(f"https://{host!s}:{port}/"))
        return self

    def __exit__(self, *_: object) -> None:
        k8s.kubectl("delete", "mutatingwebhookconfiguration", self._namespace, "--ignore-not-found", check=False)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _configuration(self, url: str) -> Json:
        bundle = base64.b64encode((self._directory / "cert.pem").read_bytes()).decode()
        rule = {"apiVersions": ["v1"], "operations": ["CREATE"]}
        hook = {
            "name": "changes.tests.example",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "timeoutSeconds": 20,
            "failurePolicy": "Fail",
            "clientConfig": {"url": url, "caBundle": bundle},
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self._namespace}},
            "rules": [
                {**rule, "apiGroups": ["batch"], "resources": ["jobs"]},
                {**rule, "apiGroups": [""], "resources": ["pods"]},
            ],
        }
        return {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": self._namespace},
            "webhooks": [hook],
        }


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    change: Change

    def handle_error(self, request: Any, client_address: Any) -> None: ...


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        patch = json.dumps(self.server.change(review["request"]["object"])).encode()
        response = {
            "uid": review["request"]["uid"],
            "allowed": True,
            "patchType": "JSONPatch",
            "patch": base64.b64encode(patch).decode(),
        }
        data = json.dumps({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None: ...
