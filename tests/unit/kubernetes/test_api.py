"""The API client: discovery of cluster and credential, requests, and errors."""

from __future__ import annotations

import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from backends.kubernetes.cluster.api import Api, ApiError, Unclear
from backends.kubernetes.cluster.connection import Unreachable, configure
from backends.kubernetes.settings import ClusterSettings
from backends.rate_limit import Pace
from dispatcher.errors import InvalidSettings
from tests.kubernetes_api import FakeApiServer, FakeCluster, StatusError, kubeconfig
from tests.kubernetes_proxy import FaultProxy

JOB = {"metadata": {"name": "one", "labels": {"instance": "i"}}, "spec": {}}


def api_of(config: Path, **more: Any) -> Api:
    return Api(ClusterSettings(kubeconfig=config), **{"timeout": 5.0, **more})


@pytest.fixture
def api(proxy: FaultProxy, tmp_path: Path) -> Iterator[Api]:
    api = api_of(kubeconfig(tmp_path, proxy.port))
    yield api
    api.close()


def test_objects_are_plain_dicts_and_fields_are_checked_by_the_server(api: Api, cluster: FakeCluster) -> None:
    spec = {**JOB, "spec": {"newer": {"nvidia.com/gpu": 1, "nothing": None}}}
    created = api.create("default", "jobs", spec)
    assert created["spec"] == spec["spec"]
    assert cluster.requests[-1].query == {"fieldValidation": "Strict"}
    assert api.get("default", "jobs", "one") == created
    with pytest.raises(ApiError) as raised:
        api.create("default", "jobs", spec)
    assert (raised.value.status, raised.value.reason) == (409, "AlreadyExists")
    with pytest.raises(ApiError) as raised:
        api.delete("default", "jobs", "one", uid="another")
    assert (raised.value.status, raised.value.reason) == (409, "Conflict")
    api.delete("default", "jobs", "one", uid=created["metadata"]["uid"])
    assert cluster.requests[-1].body is not None
    assert cluster.requests[-1].body["propagationPolicy"] == "Background"
    assert not cluster.objects


def test_lists_come_in_pages(api: Api, cluster: FakeCluster) -> None:
    for number in range(7):
        cluster.create("jobs", {"metadata": {"name": f"job-{number}", "labels": {"instance": "i"}}})
    cluster.create("jobs", {"metadata": {"name": "foreign"}})
    pages = list(api.pages("default", "jobs", {"labelSelector": "instance=i"}, limit=3))
    assert [len(page["items"]) for page in pages] == [3, 3, 1]


def test_a_watch_gives_events_and_bookmarks(api: Api, cluster: FakeCluster) -> None:
    stream = api.watch("default", "jobs", "100", {"labelSelector": "instance=i"}, silence=5.0)
    assert next(stream)["type"] == "BOOKMARK"
    cluster.create("jobs", JOB)
    event = next(event for event in stream if event["type"] != "BOOKMARK")
    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "one")
    cluster.forget()
    with pytest.raises(ApiError) as raised:
        list(stream)
    assert raised.value.status == 410


@pytest.mark.parametrize(
    ("kind", "error", "carried_out"),
    [("lost_reply", Unclear, True), ("cut", Unclear, False), ("truncate", Unclear, True)],
)
def test_an_incomplete_response_is_unclear_and_never_repeated(
    kind: str, error: type[Exception], carried_out: bool, api: Api, proxy: FaultProxy, cluster: FakeCluster
) -> None:
    proxy.inject(kind, "POST", "/jobs")
    with pytest.raises(error):
        api.create("default", "jobs", JOB)
    assert bool(cluster.objects) is carried_out
    assert cluster.count("POST", "jobs") == int(carried_out)


def test_a_silent_server_times_out(proxy: FaultProxy, tmp_path: Path, cluster: FakeCluster) -> None:
    api = api_of(kubeconfig(tmp_path, proxy.port), timeout=0.3)
    proxy.inject("silent", "GET", "/jobs")
    with pytest.raises(Unclear, match="ReadTimeout"):
        api.get("default", "jobs", "one")
    assert cluster.count("GET", "jobs") == 1
    proxy.inject("stall", "GET", "watch=1")
    with pytest.raises(Unclear, match="ReadTimeout"):
        list(api.watch("default", "jobs", "100", {}, silence=0.3))
    proxy.inject("truncate", "GET", "watch=1")
    with pytest.raises(Unclear, match="the watch broke off"):
        list(api.watch("default", "jobs", "100", {}, silence=5))
    api.close()


def test_a_refused_connection_is_unreachable(tmp_path: Path) -> None:
    with FakeApiServer() as stopped:
        port = stopped.port
    with pytest.raises(Unreachable, match="refused"):
        api_of(kubeconfig(tmp_path, port)).get("default", "jobs", "one")


def test_429_slows_all_requests(api: Api, proxy: FaultProxy) -> None:
    proxy.inject("status", "GET", "/jobs", status=429, reason="TooManyRequests", headers={"Retry-After": "30"})
    with pytest.raises(ApiError) as raised:
        api.get("default", "jobs", "one")
    assert (raised.value.status, raised.value.retry_after) == (429, 30.0)
    with pytest.raises(ApiError) as raised:  # at once: its turn would come after the timeout
        api.get("default", "pods", "one")
    assert raised.value.status == 429


def test_rate_limit() -> None:
    now, slept = [0.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    pace = Pace(10.0, clock=lambda: now[0], sleep=sleep)
    assert all(pace.take(within=1) for _ in range(10))
    assert slept == []
    assert pace.take(within=1)
    assert slept == [pytest.approx(0.1)]
    pace.slow(2.0)
    assert not pace.take(within=1.9)
    assert pace.take(within=2.1)
    assert now[0] == pytest.approx(2.1)
    assert pace.take(within=1)
    assert now[0] == pytest.approx(2.3)  # half the rate
    for _ in range(20):
        pace.succeed()
    assert pace.take(within=1)
    assert now[0] == pytest.approx(2.4)


FORKED = """
import os, signal
from backends.rate_limit import Pace, shared
from backends.kubernetes.settings import ClusterSettings
bucket = shared(ClusterSettings(context="a"))
pace = Pace(10.0, bucket=bucket)
assert pace.take(within=0)
child = os.fork()
if child == 0:
    Pace(10.0, bucket=shared(ClusterSettings(context="a"))).slow(60.0)
    with bucket.held():
        os.kill(os.getpid(), signal.SIGKILL)
os.waitpid(child, 0)
assert not pace.take(within=30)
assert Pace(10.0, bucket=shared(ClusterSettings(context="b"))).take(within=0)
"""


def test_all_processes_of_a_worker_share_one_rate_limit() -> None:
    """A 429 slows one token bucket per worker. A process killed while it holds the lock blocks nobody."""
    subprocess.run([sys.executable, "-c", FORKED], check=True, timeout=60)


def test_a_refused_credential_is_reloaded_once(tmp_path: Path, serving: FakeApiServer) -> None:
    config = kubeconfig(tmp_path, serving.port)
    api = api_of(config)
    serving.cluster.create("jobs", JOB)
    api.get("default", "jobs", "one")
    serving.cluster.tokens = {"token-2"}
    kubeconfig(tmp_path, serving.port, user={"token": "token-2"})
    api.get("default", "jobs", "one")
    assert serving.cluster.count("GET", "jobs") == 3
    serving.cluster.tokens = {"token-3"}
    with pytest.raises(ApiError) as raised:
        api.get("default", "jobs", "one")
    assert raised.value.status == 401
    assert serving.cluster.count("GET", "jobs") == 5
    api.close()


def _plugin(folder: Path, program: str) -> dict[str, Any]:
    file = folder / "plugin.py"
    file.write_text(program)
    version = "client.authentication.k8s.io/v1"
    return {"exec": {"apiVersion": version, "command": sys.executable, "args": [str(file)], "interactiveMode": "Never"}}


PLUGIN = """
import json, pathlib, sys
calls = pathlib.Path(__file__).with_name("calls")
calls.write_text(calls.read_text() + "x" if calls.exists() else "x")
print(json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
    "status": {"token": "token-" + str(len(calls.read_text())), "expirationTimestamp": "2099-01-01T00:00:00Z"}}))
"""


def test_an_exec_plugin_is_called_again_when_its_credential_is_refused(tmp_path: Path, serving: FakeApiServer) -> None:
    api = api_of(kubeconfig(tmp_path, serving.port, user=_plugin(tmp_path, PLUGIN)))
    serving.cluster.create("jobs", JOB)
    for _ in range(3):
        api.get("default", "jobs", "one")
    assert (tmp_path / "calls").read_text() == "x"
    serving.cluster.tokens = {"token-2"}
    api.get("default", "jobs", "one")
    assert (tmp_path / "calls").read_text() == "xx"
    api.close()


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import sys; sys.exit('aws: no such profile')", "aws: no such profile"),
        ("print('no json')", "failed to decode"),
        ("import time; time.sleep(3)", "no answer within 0.5 s"),
    ],
)
def test_a_failing_plugin_is_reported_within_its_timeout(
    program: str, message: str, tmp_path: Path, serving: FakeApiServer
) -> None:
    seconds = 0.5 if "sleep" in program else 15.0
    api = api_of(kubeconfig(tmp_path, serving.port, user=_plugin(tmp_path, program)), plugin=seconds)
    with pytest.raises(Unreachable, match=message):
        api.get("default", "jobs", "one")


def test_a_process_without_a_cluster_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(InvalidSettings, match=r"isn't in a pod .* no kubeconfig \(.*none\): set KUBECONFIG"):
        Api(ClusterSettings()).get("default", "jobs", "one")
    file = tmp_path / "config"
    file.write_text("apiVersion: v1\n")
    with pytest.raises(InvalidSettings, match="Invalid kube-config file"):
        configure(ClusterSettings(kubeconfig=file))
    config = kubeconfig(tmp_path, 1)
    with pytest.raises(InvalidSettings, match="context another"):
        configure(ClusterSettings(kubeconfig=config, context="another"))


def test_kubeconfig_comes_from_the_variable(
    tmp_path: Path, serving: FakeApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'absent'}:{kubeconfig(tmp_path, serving.port)}")
    serving.cluster.create("jobs", JOB)
    api = Api(ClusterSettings())
    assert api.get("default", "jobs", "one")["kind"] == "Job"
    api.close()


def test_in_a_pod_its_service_account_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kubernetes.config import incluster_config

    for name, content in (("TOKEN", "pod-token"), ("CERT", "PEM")):
        (tmp_path / name).write_text(content)
        monkeypatch.setattr(incluster_config, f"SERVICE_{name}_FILENAME", str(tmp_path / name))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    configuration = configure(ClusterSettings())
    assert configuration.host == "https://10.0.0.1:443"
    assert configuration.ssl_ca_cert == str(tmp_path / "CERT")
    assert configuration.auth_settings()["BearerToken"]["value"] == "bearer pod-token"
    assert configure(ClusterSettings(kubeconfig=kubeconfig(tmp_path, 5))).host == "http://127.0.0.1:5"


def test_every_configuration_is_separate_and_without_retries(tmp_path: Path) -> None:
    configuration = configure(ClusterSettings(kubeconfig=kubeconfig(tmp_path, 5)))
    assert configuration.retries is False
    assert configuration.keep_alive is True
    assert type(configuration)._default is None  # never the process-wide default


class _Forward(BaseHTTPRequestHandler):
    """A forward proxy: receives absolute URLs and forwards the requests."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.server.hosts.append(parts.netloc)  # type: ignore[attr-defined]
        upstream = HTTPConnection(self.server.upstream)  # type: ignore[attr-defined]
        upstream.request("GET", parts.path, headers={"Authorization": self.headers["Authorization"]})
        response = upstream.getresponse()
        data = response.read()
        upstream.close()
        self.send_response(response.status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def forward(serving: FakeApiServer) -> Iterator[Any]:
    server = HTTPServer(("127.0.0.1", 0), _Forward)
    server.hosts, server.upstream = [], f"127.0.0.1:{serving.port}"  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("by", ["proxy-url", "HTTP_PROXY"])
def test_proxies(
    by: str, forward: Any, serving: FakeApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy_url = f"http://127.0.0.1:{forward.server_address[1]}"
    for name in ("http_proxy", "no_proxy", "HTTP_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    more: dict[str, Any] = {by: proxy_url} if by == "proxy-url" else {}
    config = kubeconfig(tmp_path, 1, server="http://api.cluster.test:6443", **more)
    if by != "proxy-url":
        monkeypatch.setenv("http_proxy", proxy_url)
    serving.cluster.create("jobs", JOB)
    api = api_of(config)
    assert api.get("default", "jobs", "one")["kind"] == "Job"
    assert forward.hosts == ["api.cluster.test:6443"]
    api.close()
    if by != "proxy-url":
        monkeypatch.setenv("no_proxy", "cluster.test")
        with pytest.raises(Unreachable, match=r"api\.cluster\.test"):
            api_of(config).get("default", "jobs", "one")
        assert len(forward.hosts) == 1


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a self-signed certificate for ``api.test``."""
    folder = tmp_path_factory.mktemp("tls")
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=api.test -addext subjectAltName=DNS:api.test "
        "-keyout key.pem -out cert.pem"
    )
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return folder


def test_a_private_ca_and_tls_server_name(tmp_path: Path, authority: Path, serving: FakeApiServer) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "cert.pem", authority / "key.pem")
    serving.wrap(context)
    server = f"https://127.0.0.1:{serving.port}"
    serving.cluster.create("jobs", JOB)
    trusted: dict[str, Any] = {"certificate-authority": str(authority / "cert.pem"), "server": server}
    api = api_of(kubeconfig(tmp_path, 1, **{**trusted, "tls-server-name": "api.test"}))
    assert api.get("default", "jobs", "one")["kind"] == "Job"
    api.close()
    untrusted: list[dict[str, Any]] = [{"server": server}, trusted]
    for fields in untrusted:  # no authority; another name than the certificate's
        with pytest.raises(Unreachable, match="CERTIFICATE_VERIFY_FAILED"):
            api_of(kubeconfig(tmp_path, 1, **fields)).get("default", "jobs", "one")


def test_a_server_error_is_an_api_error(api: Api, cluster: FakeCluster, proxy: FaultProxy) -> None:
    cluster.errors["GET", "jobs"] = StatusError(500, "InternalError", "etcdserver: request timed out")
    with pytest.raises(ApiError, match="500 InternalError: etcdserver: request timed out"):
        api.get("default", "jobs", "one")


def test_logs_and_rights(api: Api, cluster: FakeCluster) -> None:
    assert api.log("default", "pod", "flow") == "line 1\nline 2\n"
    assert cluster.requests[-1].query == {"container": "flow", "tailLines": "200", "limitBytes": "65536"}
    assert api.allowed("default", "jobs", "create")
    cluster.allowed = False
    assert not api.allowed("default", "jobs", "create")


def test_a_server_is_ready_unless_it_reports_otherwise(api: Api, cluster: FakeCluster, proxy: FaultProxy) -> None:
    assert api.ready()
    cluster.ready = False
    assert not api.ready()
    proxy.inject("status", "GET", "/readyz", status=403, reason="Forbidden")
    assert api.ready()
    proxy.inject("status", "GET", "/readyz", status=429, reason="TooManyRequests")
    with pytest.raises(ApiError, match="TooManyRequests"):
        api.ready()
