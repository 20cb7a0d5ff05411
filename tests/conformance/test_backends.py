"""The contract of backends, for all that there are. A new one adds a service; those in the worker's pool have none."""

from __future__ import annotations

import importlib
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

import pytest

from backends.base import Phase
from backends.dask_kubernetes.backend import DaskKubernetesBackend
from backends.fake import FakeBackend, FakeEnvironment
from backends.kubernetes.backend import KubernetesBackend
from backends.kubernetes.settings import ClusterSettings, KubernetesSettings
from dispatcher import (
    Cause,
    DaskKubernetesEnvironment,
    KubernetesJobEnvironment,
    LocalEnvironment,
    RemoteEnvironment,
    Settings,
    registry,
)
from dispatcher.environments.base import Environment
from dispatcher.runs.attempt import Attempt
from dispatcher.testing import BackendContract, BackendService
from tests.docs.blocks import blocks
from tests.installed_plugin import installed
from tests.kubernetes_api import FakeApiServer, FakeCluster, kubeconfig
from tests.kubernetes_proxy import FaultProxy
from tests.waiting import wait_until


class NamedBackendContract(BackendContract):
    """The contract, for backends whose handles hold a name and a UID."""

    def test_a_handle_of_what_never_was_is_gone(self, service: BackendService) -> None:
        first, second = (service.submit(service.request(f"flow-l-{number}")) for number in (1, 2))
        never = {**first, "name": "flow-never-1", "uid": "none"}

        def settled() -> bool:
            phases = [str(observation.phase) for observation in service.poll(second, never, first)]
            return phases[1] == Phase.GONE and {phases[0], phases[2]} <= service.phases

        wait_until(settled, f"{', '.join(sorted(service.phases))} of two, and nothing between", timeout=60)


class TestFake(NamedBackendContract):
    @pytest.fixture
    def service(self, tmp_path: Path) -> Iterator[BackendService]:
        ledger = tmp_path / "ledger.jsonl"
        service = BackendService(
            backend=FakeBackend(),
            environment=FakeEnvironment(tmp_path, "image_pull", workers=(2, 4)),
            created=lambda: ledger.read_text().count('"created"') if ledger.exists() else 0,
            workers_created=lambda: ledger.read_text().count('"worker created"') if ledger.exists() else 0,
            reopen=FakeBackend,
            cause=Cause.IMAGE_PULL,
        )

        @contextmanager
        def lose_reply() -> Iterator[None]:
            service.environment = FakeEnvironment(tmp_path, "lost_reply")
            yield

        service.lose_reply = lose_reply
        yield service
        for file in tmp_path.glob("*.json"):
            file.with_suffix(".deleted").touch()
        wait_until(lambda: not list(tmp_path.glob("*.json")), "an empty service", timeout=60)
        service.backend.close()


@contextmanager
def on_kubernetes(
    folder: Path, backend: type[KubernetesBackend], environment: Environment
) -> Iterator[tuple[BackendService, FakeCluster]]:
    """A backend before an API server in this process, and a node on which no image can be pulled."""
    with FakeApiServer() as server, FaultProxy(lambda: HTTPConnection("127.0.0.1", server.port)) as proxy:
        cluster = ClusterSettings(kubeconfig=kubeconfig(folder, proxy.port))
        kubernetes = KubernetesSettings(clusters={"it": cluster}, url="redis://r.svc/0", request_timeout=20)
        settings = Settings.load(kubernetes=kubernetes)
        state = {"waiting": {"reason": "ErrImagePull", "message": "no route to the registry"}}
        server.cluster.on_job = lambda job: server.cluster.add_pod(
            job, phase="Pending", podIP="10.0.0.7", containerStatuses=[{"name": "flow", "state": state}]
        )
        backends: list[KubernetesBackend] = []

        def reopen() -> KubernetesBackend:
            backends.append(backend(settings))
            return backends[-1]

        @contextmanager
        def lose_reply() -> Iterator[None]:
            proxy.inject("lost_reply", "POST", "/jobs")
            yield

        @contextmanager
        def cut_off() -> Iterator[None]:
            for method in ("GET", "POST", "DELETE"):
                proxy.inject("cut", method, "", times=10**6)
            yield
            proxy.faults.clear()

        service = BackendService(
            backend=reopen(),
            environment=environment,
            created=lambda: sum(change[1:3] == ("ADDED", "jobs") for change in server.cluster.history),
            reopen=reopen,
            cause=Cause.IMAGE_PULL,
            lose_reply=lose_reply,
            cut_off=cut_off,
        )
        yield service, server.cluster
        for opened in backends:
            opened.close()


class TestKubernetes(NamedBackendContract):
    @pytest.fixture
    def service(self, tmp_path: Path) -> Iterator[BackendService]:
        with on_kubernetes(tmp_path, KubernetesBackend, KubernetesJobEnvironment()) as (service, _):
            yield service


class TestDaskKubernetes(NamedBackendContract):
    @pytest.fixture
    def service(self, tmp_path: Path) -> Iterator[BackendService]:
        environment = DaskKubernetesEnvironment(min_workers=2, max_workers=4)
        with on_kubernetes(tmp_path, DaskKubernetesBackend, environment) as (service, cluster):
            service.workers_created = lambda: sum(
                (event, kind) == ("ADDED", "pods") and "dask-worker" in item["metadata"]["labels"]
                for _, event, kind, item in cluster.history
            )
            yield service


class TestPlugin(NamedBackendContract):
    """The backend of a distribution of its own. Its processes end at once: nobody has told them what to run."""

    @pytest.fixture
    def service(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BackendService]:
        plugin = installed()
        monkeypatch.syspath_prepend(str(plugin.target))
        monkeypatch.setenv("PYTHONPATH", plugin.variables["PYTHONPATH"])
        from dispatcher_processes.backend import ProcessBackend
        from dispatcher_processes.environment import ProcessEnvironment
        from dispatcher_processes.settings import ProcessSettings

        processes = tmp_path / "processes"
        processes.mkdir()
        settings = Settings.load(url="redis://localhost/0", processes=ProcessSettings(directory=processes))
        backend = ProcessBackend(settings)
        yield BackendService(
            backend=backend,
            environment=ProcessEnvironment(),
            created=lambda: len(list(processes.glob("[!.]*"))),
            reopen=lambda: ProcessBackend(settings),
            phases=frozenset({"ended"}),
        )
        for orphan in (*backend.orphans("i1"), *backend.orphans("i2")):
            wait_until(partial(backend.cancel, orphan.handle, None), "an empty service", timeout=60)


class TestAuthorsPage(BackendContract):
    """The backend on the page for authors, registered as that page says."""

    @pytest.fixture
    def service(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BackendService]:
        page = (Path(__file__).resolve().parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
        code = {block.title or block.language: block.code for block in blocks("extending.md", page)}
        (tmp_path / "boxes.py").write_text(code["boxes.py"])
        about = tmp_path / "dispatcher_boxes-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: dispatcher-boxes\nVersion: 1.0\n")
        points = tomllib.loads(code["toml"])["project"]["entry-points"]
        groups = (f"[{group}]\n" + "".join(f"{a} = {b}\n" for a, b in names.items()) for group, names in points.items())
        (about / "entry_points.txt").write_text("".join(groups))
        monkeypatch.syspath_prepend(str(tmp_path))
        boxes = importlib.import_module("boxes")
        settings = Settings.load(url="redis://records/0")
        before = set[str]()

        def created() -> int:
            before.update(box["uid"] for box in boxes.SERVICE.values())
            return len(before)

        yield BackendService(
            backend=boxes.BoxBackend(settings),
            environment=boxes.BoxEnvironment(env={"COLOR": "blue"}),
            created=created,
            reopen=lambda: boxes.BoxBackend(settings),
        )
        del sys.modules["boxes"]


@pytest.mark.parametrize("environment", [LocalEnvironment, RemoteEnvironment])
def test_backends_in_the_workers_pool_have_no_infrastructure(environment: type[Environment]) -> None:
    backend = registry.backend(environment.backend)()
    assert backend.name == environment.backend
    assert backend.in_process
    attempt = Attempt(run_id="r", number=1, name="n", instance="i", shard="s", environment={}, variables={})
    calls: list[Callable[[], object]] = [
        lambda: backend.prepare(attempt),
        lambda: backend.submit({}, {}),
        lambda: backend.poll([{}]),
        lambda: backend.cancel({}, None),
    ]
    for call in calls:
        with pytest.raises(NotImplementedError, match="has no infrastructure"):
            call()
    backend.close()
