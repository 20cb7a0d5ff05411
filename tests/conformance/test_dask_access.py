"""An executor's Dask cluster is closed to other users of the machine."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import distributed
import psutil  # type: ignore[import-untyped]
import pytest
from distributed.security import Security

from dispatcher import DaskExecutor, ExecutorUnavailable
from tests.waiting import wait_until

SMALL = {"n_workers": 1, "threads_per_worker": 1}


def family() -> list[psutil.Process]:
    """Return this process and its descendants."""
    return [psutil.Process(), *psutil.Process().children(recursive=True)]


def listening() -> set[tuple[str, int]]:
    """Return all TCP addresses on which they listen."""
    connections = [connection for process in family() for connection in process.net_connections("tcp")]
    return {(connection.laddr.ip, connection.laddr.port) for connection in connections if connection.status == "LISTEN"}


@pytest.fixture(scope="module")
def before() -> set[tuple[str, int]]:
    """The addresses in use before the cluster started."""
    return listening()


@pytest.fixture(scope="module")
def open_to(before: set[tuple[str, int]]) -> Iterator[set[tuple[str, int]]]:
    """The addresses of an executor's cluster."""
    executor = DaskExecutor(cluster_kwargs=SMALL)
    with executor.start():
        assert executor.submit(os.getpid).result(timeout=30) != os.getpid(), "workers are processes"
        yield listening() - before


async def ask(address: str, security: Security | None) -> Any:
    """Send Dask's identity message to ``address``, which every node answers for clients that it accepts."""
    arguments = security.get_connection_args("client") if security is not None else {}
    async with distributed.rpc(address, connection_args=arguments, timeout=5) as node:
        return await asyncio.wait_for(node.identity(), 10)


def strangers() -> dict[str, tuple[str, Security | None]]:
    """Protocols and certificates of clients that must be refused."""
    theirs = Security.temporary()
    half = Security(require_encryption=True, tls_ca_file=theirs.tls_ca_file)
    return {"in the clear": ("tcp", None), "other certificates": ("tls", theirs), "none": ("tls", half)}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("who", strangers())
def test_every_node_refuses_dask_clients_without_the_certificates(open_to: set[tuple[str, int]], who: str) -> None:
    protocol, security = strangers()[who]
    assert len(open_to) == 3, "scheduler, worker and its nanny; no pages"
    for host, port in open_to:
        with pytest.raises((OSError, TypeError, TimeoutError)):
            asyncio.run(ask(f"{protocol}://{host}:{port}", security))


def test_every_node_accepts_the_cluster_s_own_certificates(open_to: set[tuple[str, int]]) -> None:
    security = distributed.get_client().cluster.security
    for host, port in open_to:
        assert asyncio.run(ask(f"tls://{host}:{port}", security))["type"]


def test_nodes_listen_on_loopback_only_and_serve_no_dashboard(open_to: set[tuple[str, int]]) -> None:
    assert {host for host, _ in open_to} == {"127.0.0.1"}
    for _, port in open_to:
        with pytest.raises((urllib.error.URLError, OSError)):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/info/main/workers.html", timeout=5)


def answer(host: str, port: int, context: ssl.SSLContext) -> bytes:
    """Return the answer to a client without a certificate."""
    try:
        with socket.create_connection((host, port), 5) as raw, context.wrap_socket(raw) as encrypted:
            encrypted.sendall(b"x" * 64)
            return encrypted.recv(1)
    except OSError:
        return b""


def test_a_tls_handshake_without_a_certificate_is_refused(open_to: set[tuple[str, int]]) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for host, port in open_to:
        assert not answer(host, port, context)


def test_no_key_appears_in_a_command_line_or_its_environment(open_to: set[tuple[str, int]]) -> None:
    key = distributed.get_client().cluster.security.tls_worker_key.split()[5].encode()
    read = 0
    for process in family():
        try:
            shown = b"".join(Path(f"/proc/{process.pid}/{name}").read_bytes() for name in ("cmdline", "environ"))
        except (ProcessLookupError, FileNotFoundError):  # another test's child, that ends just now
            continue
        assert b"PRIVATE KEY" not in shown
        assert key not in shown
        read += 1
    assert read


@pytest.mark.parametrize("named", [distributed.LocalCluster, "distributed.LocalCluster"])
def test_dasks_local_cluster_by_name_is_closed_too(named: Any) -> None:
    with DaskExecutor(cluster_class=named, cluster_kwargs=SMALL).start():
        assert distributed.get_client().cluster.scheduler_address.startswith("tls://")


def test_the_user_s_security_and_dashboard_take_precedence() -> None:
    own = Security.temporary()
    arguments = {**SMALL, "security": own, "dashboard_address": "127.0.0.1:0"}
    before = listening()
    with DaskExecutor(cluster_kwargs=arguments).start():
        cluster = distributed.get_client().cluster
        assert cluster.security is own
        assert len(listening() - before) == 4
        with urllib.request.urlopen(
            f"http://127.0.0.1:{cluster.scheduler.http_server.port}/health", timeout=20
        ) as page:
            assert page.status == 200


def test_workers_that_are_added_later_are_closed_too() -> None:
    before = listening()
    with DaskExecutor(cluster_kwargs=SMALL).start():
        client = distributed.get_client()
        client.cluster.scale(2)
        wait_until(lambda: len(client.scheduler_info()["workers"]) == 2, "the second worker", timeout=30)
        assert all(address.startswith("tls://") for address in client.scheduler_info()["workers"])
        assert len(listening() - before) == 5


def scratch() -> list[Any]:
    return [os.environ.get("PYTHONSAFEPATH"), *sys.path]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
@pytest.mark.parametrize("processes", [True, False])
def test_a_directory_that_another_user_prepared_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: bool
) -> None:
    tmp_path.chmod(0o1777)
    planted = tmp_path / "dask-scratch-space"
    planted.mkdir()
    planted.chmod(0o777)
    os.chown(planted, 12345, 12345)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    executor = DaskExecutor(cluster_kwargs={**SMALL, "processes": processes})
    with executor.start():
        (made,) = [path for path in tmp_path.iterdir() if path != planted]
        assert made.stat().st_mode & 0o777 == 0o700
        for entries in (sys.path, executor.submit(scratch).result(timeout=30)):
            assert not [entry for entry in entries if str(entry).startswith(str(planted))]
        workers = distributed.get_client().scheduler_info()["workers"].values()
        directories = [worker["local_directory"] for worker in workers]
        assert all(Path(directory).is_relative_to(made) for directory in directories)
    assert list(tmp_path.iterdir()) == [planted]
    assert not [entry for entry in sys.path if entry.startswith(str(tmp_path))], "anybody may make it again"


def test_a_temporary_directory_that_others_can_change_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o777)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    executor = DaskExecutor(cluster_kwargs=SMALL)
    with pytest.raises(ExecutorUnavailable, match=rf"{tmp_path} \(mode 0777.*TMPDIR"), executor.start():
        pass
    assert not list(tmp_path.iterdir())


WITHOUT = """
import sys
sys.modules["cryptography"] = None
from dispatcher import DaskExecutor, MissingExtra
try:
    with DaskExecutor().start():
        pass
except MissingExtra as error:
    print(error)
"""


def test_without_cryptography_the_extra_is_named() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True, timeout=60)
    assert "cryptography" in done.stdout
    assert "pip install 'flow-dispatcher[dask]'" in done.stdout
