"""A real Dask cluster for tests: a scheduler and a worker process that can't import what stands beside the tests.

It speaks TLS with certificates that Dask's configuration names, here and in every process started meanwhile.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dask
import distributed
from distributed.security import Security

from tests.conftest import PYTHON
from tests.waiting import wait_until


@contextmanager
def cluster(directory: Path) -> Iterator[str]:
    """The scheduler's address."""
    here = Path.cwd()
    with certificates(directory):
        os.chdir(directory)  # worker processes look for modules where they start
        try:
            made = distributed.LocalCluster(
                n_workers=1, threads_per_worker=2, processes=True, dashboard_address="127.0.0.1:0", host="127.0.0.1",
                protocol="tls://", security=Security(require_encryption=True),
            )  # fmt: skip
        finally:
            os.chdir(here)
        with made:
            yield str(made.scheduler_address)


class Nodes:
    """A scheduler and workers, each a process of its own, that start in ``directory`` and keep temporary files there.

    Args:
        directory: an empty directory.
        environ: variables of the scheduler, in addition to this process's.
    """

    def __init__(self, directory: Path, environ: dict[str, str] | None = None) -> None:
        self.directory = directory
        self.temporary = directory / "tmp"
        self.temporary.mkdir(mode=0o700)
        self._processes: list[subprocess.Popen[bytes]] = []
        file = directory / "scheduler.json"
        self._start("scheduler", "--protocol", "tls", "--port", "0", "--scheduler-file", str(file), environ=environ)
        wait_until(lambda: file.exists() and file.read_text().endswith("}"), "the scheduler", timeout=60)
        self.address = str(json.loads(file.read_text())["address"])

    def add_worker(self, *, environ: dict[str, str] | None = None) -> None:
        """Start a worker with one thread, and a nanny. Doesn't wait for it."""
        self._start("worker", self.address, "--nworkers", "1", "--nthreads", "1", environ=environ)

    def client(self) -> distributed.Client:
        """Connect to the scheduler; doesn't become the default client."""
        return distributed.Client(self.address, set_as_default=False)

    def end(self) -> None:
        """Terminate all."""
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()

    @property
    def output(self) -> str:
        """Their log lines so far."""
        return "".join(path.read_text() for path in sorted(self.directory.glob("*.log")))

    def _start(self, kind: str, *arguments: str, environ: dict[str, str] | None = None) -> None:
        command = [PYTHON, "-m", f"distributed.cli.dask_{kind}", *arguments, "--host", "127.0.0.1", "--no-dashboard"]
        variables = {**os.environ, "TMPDIR": str(self.temporary), **(environ or {})}
        with (self.directory / f"{kind}-{len(self._processes)}.log").open("wb") as log:
            self._processes.append(subprocess.Popen(command, cwd=self.directory, env=variables, stdout=log, stderr=log))


@contextmanager
def nodes(directory: Path, *, workers: int = 1) -> Iterator[Nodes]:
    """A scheduler and workers that are processes of their own, while certificates are set for this process, too."""
    with certificates(directory):
        made = Nodes(directory)
        try:
            for _ in range(workers):
                made.add_worker()
            yield made
        finally:
            made.end()
            print(made.output)  # noqa: T201 - pytest shows it if a test failed


@contextmanager
def certificates(directory: Path) -> Iterator[None]:
    """Dask's configuration with certificates made for this, as files; as its variables too."""
    made = Security.temporary()
    key, certificate = directory / "dask.pem", directory / "dask.crt"
    key.touch(0o600)
    key.write_text(made.tls_worker_key)
    certificate.write_text(made.tls_worker_cert)
    tls: dict[str, str] = {"ca-file": str(certificate)}
    for role in ("client", "scheduler", "worker"):
        tls |= {f"{role}.cert": str(certificate), f"{role}.key": str(key)}
    configuration = {f"distributed.comm.tls.{name}": path for name, path in tls.items()}
    variables = {
        f"DASK_{name.replace('.', '__').replace('-', '_').upper()}": path for name, path in configuration.items()
    }
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        with dask.config.set(configuration):
            yield
    finally:
        for name in variables:
            del os.environ[name]
        os.environ.update({name: before[name] for name in variables if name in before})
