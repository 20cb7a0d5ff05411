"""The backend behind a proxy that fails, before the real API server: rows 22 to 24 of the fault matrix, with the rights
of the documentation's Role. Its Jobs' pods are real ones that no scheduler takes; a driver says how they are."""

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
from tests.cloud import place
from tests.cloud.stand_in import UNPLACED
from tests.kubernetes_proxy import Fault, FaultProxy
from tests.unit.kubernetes.jobs import attempt
from tests.waiting import wait_until

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(300)]

SECRETS = {"DISPATCHER__URL": "redis://records.svc/0", "DISPATCHER__RUN__TOKEN": "token-of-the-attempt"}


@pytest.fixture(scope="module")
def namespace(cluster: str, calm: None) -> Iterator[str]:
    """One for all tests, whose installations differ."""
    name = f"dsp-{secrets.token_hex(3)}-proxy"
    place.namespace(name)
    try:
        place.allow(name, name)
        yield name
    finally:
        place.kubectl("delete", "namespace", "--wait=false", name, check=False)


@pytest.fixture(scope="module")
def driver(namespace: str) -> place.Driver:
    """Plays the kubelet."""
    return place.Driver(namespace)


@pytest.fixture(scope="module")
def proxy(cluster: str) -> Iterator[FaultProxy]:
    """Before the real API server."""
    with FaultProxy(place.connector()) as found:
        yield found


class Side:
    """An installation of its own in the namespace."""

    def __init__(self, namespace: str, config: Path, **settings: Any) -> None:
        self.run_id = f"r{secrets.token_hex(8)}"
        self._instance = f"i{secrets.token_hex(4)}"
        given = {"clusters": {"it": ClusterSettings(kubeconfig=config)}, "namespaces": (namespace,), **settings}
        ours = KubernetesSettings(url="redis://records.svc/0", **given)
        self.backend = KubernetesBackend(Settings.load(kubernetes=ours))

    def request(self, **changes: Any) -> Request:
        """That of an attempt."""
        environment = KubernetesJobEnvironment(job_spec=UNPLACED)
        name = f"flow-{self.run_id}-1"
        given = {"run_id": self.run_id, "name": name, "instance": self._instance, "environment": environment}
        variables = {"DISPATCHER__RUN__ID": self.run_id}
        return self.backend.prepare(attempt(number=1, variables=variables, **{**given, **changes}))

    def until(self, handle: Any, phase: Phase, cause: Cause | None = None) -> Observation:
        """Wait until that is seen."""

        def seen() -> list[Observation]:
            found = self.backend.poll([handle])[0]
            return [found] if (found.phase, found.cause) == (phase, cause) else []

        return wait_until(seen, f"{phase} {cause}", timeout=60, every=0.1)[0]

    def watch(self, namespace: str, kind: str) -> Any:
        """How current one watch is."""
        return self.backend._watches.get(namespace, self._instance).health[kind]


@pytest.fixture(scope="module")
def config(namespace: str, proxy: FaultProxy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The worker's kubeconfig, by way of the proxy."""
    return place.kubeconfig_of(namespace, tmp_path_factory.mktemp("config"), proxy=proxy.port)


@contextmanager
def opened(namespace: str, config: Path, **settings: Any) -> Iterator[Side]:
    side = Side(namespace, config, **settings)
    try:
        yield side
    finally:
        side.backend.close()


@pytest.fixture
def side(namespace: str, config: Path, proxy: FaultProxy) -> Iterator[Side]:
    proxy.faults.clear()
    proxy.triggered.clear()
    with opened(namespace, config, request_timeout=20.0, silence=30.0) as found:
        yield found


def there(driver: place.Driver, side: Side) -> list[tuple[str, str]]:
    """Kinds and UIDs of what the run has in the cluster, by the server's own word; not its pod."""
    selector = f"flow_run_id={side.run_id}"
    return [(kind, one["metadata"]["uid"]) for kind in ("jobs", "secrets") for one in driver.list(kind, selector)]


def pod_of(driver: place.Driver, side: Side) -> str:
    """The name of its pod, once the Job's controller has made it."""
    found = wait_until(lambda: driver.list("pods", f"flow_run_id={side.run_id}"), "the pod", timeout=60, every=0.1)
    return str(found[0]["metadata"]["name"])


def runs(driver: place.Driver, pod: str) -> None:
    """Its flow runs."""
    state = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    driver.status(pod, phase="Running", containerStatuses=[container(state)])


def container(state: dict[str, Any]) -> dict[str, Any]:
    """The status of the flow's container."""
    return {"name": "flow", "state": state, "image": "flows:1", "imageID": "", "ready": False, "restartCount": 0}


@pytest.mark.row(22)
@pytest.mark.parametrize("kind", ["lost_reply", "truncate", "cut"])
@pytest.mark.parametrize("path", ["/jobs", "/secrets"])
def test_row_22_the_reply_to_a_create_is_lost(
    kind: str, path: str, side: Side, driver: place.Driver, proxy: FaultProxy
) -> None:
    proxy.inject(kind, "POST", path)
    handle = side.backend.submit(side.request(), SECRETS)
    assert len(proxy.triggered) == 1
    found = there(driver, side)
    assert [one for one, _ in found] == ["jobs", "secrets"]
    assert found[0][1] == handle["uid"]


@pytest.mark.row(22)
def test_row_22_nobody_answers_after_the_commit(
    namespace: str, config: Path, driver: place.Driver, proxy: FaultProxy
) -> None:
    with opened(namespace, config, request_timeout=2.0) as side:
        proxy.inject("silent", "POST", "/jobs")
        handle = side.backend.submit(side.request(), SECRETS)
        assert there(driver, side)[0] == ("jobs", handle["uid"])


@pytest.mark.row(23)
def test_row_23_the_name_is_somebody_elses(side: Side, driver: place.Driver) -> None:
    side.backend.submit(side.request(flow="another"), SECRETS)
    before = there(driver, side)
    with pytest.raises(Permanent, match="created by somebody else") as raised:
        side.backend.submit(side.request(), SECRETS)
    assert (raised.value.cause, raised.value.reason) == (Cause.START_FAILED, "AlreadyExists")
    assert there(driver, side) == before


@pytest.mark.row(23)
def test_row_23_ours_is_being_deleted(side: Side, driver: place.Driver) -> None:
    handle = side.backend.submit(side.request(), SECRETS)
    name = handle["name"]
    driver.ask("PATCH", f"jobs/{name}", {"metadata": {"finalizers": ["tests.example/hold"]}})
    assert not side.backend.cancel(handle, None)
    with pytest.raises(Permanent, match="is being deleted") as raised:
        side.backend.submit(side.request(), SECRETS)
    assert raised.value.cause is Cause.KILLED
    driver.ask("PATCH", f"jobs/{name}", {"metadata": {"finalizers": None}})
    wait_until(lambda: side.backend.cancel(handle, None), "the Job's end", timeout=60, every=0.2)
    assert side.backend.submit(side.request(), SECRETS)["uid"] != handle["uid"]


@pytest.mark.row(23)
@pytest.mark.parametrize(
    ("status", "headers", "wait"), [(429, {"Retry-After": "2"}, 2.0), (500, {}, 1.0), (503, {"Retry-After": "7"}, 7.0)]
)
def test_row_23_a_busy_server_is_asked_again(
    status: int, headers: dict[str, str], wait: float, side: Side, driver: place.Driver, proxy: FaultProxy
) -> None:
    proxy.inject("status", "POST", "/jobs", status=status, reason="Busy", headers=headers)
    with pytest.raises(Transient, match="Busy: injected") as raised:
        side.backend.submit(side.request(), SECRETS)
    assert raised.value.retry_in == wait
    assert there(driver, side) == []
    assert side.backend.submit(side.request(), SECRETS)["uid"] == there(driver, side)[0][1]


@pytest.mark.row(23)
def test_row_23_a_credential_that_is_refused_is_read_anew(side: Side, driver: place.Driver, proxy: FaultProxy) -> None:
    proxy.inject("status", "POST", "/jobs", status=401, reason="Unauthorized")
    assert side.backend.submit(side.request(), SECRETS)["uid"] == there(driver, side)[0][1]
    proxy.inject("status", "POST", "/jobs", status=401, reason="Unauthorized", times=2)
    with pytest.raises(Transient, match="401"):
        side.backend.submit(side.request(), SECRETS)


@pytest.mark.row(23)
def test_row_23_a_conflict_of_others_and_one_of_ours(side: Side, driver: place.Driver, proxy: FaultProxy) -> None:
    proxy.inject("status", "POST", "/jobs", status=409, reason="Conflict", times=2)
    first = side.backend.submit(side.request(), SECRETS)
    assert side.backend.submit(side.request(), SECRETS) == first, "409 AlreadyExists, and it is ours"
    assert [kind for kind, _ in there(driver, side)] == ["jobs", "secrets"]


@pytest.mark.row(24)
@pytest.mark.parametrize("fault", ["truncate", "cut", "garbage", "gone"])
def test_row_24_a_watch_breaks_off(
    fault: str, namespace: str, side: Side, driver: place.Driver, proxy: FaultProxy
) -> None:
    proxy.inject(fault, "GET", "/pods?watch=1")
    handle = side.backend.submit(side.request(), SECRETS)
    side.until(handle, Phase.WAITING)
    runs(driver, pod_of(driver, side))
    side.until(handle, Phase.RUNNING)
    wait_until(lambda: proxy.triggered, "the fault", timeout=60)
    assert side.watch(namespace, "pods").lists == (2 if fault == "gone" else 1)


@pytest.mark.row(24)
def test_row_24_a_watch_stays_silent(namespace: str, config: Path, driver: place.Driver, proxy: FaultProxy) -> None:
    with opened(namespace, config, silence=2.0) as side:
        proxy.inject("stall", "GET", "/pods?watch=1")
        handle = side.backend.submit(side.request(), SECRETS)
        side.until(handle, Phase.WAITING)
        runs(driver, pod_of(driver, side))
        side.until(handle, Phase.RUNNING)
        assert side.watch(namespace, "pods").lists == 1


@pytest.mark.row(24)
@pytest.mark.parametrize("fault", ["gone", "bookmarks"])
def test_row_24_an_event_is_lost(
    fault: str, namespace: str, config: Path, driver: place.Driver, proxy: FaultProxy
) -> None:
    """A pod goes while its watch hears nothing: the next complete list tells, and its last state says how it ended."""
    with opened(namespace, config, silence=3.0, relist=4.0 if fault == "bookmarks" else 300.0) as side:
        handle = side.backend.submit(side.request(), SECRETS)
        pod = pod_of(driver, side)
        runs(driver, pod)
        side.until(handle, Phase.RUNNING)
        watch = side.watch(namespace, "pods")
        proxy.inject("bookmarks" if fault == "bookmarks" else "stall", "GET", "/pods?watch=1", times=50)
        before = watch.watches
        wait_until(lambda: watch.watches > before, "the deaf watch", timeout=60)
        driver.ask("DELETE", f"jobs/{handle['name']}?propagationPolicy=Background")
        wait_until(lambda: not driver.list("pods", f"flow_run_id={side.run_id}"), "the pod's end", timeout=60)
        lists = watch.lists
        with proxy.lock:
            proxy.faults[:] = [Fault("gone", "GET", "/pods?watch=1")] if fault == "gone" else []
        seen = side.until(handle, Phase.GONE, Cause.KILLED)
        assert seen.reason == "deleted"
        assert watch.lists > lists - (fault == "bookmarks")
