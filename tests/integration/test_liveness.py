"""A worker's liveness file: it appears once the worker is ready, and goes when the worker leaves."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.workers import Worker
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


def test_a_worker_gives_a_sign_of_life(start_worker: Callable[..., Worker], tmp_path: Path) -> None:
    path = tmp_path / "alive"
    worker = start_worker(liveness_file=str(path))
    wait_until(path.exists, "the sign of life")
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert not path.exists()
