"""A real Dask cluster for tests: a scheduler and a worker process that can't import what stands beside the tests.

It speaks TLS with certificates that Dask's configuration names, here and in every process started meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dask
import distributed
from distributed.security import Security


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
    os.environ.update(variables)
    try:
        with dask.config.set(configuration):
            yield
    finally:
        for name in variables:
            del os.environ[name]
