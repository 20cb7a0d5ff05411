"""Fixtures of tests on a real cluster: the runner's image once per session; per module a server that pods reach, and a
sandbox of namespaces with the least rights of a worker."""

from __future__ import annotations

import fcntl
import os
import secrets
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cloud.k8s import address, kubectl
from tests.cloud.sandbox import PodServer, Sandbox
from tests.integration.docker_engine import docker
from tests.integration.workers import ROOT

IMAGE = "flow-dispatcher-runner:cloud"
#: With all that a worker of any backend on a cluster and the pods of a Dask cluster import; numpy is for Dask arrays.
WORKER_IMAGE = "flow-dispatcher-worker:cloud"
WORKER_ARGUMENTS = ("--build-arg", "EXTRAS=[dask-operator]", "--build-arg", "INSTALL=numpy>=2,<3")


def _skip_or_fail(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"{reason}, which CI needs")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def cluster() -> str:
    """Address of the API server; tests skip without one."""
    if not os.environ.get("KUBECONFIG"):
        _skip_or_fail("KUBECONFIG names no cluster (see CONTRIBUTING.md)")
    if shutil.which("kubectl") is None:
        _skip_or_fail("kubectl isn't installed")
    return kubectl("config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}")


@pytest.fixture(scope="session")
def image(cluster: str) -> str:
    """Name of the runner's image: built here and loaded into the cluster, or one that the cluster can pull."""
    return os.environ.get("DISPATCHER_TEST_IMAGE") or _loaded(IMAGE)


@pytest.fixture(scope="session")
def worker_image(cluster: str) -> str:
    """Name of a worker's image, the runner's with the extras; flows on Dask clusters run in it, too."""
    return os.environ.get("DISPATCHER_TEST_WORKER_IMAGE") or _loaded(WORKER_IMAGE, *WORKER_ARGUMENTS)


def _loaded(image: str, *arguments: str) -> str:
    """Build an image of ours and load it into the cluster, once per run of the tests; return its name."""
    loader, base = os.environ.get("DISPATCHER_TEST_IMAGE_LOADER"), os.environ.get("DISPATCHER_TEST_BASE_IMAGE")
    if not loader:
        _skip_or_fail(
            "neither DISPATCHER_TEST_IMAGE and DISPATCHER_TEST_WORKER_IMAGE nor DISPATCHER_TEST_IMAGE_LOADER (such as "
            "'kind load docker-image')"
        )
    arguments = (*arguments, "--build-arg", f"BASE={base}") if base else arguments
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", "")
    marker = Path(tempfile.gettempdir(), f"flow-dispatcher-tests-{os.getuid()}-{run}-{image.replace(':', '-')}")
    with _FileLock("image"):
        if run and marker.exists():
            return image
        docker("build", "-q", "--network", "host", *arguments, "-f", str(ROOT / "compose/Dockerfile"), "-t", image,
               str(ROOT))  # fmt: skip
        result = subprocess.run([*shlex.split(str(loader)), image], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        if run:
            marker.touch()
    return image


@dataclass(frozen=True, kw_only=True)
class PrivateImage:
    """An image in a registry with a password, by an address that the nodes pull from.

    ``config`` is the folder of Docker's configuration with the login.
    """

    image: str
    address: str
    user: str
    password: str
    config: str


@contextmanager
def pushed(image: str, name: str, config: Path) -> Iterator[PrivateImage]:
    """Push an image of the Docker engine to the tests' registry under a name; skip without a registry.

    The login goes to ``config``, not to the user's own configuration, which a kubelet of this machine may read.
    """
    variable = "DISPATCHER_TEST_REGISTRY"
    address = os.environ.get(variable)
    if not address:
        pytest.skip(f"{variable} names no registry with a password")
    user, password = (os.environ.get(f"{variable}_{part}", "") for part in ("USER", "PASSWORD"))
    docker("--config", str(config), "login", "-u", user, "-p", password, address)
    full_name = f"{address}/flows/{name}:tests"
    docker("tag", image, full_name)
    docker("--config", str(config), "push", "-q", full_name)
    try:
        yield PrivateImage(image=full_name, address=address, user=user, password=password, config=str(config))
    finally:
        docker("rmi", full_name, check=False)


class _FileLock:
    """A lock among the processes of this machine, exclusive or shared."""

    def __init__(self, name: str, *, shared: bool = False) -> None:
        self._operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        self._path = Path(tempfile.gettempdir()) / f"flow-dispatcher-tests-{os.getuid()}-{name}"

    def __enter__(self) -> None:
        self._file = self._path.open("w")
        fcntl.flock(self._file, self._operation)

    def __exit__(self, *_: object) -> None:
        self._file.close()


@pytest.fixture(scope="module")
def cluster_lock(request: pytest.FixtureRequest) -> Iterator[None]:
    """Lock of the cluster: shared, but exclusive for a module that ``BREAKS_THE_CLUSTER``."""
    with _FileLock("cluster", shared=not getattr(request.module, "BREAKS_THE_CLUSTER", False)):
        yield


@pytest.fixture(scope="module")
def pod_server() -> Iterator[PodServer]:
    """Server that pods reach, with a password."""
    with tempfile.TemporaryDirectory(prefix="dsp-") as directory:
        server = PodServer(Path(directory), address())
        server.start()
        try:
            yield server
        finally:
            server.kill()


@pytest.fixture(scope="module")
def sandbox(
    cluster: str,
    image: str,
    pod_server: PodServer,
    cluster_lock: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Sandbox]:
    """Namespaces, workers and a client of the module."""
    sandbox = Sandbox(pod_server, image, tmp_path_factory.mktemp("sandbox"), f"dsp-{secrets.token_hex(3)}")
    try:
        sandbox.open()
        yield sandbox
    finally:
        sandbox.close()
