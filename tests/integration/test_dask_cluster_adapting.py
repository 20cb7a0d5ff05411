"""The workers of a run's own Dask cluster: how many, when, and what becomes of tasks if one dies.

The test plays the supervisor, with processes in the place of pods.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import distributed
import pytest
from distributed.scheduler import KilledWorker

from tests.integration.own_cluster import own_cluster
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

#: Scales up for little work, and down soon after.
QUICK = {
    "DASK_DISTRIBUTED__ADAPTIVE__TARGET_DURATION": "500ms",
    "DASK_DISTRIBUTED__ADAPTIVE__INTERVAL": "300ms",
}


def note(path: str, number: int, seconds: float = 0.2) -> str:
    """Take a while, and note that it ran and where."""
    with open(path, "a") as file:  # noqa: PTH123 - as little as possible, since it travels
        file.write(f"{number}\n")
    time.sleep(seconds)
    return str(distributed.get_worker().name)


def hold(path: str, number: int) -> str:
    """Note the worker's process, and wait for a file named ``go`` beside it."""
    folder = Path(path)
    (folder / f"{number}.{os.getpid()}").touch()
    while not (folder / "go").exists():
        time.sleep(0.02)
    return str(distributed.get_worker().name)


def die(_number: int) -> None:
    os._exit(1)


def test_an_array_is_computed_by_two_workers(tmp_path: Path) -> None:
    import dask.array

    with own_cluster(tmp_path, 2, 2) as own:
        assert dask.array.ones((400, 400), chunks=(100, 100)).sum().compute() == 160_000
        folder = tmp_path / "held"
        folder.mkdir()
        futures = own.executor.map(hold, [str(folder)] * 2, [1, 2])
        wait_until(lambda: len(list(folder.iterdir())) == 2, "both tasks at once", timeout=60)
        (folder / "go").touch()
        assert {future.result() for future in futures} == {"w1", "w2"}
        assert own.workers.latest.lost == ()


def test_it_grows_with_the_work_and_shrinks_after_it_and_no_task_runs_twice(tmp_path: Path) -> None:
    with own_cluster(tmp_path, 1, 3, variables=QUICK) as own:
        ran = tmp_path / "ran"
        futures: list[Any] = own.executor.map(note, [str(ran)] * 200, range(200))
        own.wait_for("w1", "w2", "w3")
        where = Counter(future.result() for future in futures)
        wait_until(lambda: len(own.workers.connected) == 1, "one worker", timeout=60)
        assert set(where) == {"w1", "w2", "w3"}
        assert Counter(ran.read_text().split()) == Counter(map(str, range(200)))
        assert own.workers.latest.lost == ()
        assert set(own.workers.latest.wanted) == set(own.workers.connected)
        gone = {"w1", "w2", "w3"} - set(own.workers.connected)
        wait_until(lambda: not any(map(own.workers.is_alive, gone)), "the end of the others' processes", timeout=30)
        assert [own.workers.processes[name].returncode for name in gone] == [0, 0]


def test_from_none_to_one_and_back(tmp_path: Path) -> None:
    with own_cluster(tmp_path, 0, 2, variables=QUICK) as own:
        assert own.workers.latest.ready
        assert own.workers.processes == {}
        assert own.executor.submit(note, str(tmp_path / "ran"), 1).result() == "w1"
        own.wait_for()
        assert own.workers.latest.wanted == ()
        assert own.executor.submit(note, str(tmp_path / "ran"), 2).result() == "w2"


def test_a_worker_that_is_still_starting_goes_before_one_that_works(tmp_path: Path) -> None:
    with own_cluster(tmp_path, 0, 3, variables=QUICK) as own:
        folder = tmp_path / "held"
        folder.mkdir()
        works = own.executor.submit(hold, str(folder), 1)
        own.wait_for("w1")
        own.workers.paused = True  # those that are wanted now never start
        others = own.executor.map(note, [str(tmp_path / "ran")] * 10, range(10))
        wait_until(lambda: len(own.workers.latest.wanted) == 3, "three wanted workers", timeout=60)
        for future in others:
            future.cancel()
        wait_until(lambda: own.workers.latest.wanted == ("w1",), "the end of the others", timeout=60)
        (folder / "go").touch()
        assert works.result() == "w1"


def test_a_worker_that_dies_is_replaced_and_its_tasks_run_again(tmp_path: Path) -> None:
    with own_cluster(tmp_path, 2, 2) as own:
        folder = tmp_path / "held"
        folder.mkdir()
        futures = own.executor.map(hold, [str(folder)] * 2, [1, 2])
        wait_until(lambda: len(list(folder.iterdir())) == 2, "both tasks", timeout=60)
        own.workers.processes["w1"].kill()
        own.wait_for("w2", "w3")
        (folder / "go").touch()
        assert {future.result() for future in futures} <= {"w2", "w3"}
        assert len(list(folder.glob("[12].*"))) == 3  # one was started again
        assert own.workers.latest.lost == ("w1",)
        assert own.workers.latest.wanted == ("w2", "w3")


def test_a_task_that_kills_its_workers_fails_alone(tmp_path: Path) -> None:
    with own_cluster(tmp_path, 1, 1, variables={"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}) as own:
        with pytest.raises(KilledWorker):
            own.executor.submit(die, 1).result()
        assert own.executor.submit(note, str(tmp_path / "ran"), 1).result() == "w2"


def test_a_task_fails_if_no_worker_comes(tmp_path: Path) -> None:
    with own_cluster(tmp_path, 0, 1, variables={"DISPATCHER__RUN__NO_WORKERS_TIMEOUT": "2"}) as own:
        own.workers.paused = True
        with pytest.raises(Exception, match="without any running workers"):
            own.executor.submit(note, str(tmp_path / "ran"), 1).result()


@pytest.mark.parametrize("stealing", [False, True], ids=["off", "on"])
def test_tasks_that_prefer_a_worker_move_only_with_work_stealing(tmp_path: Path, stealing: bool) -> None:
    with own_cluster(tmp_path, 2, 2, spec={"work_stealing": stealing}) as own:
        assert moved_tasks(own.executor._client, str(tmp_path / "ran")) is stealing


def test_a_custom_variable_for_work_stealing_stands(tmp_path: Path) -> None:
    variable = {"DASK_DISTRIBUTED__SCHEDULER__WORK_STEALING": "True"}
    with own_cluster(tmp_path, 2, 2, spec={"work_stealing": None}, variables=variable) as own:
        assert moved_tasks(own.executor._client, str(tmp_path / "ran"))


def moved_tasks(client: distributed.Client, path: str) -> bool:
    """Compute forty tasks that prefer one of two workers; return True if the other one took some."""
    futures = client.map(note, [path] * 40, range(40), workers=["w1"], allow_other_workers=True, pure=False)
    return set(client.gather(futures)) == {"w1", "w2"}
