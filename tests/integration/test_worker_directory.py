"""A worker's temporary directory: nothing of dead processes stays in it, and none of a dead worker stays."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from dispatcher import flow
from dispatcher.runs import transitions
from dispatcher.runs.states import State
from tests.integration.workers import Bench, Worker
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

StartWorker = Callable[..., Worker]


@flow
def never_ends(path: str) -> None:
    Path(path).touch()
    while True:
        try:
            time.sleep(60)
        except BaseException:
            continue


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory for temporary files of the workers of a test."""
    directory = tmp_path / "temporary"
    directory.mkdir(0o700)
    monkeypatch.setenv("TMPDIR", str(directory))
    return directory


def aged(directory: Path) -> None:
    """Let a directory look an hour old."""
    os.utime(directory, (time.time() - 3600,) * 2)


def test_nothing_of_a_killed_process_stays(
    bench: Bench, start_worker: StartWorker, tmp_path: Path, temporary: Path
) -> None:
    start_worker(concurrency=1)
    (directory,) = temporary.glob("dispatcher-worker-*")
    run_id = bench.submit(never_ends, {"path": str(tmp_path / "begun")})
    wait_until((tmp_path / "begun").exists, "the flow")
    bench.records.runs.update(run_id, partial(transitions.request_cancel))
    wait_until(lambda: any(path.name.isdecimal() for path in directory.iterdir()), "an interrupt", every=0.01)
    assert bench.ended(run_id).state is State.CANCELLED
    wait_until(lambda: [path.name for path in directory.iterdir()] == ["lock"], "it to be removed")


def test_the_directory_of_a_killed_worker_goes_with_the_next_start(start_worker: StartWorker, temporary: Path) -> None:
    killed, alive = start_worker(concurrency=1), start_worker(concurrency=1)
    before = set(temporary.glob("dispatcher-worker-*"))
    assert len(before) == 2
    killed.kill()
    for directory in before:
        aged(directory)
    other = temporary / "dispatcher-worker-link"
    other.symlink_to(temporary.parent)
    last = start_worker(concurrency=1)
    left = {path for path in temporary.glob("dispatcher-worker-*") if not path.is_symlink()}
    assert len(left) == 2, "that of the killed worker is gone, that of the living one isn't, however old"
    assert len(before & left) == 1
    assert temporary.parent.is_dir()
    last.end()
    alive.end()
    assert list(temporary.glob("dispatcher-worker-*")) == [other]
