"""The end of a run ends its tasks, on a Dask cluster that goes on and on one of its own."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dispatcher import Dispatcher, RemoteEnvironment, flow, gather, task
from dispatcher.errors import RunCancelled, RunTimedOut
from tests.dask_cluster import cluster
from tests.integration.workers import Worker
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

StartWorker = Callable[..., Worker]
EXECUTOR = "dispatcher.executors.DaskExecutor"


@task
def endless(folder: str, number: int) -> None:
    begun = Path(folder) / f"begun{number}"
    begun.touch()
    print("begun", number)  # noqa: T201
    try:
        while True:
            time.sleep(0.01)
    finally:
        begun.rename(Path(folder) / f"ended{number}")


@task
def sleeps(folder: str) -> None:
    (Path(folder) / "asleep").touch()
    time.sleep(20)


@flow
def many(folder: str) -> Any:
    return gather(endless.map([folder] * 6, range(6)))


@flow
def uninterruptible(folder: str) -> Any:
    return sleeps.submit(folder)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def all_ended(folder: Path) -> bool:
    return all(name.startswith("ended") for name in names(folder))


def test_cancel_timeout_and_a_killed_worker(client: Dispatcher, start_worker: StartWorker, tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("cancelled", "late", "asleep", "killed")}
    for folder in folders.values():
        folder.mkdir()
    with cluster(tmp_path) as address:
        worker = start_worker(backends=["remote"], concurrency=1, timing={"stop_grace": 10.0})
        where = RemoteEnvironment(EXECUTOR, {"address": address})

        run = client.submit(many, {"folder": str(folders["cancelled"])}, environment=where)
        wait_until(lambda: len(names(folders["cancelled"])) == 2, "two tasks in two threads", timeout=60)
        wait_until(
            lambda: "begun 0" in [line.text for line in run.logs(follow=False)], "a line while it runs", timeout=20
        )
        run.cancel()
        with pytest.raises(RunCancelled):
            run.result(timeout=60)
        assert all_ended(folders["cancelled"])

        run = client.submit(many, {"folder": str(folders["late"])}, environment=where, timeout=8)
        with pytest.raises(RunTimedOut):
            run.result(timeout=60)
        assert len(names(folders["late"])) == 2
        assert all_ended(folders["late"])

        run = client.submit(uninterruptible, {"folder": str(folders["asleep"])}, environment=where)
        wait_until(lambda: names(folders["asleep"]), "the task", timeout=60)
        run.cancel()
        with pytest.raises(RunCancelled):
            run.result(timeout=60)
        assert any("1 of the run's tasks go on" in line.text and "sleeps" in line.text for line in run.logs())

        run = client.submit(many, {"folder": str(folders["killed"])}, environment=where)
        wait_until(lambda: names(folders["killed"]), "a task", timeout=60)
        for child in worker.children:
            os.kill(child, signal.SIGKILL)
        wait_until(lambda: all_ended(folders["killed"]), "its tasks to end", timeout=30)


@pytest.mark.parametrize("processes", [True, False])
def test_a_cluster_of_its_own(client: Dispatcher, start_worker: StartWorker, tmp_path: Path, processes: bool) -> None:
    worker = start_worker(backends=["remote"], concurrency=1, timing={"stop_grace": 20.0})
    pool = worker.children
    arguments = {"cluster_kwargs": {"n_workers": 1, "threads_per_worker": 1, "processes": processes}}
    run = client.submit(uninterruptible, {"folder": str(tmp_path)}, environment=RemoteEnvironment(EXECUTOR, arguments))
    wait_until((tmp_path / "asleep").exists, "the task", timeout=60)
    run.cancel()
    with pytest.raises(RunCancelled):
        run.result(timeout=60)
    if not processes:
        wait_until(lambda: worker.children != pool, "a process without the task", timeout=30)
