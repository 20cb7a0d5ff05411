"""A Docker engine, the project's own runner image, and a registry with a password, for tests; they skip without."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import free_port
from tests.integration.workers import ROOT
from tests.waiting import wait_until

IMAGE = "flow-dispatcher-runner:tests"


def docker(*arguments: str, check: bool = True, timeout: float = 550) -> subprocess.CompletedProcess[str]:
    """Run ``docker`` without buildx."""
    environ = {**os.environ, "DOCKER_BUILDKIT": "0"}
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, env=environ, timeout=timeout, check=False
    )
    assert not check or done.returncode == 0, (
        f"docker {' '.join(arguments)}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    )
    return done


def base_image() -> str:
    """Return the base of the tests' runner images, which has the Python version of the tests."""
    default = f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"
    named = os.environ.get("CLUSTER_BASE_IMAGE", "python-base:local")
    for name in (named, default):
        if docker("image", "inspect", name, check=False).returncode == 0:
            return name
    if docker("pull", default, check=False).returncode == 0:
        return default
    pytest.skip(f"neither {named} nor {default} is in the Docker engine, and the latter can't be pulled")


def build_runner(name: str, base: str) -> None:
    """Build ``compose/Dockerfile`` on ``base``."""
    arguments = ["--network", "host", "--build-arg", f"BASE={base}", "-f", str(ROOT / "compose/Dockerfile"), "-t", name]
    docker("build", "-q", *arguments, str(ROOT))


@pytest.fixture(scope="session")
def runner_image() -> str:
    """The image of ``compose/Dockerfile``."""
    pytest.importorskip("docker", reason="the extra 'docker' isn't installed")
    if shutil.which("docker") is None or docker("info", check=False).returncode != 0:
        pytest.skip("no Docker engine answers here")
    base = base_image()
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    there = docker(
        "run", "--rm", base, "python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"
    ).stdout.strip()
    if there != here:
        pytest.skip(f"{base} has Python {there}, the tests run in {here}: flows of one don't open in the other")
    build_runner(IMAGE, base)
    return IMAGE


@pytest.fixture
def default_base(runner_image: str) -> Iterator[str]:
    """The default base of DockerStorage; if it can't be pulled, the tests' base under its name."""
    default = f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"
    if docker("image", "inspect", default, check=False).returncode == 0:
        yield default
        return
    docker("tag", base_image(), default)
    try:
        yield default
    finally:
        docker("rmi", default, check=False)


@dataclass
class Registry:
    """A real registry of this test session, with one user."""

    address: str
    user: str
    password: str

    def login(self, directory: Path) -> dict[str, str]:
        """Write the file of ``docker login`` to a directory, and return the variables that make the SDK find it."""
        directory.mkdir(exist_ok=True)
        word = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        (directory / "config.json").write_text(json.dumps({"auths": {self.address: {"auth": word}}}))
        return {"DOCKER_CONFIG": str(directory)}


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Debian's ``docker-registry`` with ``htpasswd``."""
    program = shutil.which("docker-registry")
    if program is None or shutil.which("htpasswd") is None:
        pytest.skip("docker-registry and htpasswd aren't installed: a registry with a password can't be started")
    directory = tmp_path_factory.mktemp("registry")
    port = free_port()
    line = subprocess.run(
        ["htpasswd", "-Bbn", "someone", "s3cret-word"], capture_output=True, text=True, check=True
    ).stdout
    (directory / "htpasswd").write_text(line)
    (directory / "config.json").write_text(
        json.dumps(
            {
                "version": "0.1",
                "storage": {"filesystem": {"rootdirectory": str(directory / "data")}},
                "http": {"addr": f"127.0.0.1:{port}"},
                "auth": {"htpasswd": {"realm": "tests", "path": str(directory / "htpasswd")}},
            }
        )
    )
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(directory / "config.json")], stdout=log, stderr=log)

    def answers() -> bool:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=1)
        except urllib.error.HTTPError as error:
            return error.code == 401
        except OSError:
            return False
        return False

    try:
        wait_until(answers, "the registry's first answer", timeout=60)
        yield Registry(f"127.0.0.1:{port}", "someone", "s3cret-word")
    finally:
        process.kill()
        process.wait()
