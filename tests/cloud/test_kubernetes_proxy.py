"""The backend behind a fault proxy, on a real API server: rows 22 to 24 of the fault matrix, with the rights of the
documentation's Role. No scheduler handles the pods of its Jobs; the test writes their status."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from backends.base import Observation, Phase, Request
from backends.kubernetes.backend import KubernetesBackend
from backends.kubernetes.settings import ClusterSettings, KubernetesSettings
from dispatcher import Cause, KubernetesJobEnvironment, Settings
from dispatcher.errors import Permanent, Transient
from tests.cloud import k8s
from tests.cloud.fake_runners import UNSCHEDULED_JOB
from tests.kubernetes_proxy import Fault, FaultProxy
from tests.unit.kubernetes.jobs import attempt
from tests.waiting import wait_until

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(300)]

SECRETS = {"DISPATCHER__URL": "redis://records.svc/0", "DISPATCHER__RUN__TOKEN": "token-of-the-attempt"}


@pytest.fixture(scope="module")
def namespace(cluster: str, cluster_lock: None) -> Iterator[str]:
    """Namespace of all tests, each of which has its own installation."""
    name = f"dsp-{secrets.token_hex(3)}-proxy"
    k8s.create_namespace(name)
    try:
        k8s.bind_roles(name, name)
        yield name
    finally:
        k8s.kubectl("delete", "namespace", "--wait=false", name, check=False)


@pytest.fixture(scope="module")
def admin(namespace: str) -> k8s.NamespaceAdmin:
    """Client that plays the kubelet."""
    return k8s.NamespaceAdmin(namespace)


@pytest.fixture(scope="module")
def proxy(cluster: str) -> Iterator[FaultProxy]:
    """Fault proxy before the real API server."""
    with FaultProxy(k8s.connector()) as proxy:
        yield proxy


class Installation:
    """An installation in the namespace, with a backend and one run."""

    def __init__(self, namespace: str, config: Path, **settings: Any) -> None:
        self.run_id = f"r{secrets.token_hex(8)}"
        self._instance = f"i{secrets.token_hex(4)}"
        options = {"clusters": {"it": ClusterSettings(kubeconfig=config)}, "namespaces": (namespace,), **settings}
        kubernetes = KubernetesSettings(url="redis://records.svc/0", **options)
        self.backend = KubernetesBackend(Settings.load(kubernetes=kubernetes))

    def request(self, **changes: Any) -> Request:
        """Return the request of an attempt."""
        environment = KubernetesJobEnvironment(job_spec=UNSCHEDULED_JOB)
        name = f"flow-{self.run_id}-1"
        values = {"run_id": self.run_id, "name": name, "instance": self._instance, "environment": environment}
        variables = {"DISPATCHER__RUN__ID": self.run_id}
        return self.backend.prepare(attempt(number=1, variables=variables, **{**values, **changes}))

    def until(self, handle: Any, phase: Phase, cause: Cause | None = None) -> Observation:
        """Wait for an observation of that phase and cause."""

        def matching() -> list[Observation]:
            observation = self.backend.poll([handle])[0]
            return [observation] if (observation.phase, observation.cause) == (phase, cause) else []

        return wait_until(matching, f"{phase} {cause}", timeout=60, every=0.1)[0]

    def watch_health(self, namespace: str, kind: str) -> Any:
        """Return the state of a watch."""
        return self.backend._watches.get(namespace, self._instance).health[kind]


@pytest.fixture(scope="module")
def config(namespace: str, proxy: FaultProxy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kubeconfig of the worker, with the proxy as server."""
    return k8s.worker_kubeconfig(namespace, tmp_path_factory.mktemp("config"), proxy=proxy.port)


@contextmanager
def opened(namespace: str, config: Path, **settings: Any) -> Iterator[Installation]:
    installation = Installation(namespace, config, **settings)
    try:
        yield installation
    finally:
        installation.backend.close()


@pytest.fixture
def installation(namespace: str, config: Path, proxy: FaultProxy) -> Iterator[Installation]:
    proxy.faults.clear()
    proxy.triggered.clear()
    with opened(namespace, config, request_timeout=20.0, silence=30.0) as installation:
        yield installation


def created_objects(admin: k8s.NamespaceAdmin, installation: Installation) -> list[tuple[str, str]]:
    """Return kinds and UIDs of the run's Jobs and Secrets, from the API server."""
    selector = f"flow_run_id={installation.run_id}"
    return [(kind, item["metadata"]["uid"]) for kind in ("jobs", "secrets") for item in admin.list(kind, selector)]


def pod_of(admin: k8s.NamespaceAdmin, installation: Installation) -> str:
    """Return the name of the run's pod, once the Job controller has created it."""
    pods = wait_until(
        lambda: admin.list("pods", f"flow_run_id={installation.run_id}"), "the pod", timeout=60, every=0.1
    )
    return str(pods[0]["metadata"]["name"])


def set_running(admin: k8s.NamespaceAdmin, pod: str) -> None:
    """Set the pod's status to that of a running flow."""
    state = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    admin.set_pod_status(pod, phase="Running", containerStatuses=[container(state)])


def container(state: dict[str, Any]) -> dict[str, Any]:
    """Return the status of the flow's container."""
    return {"name": "flow", "state": state, "image": "flows:1", "imageID": "", "ready": False, "restartCount": 0}


@pytest.mark.row(22)
@pytest.mark.parametrize("kind", ["lost_reply", "truncate", "cut"])
@pytest.mark.parametrize("path", ["/jobs", "/secrets"])
def test_row_22_the_reply_to_a_create_is_lost(
    kind: str, path: str, installation: Installation, admin: k8s.NamespaceAdmin, proxy: FaultProxy
) -> None:
    proxy.inject(kind, "POST", path)
    handle = installation.backend.submit(installation.request(), SECRETS)
    assert len(proxy.triggered) == 1
    created = created_objects(admin, installation)
    assert [kind for kind, _ in created] == ["jobs", "secrets"]
    assert created[0][1] == handle["uid"]


@pytest.mark.row(22)
def test_row_22_nobody_answers_after_the_commit(
    namespace: str, config: Path, admin: k8s.NamespaceAdmin, proxy: FaultProxy
) -> None:
    with opened(namespace, config, request_timeout=2.0) as installation:
        proxy.inject("silent", "POST", "/jobs")
        handle = installation.backend.submit(installation.request(), SECRETS)
        assert created_objects(admin, installation)[0] == ("jobs", handle["uid"])


@pytest.mark.row(23)
def test_row_23_the_name_is_somebody_elses(installation: Installation, admin: k8s.NamespaceAdmin) -> None:
    installation.backend.submit(installation.request(flow="another"), SECRETS)
    before = created_objects(admin, installation)
    with pytest.raises(Permanent, match="created by somebody else") as raised:
        installation.backend.submit(installation.request(), SECRETS)
    assert (raised.value.cause, raised.value.reason) == (Cause.START_FAILED, "AlreadyExists")
    assert created_objects(admin, installation) == before


@pytest.mark.row(23)
def test_row_23_ours_is_being_deleted(installation: Installation, admin: k8s.NamespaceAdmin) -> None:
    handle = installation.backend.submit(installation.request(), SECRETS)
    name = handle["name"]
    admin.request("PATCH", f"jobs/{name}", {"metadata": {"finalizers": ["tests.example/hold"]}})
    assert not installation.backend.cancel(handle, None)
    with pytest.raises(Permanent, match="is being deleted") as raised:
        installation.backend.submit(installation.request(), SECRETS)
    assert raised.value.cause is Cause.KILLED
    admin.request("PATCH", f"jobs/{name}", {"metadata": {"finalizers": None}})
    wait_until(lambda: installation.backend.cancel(handle, None), "the Job's end", timeout=60, every=0.2)
    assert installation.backend.submit(installation.request(), SECRETS)["uid"] != handle["uid"]


@pytest.mark.row(23)
@pytest.mark.parametrize(
    ("status", "headers", "wait"), [(429, {"Retry-After": "2"}, 2.0), (500, {}, 1.0), (503, {"Retry-After": "7"}, 7.0)]
)
def test_row_23_a_busy_server_is_asked_again(
    status: int,
    headers: dict[str, str],
    wait: float,
    installation: Installation,
    admin: k8s.NamespaceAdmin,
    proxy: FaultProxy,
) -> None:
    proxy.inject("status", "POST", "/jobs", status=status, reason="Busy", headers=headers)
    with pytest.raises(Transient, match="Busy: injected") as raised:
        installation.backend.submit(installation.request(), SECRETS)
    assert raised.value.retry_in == wait
    assert created_objects(admin, installation) == []
    assert (
        installation.backend.submit(installation.request(), SECRETS)["uid"]
        == created_objects(admin, installation)[0][1]
    )


@pytest.mark.row(23)
def test_row_23_a_credential_that_is_refused_is_read_anew(
    installation: Installation, admin: k8s.NamespaceAdmin, proxy: FaultProxy
) -> None:
    proxy.inject("status", "POST", "/jobs", status=401, reason="Unauthorized")
    assert (
        installation.backend.submit(installation.request(), SECRETS)["uid"]
        == created_objects(admin, installation)[0][1]
    )
    proxy.inject("status", "POST", "/jobs", status=401, reason="Unauthorized", times=2)
    with pytest.raises(Transient, match="401"):
        installation.backend.submit(installation.request(), SECRETS)


@pytest.mark.row(23)
def test_row_23_a_conflict_of_others_and_one_of_ours(
    installation: Installation, admin: k8s.NamespaceAdmin, proxy: FaultProxy
) -> None:
    proxy.inject("status", "POST", "/jobs", status=409, reason="Conflict", times=2)
    first = installation.backend.submit(installation.request(), SECRETS)
    assert installation.backend.submit(installation.request(), SECRETS) == first, "409 AlreadyExists, and it is ours"
    assert [kind for kind, _ in created_objects(admin, installation)] == ["jobs", "secrets"]


@pytest.mark.row(24)
@pytest.mark.parametrize("fault", ["truncate", "cut", "garbage", "gone"])
def test_row_24_a_watch_breaks_off(
    fault: str, namespace: str, installation: Installation, admin: k8s.NamespaceAdmin, proxy: FaultProxy
) -> None:
    proxy.inject(fault, "GET", "/pods?watch=1")
    handle = installation.backend.submit(installation.request(), SECRETS)
    installation.until(handle, Phase.WAITING)
    set_running(admin, pod_of(admin, installation))
    installation.until(handle, Phase.RUNNING)
    wait_until(lambda: proxy.triggered, "the fault", timeout=60)
    assert installation.watch_health(namespace, "pods").lists == (2 if fault == "gone" else 1)


@pytest.mark.row(24)
def test_row_24_a_watch_stays_silent(
    namespace: str, config: Path, admin: k8s.NamespaceAdmin, proxy: FaultProxy
) -> None:
    with opened(namespace, config, silence=2.0) as installation:
        proxy.inject("stall", "GET", "/pods?watch=1")
        handle = installation.backend.submit(installation.request(), SECRETS)
        installation.until(handle, Phase.WAITING)
        set_running(admin, pod_of(admin, installation))
        installation.until(handle, Phase.RUNNING)
        assert installation.watch_health(namespace, "pods").lists == 1


@pytest.mark.row(24)
@pytest.mark.parametrize("fault", ["gone", "bookmarks"])
def test_row_24_an_event_is_lost(
    fault: str, namespace: str, config: Path, admin: k8s.NamespaceAdmin, proxy: FaultProxy
) -> None:
    """A pod is deleted while its watch is silent: the next list lacks it, and its last state says how it ended."""
    with opened(namespace, config, silence=3.0, relist=4.0 if fault == "bookmarks" else 300.0) as installation:
        handle = installation.backend.submit(installation.request(), SECRETS)
        pod = pod_of(admin, installation)
        set_running(admin, pod)
        installation.until(handle, Phase.RUNNING)
        watch = installation.watch_health(namespace, "pods")
        proxy.inject("bookmarks" if fault == "bookmarks" else "stall", "GET", "/pods?watch=1", times=50)
        before = watch.watches
        wait_until(lambda: watch.watches > before, "the silent watch", timeout=60)
        admin.request("DELETE", f"jobs/{handle['name']}?propagationPolicy=Background")
        wait_until(lambda: not admin.list("pods", f"flow_run_id={installation.run_id}"), "the pod's end", timeout=60)
        lists = watch.lists
        with proxy.lock:
            proxy.faults[:] = [Fault("gone", "GET", "/pods?watch=1")] if fault == "gone" else []
        observation = installation.until(handle, Phase.GONE, Cause.KILLED)
        assert observation.reason == "deleted"
        assert watch.lists > lists - (fault == "bookmarks")
