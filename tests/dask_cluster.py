"""A real Dask cluster for tests: a scheduler and a worker process that can't import what stands beside the tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import distributed


@contextmanager
def cluster(directory: Path) -> Iterator[str]:
    """The scheduler's address."""
    here = Path.cwd()
    os.chdir(directory)  # worker processes look for modules where they start
    try:
        made = distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=True, dashboard_address="127.0.0.1:0", host="127.0.0.1"
        )
    finally:
        os.chdir(here)
    with made:
        yield str(made.scheduler_address)
