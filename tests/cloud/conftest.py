"""Fixtures of the cloud tier: the runner's image once per session; per module a server that pods reach, namespaces
with a worker's least rights, and a worker that has no others."""

from __future__ import annotations

import fcntl
import os
import secrets
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloud.k8s import address, kubectl
from tests.cloud.sandbox import Estate, PodServer
from tests.integration.docker_engine import docker
from tests.integration.workers import ROOT

IMAGE = "flow-dispatcher-runner:cloud"


def _without(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"{reason}, which CI needs")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def cluster() -> str:
    """The API server's address; tests skip without."""
    if not os.environ.get("KUBECONFIG"):
        _without("KUBECONFIG names no cluster (see CONTRIBUTING.md)")
    if shutil.which("kubectl") is None:
        _without("kubectl isn't installed")
    return kubectl("config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}")


@pytest.fixture(scope="session")
def image(cluster: str) -> str:
    """The runner's image, in the cluster: built here and loaded, or one that the cluster can pull."""
    if named := os.environ.get("DISPATCHER_TEST_IMAGE"):
        return named
    loader, base = os.environ.get("DISPATCHER_TEST_IMAGE_LOADER"), os.environ.get("DISPATCHER_TEST_BASE_IMAGE")
    if not loader:
        _without("neither DISPATCHER_TEST_IMAGE nor DISPATCHER_TEST_IMAGE_LOADER (such as 'kind load docker-image')")
    arguments = ["--build-arg", f"BASE={base}"] if base else []
    with _alone("image"):
        docker("build", "-q", "--network", "host", *arguments, "-f", str(ROOT / "compose/Dockerfile"), "-t", IMAGE,
               str(ROOT))  # fmt: skip
        done = subprocess.run([*shlex.split(str(loader)), IMAGE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return IMAGE


class _alone:  # noqa: N801 - used like a function
    """One process of this machine at a time, or several that share it."""

    def __init__(self, what: str, *, shared: bool = False) -> None:
        self._how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        self._path = Path(tempfile.gettempdir()) / f"flow-dispatcher-tests-{os.getuid()}-{what}"

    def __enter__(self) -> None:
        self._file = self._path.open("w")
        fcntl.flock(self._file, self._how)

    def __exit__(self, *_: object) -> None:
        self._file.close()


@pytest.fixture(scope="module")
def calm(request: pytest.FixtureRequest) -> Iterator[None]:
    """Nobody else breaks the cluster. A module that ``BREAKS_THE_CLUSTER`` has it alone."""
    with _alone("cluster", shared=not getattr(request.module, "BREAKS_THE_CLUSTER", False)):
        yield


@pytest.fixture(scope="module")
def pod_server() -> Iterator[PodServer]:
    """A server that pods reach, with a password."""
    with tempfile.TemporaryDirectory(prefix="dsp-") as directory:
        one = PodServer(Path(directory), address())
        one.start()
        try:
            yield one
        finally:
            one.kill()


@pytest.fixture(scope="module")
def estate(
    cluster: str,
    image: str,
    pod_server: PodServer,
    calm: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Estate]:
    """Namespaces, workers and a client of this module."""
    one = Estate(pod_server, image, tmp_path_factory.mktemp("estate"), f"dsp-{secrets.token_hex(3)}")
    try:
        one.open()
        yield one
    finally:
        one.close()
