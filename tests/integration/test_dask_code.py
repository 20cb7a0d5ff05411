"""A project's code on a Dask cluster that several programs share: its scheduler and workers are real processes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.dask_cluster import Nodes, certificates, nodes
from tests.integration.dask_programs import PROGRAM, SMALL, SUBMIT, VERSION, error_of, project, says, start
from tests.integration.workers import KEYS, Worker
from tests.unit.code.projects import write
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

#: Most seconds that a program waits on the cluster if another one's modules are in the way: enough to connect.
BRIEF = 8

#: All ways in which code on the cluster names modules of the project.
ALL_WAYS = """
import pickle
from importlib.resources import files
from pathlib import Path
import dask
from dispatcher import flow, gather, task
from shop import prices
from shop.prices import Price

class Refused(Exception):
    def __init__(self, name, *, price):
        super().__init__(name)
        self.price = price

@task
def priced(n):
    from shop.late import FACTOR
    return Price(n * FACTOR + int((Path(__file__).parent / "data.txt").read_text()))

@task
def added(one, other):
    extra = int(files("shop").joinpath("extra.txt").read_text())
    return pickle.loads(pickle.dumps(Price(one.amount + other.amount + extra)))

@task
def refused(price):
    raise Refused("no", price=price)

@flow
def main():
    some = priced.map([1, 2, 3])
    total = added.submit(added.submit(some[0], some[1]), some[2])
    try:
        refused.submit(total).result()
    except Refused as error:
        assert type(error.price) is Price
    delayed = dask.delayed(prices.double)(Price(21))
    assert type(gather(total)) is Price
    return [total, some, {"graph": delayed}, dask.delayed(prices.double)(Price(1)).compute()]
"""
SHOP = {
    "etl.py": ALL_WAYS,
    "data.txt": "100",
    "shop/__init__.py": "",
    "shop/extra.txt": "1000",
    "shop/late.py": "FACTOR = 10",
    "shop/prices.py": """
from dataclasses import dataclass

@dataclass(frozen=True)
class Price:
    amount: int

def double(price): return Price(2 * price.amount)
""",
}
SHOP_SAYS = "[Price(amount=2360), [Price(amount=110), Price(amount=120), Price(amount=130)], "
SHOP_SAYS += "{'graph': Price(amount=42)}, Price(amount=2)]"

#: Tasks that wait until two processes have begun one.
MEETING = """
import os, pathlib, time
from dispatcher import flow, gather, task

class Place:
    def __init__(self, pid): self.pid = pid

@task
def meet(folder, number):
    pathlib.Path(folder, str(os.getpid())).touch()
    while len(list(pathlib.Path(folder).iterdir())) < 2:
        time.sleep(0.01)
    return Place(os.getpid())

@task
def count(places): return len({place.pid for place in places})

@flow
def main(folder: str):
    return gather(count.submit(meet.map([folder] * 6, range(6))))
"""

#: A task that kills its worker the first time.
RESTART = """
import os, pathlib, signal
from dispatcher import flow, gather, task
from part import VERSION

@task
def dies_once(folder):
    mark = pathlib.Path(folder, "died")
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    import later
    return later.VERSION

@flow
def main(folder: str):
    return gather(dies_once.submit(folder))
"""

#: Makes our packages unimportable in a process that has it on its path.
WITHOUT_US = 'import sys; sys.modules["dispatcher"] = None'


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with nodes(tmp_path_factory.mktemp("dask")) as made:
        yield made


def left_on(cluster: Nodes) -> list[Any]:
    """Return what is importable, or will be on late workers."""
    with cluster.client() as client:
        plugins = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.worker_plugins))
        plugins = [name for name in plugins if name.startswith("dispatcher")]
        paths = [client.run_on_scheduler(_paths()), *client.run(_paths()).values()]
    return plugins + [path for paths_of_one in paths for path in paths_of_one]


def _paths() -> Any:
    """Return a function that lists entries of ``sys.path`` in a process of the cluster; it travels by value."""

    def paths() -> list[str]:
        import sys

        return [path for path in sys.path if "dispatcher-dask-code" in path]

    paths.__module__ = "__main__"
    return paths


def _count_clients() -> Any:
    return lambda dask_scheduler: len(dask_scheduler.clients) - ("fire-and-forget" in dask_scheduler.clients)


def unpacked(cluster: Nodes) -> dict[str, int]:
    """Return the bundles on the cluster's disks, each with the time of its unpacking."""
    (directory,) = cluster.temporary.glob("dispatcher-dask-code-*")
    assert directory.stat().st_mode & 0o777 == 0o700
    return {path.parent.name: path.stat().st_mtime_ns for path in directory.glob("*/bundle.zip")}


def test_everything_of_a_project_imports_by_name(cluster: Nodes, tmp_path: Path) -> None:
    write(tmp_path, {"program.py": PROGRAM, **SHOP})
    before = unpacked(cluster) if list(cluster.temporary.glob("dispatcher-dask-code-*")) else {}
    assert says(start(tmp_path, cluster)) == SHOP_SAYS
    first = unpacked(cluster)
    assert len(first) == len(before) + 1
    assert says(start(tmp_path, cluster)) == SHOP_SAYS
    assert unpacked(cluster) == first, "neither sent nor unpacked again"
    assert left_on(cluster) == []


def test_one_project_after_the_other(cluster: Nodes, tmp_path: Path) -> None:
    ones, others = project(tmp_path / "one", VERSION, "one"), project(tmp_path / "other", VERSION, "other")
    outputs = [eval(says(start(directory, cluster))) for directory in (ones, others, ones)]
    assert [output[:2] for output in outputs] == [("one", "one"), ("other", "other"), ("one", "one")]
    assert len({pid for _, _, pid in outputs}) == 1, "the same worker"


def test_edited_code_on_the_same_worker(cluster: Nodes, tmp_path: Path) -> None:
    outputs = []
    for number in range(5):
        outputs.append(eval(says(start(project(tmp_path, VERSION, f"v{number}"), cluster))))
    assert [output[:2] for output in outputs] == [(f"v{number}", f"v{number}") for number in range(5)]
    assert len({pid for _, _, pid in outputs}) == 1, "the same worker"


def test_two_projects_at_once(cluster: Nodes, tmp_path: Path) -> None:
    ones, others = project(tmp_path / "one", VERSION, "one"), project(tmp_path / "other", VERSION, "other")
    parameters = f'{{"folder": "{tmp_path}"}}'
    first = start(ones, cluster, parameters)
    wait_until((tmp_path / "begun one").exists, "the first one's task", timeout=60)
    refused = error_of(start(others, cluster, wait=BRIEF))
    assert "ExecutorUnavailable: module 'later' is in two code bundles" in refused
    assert refused.count(" of process ") == 2, "both are named"
    second = start(others, cluster, parameters)
    with cluster.client() as client:
        wait_until(lambda: client.run_on_scheduler(_count_clients()) == 3, "the second program", timeout=60)
    (tmp_path / "go").touch()
    assert eval(says(first))[:2] == ("one", "one")
    assert eval(says(second))[:2] == ("other", "other")
    assert left_on(cluster) == []


def test_the_same_project_at_once(cluster: Nodes, tmp_path: Path) -> None:
    directory = project(tmp_path / "one", VERSION, "one")
    first = start(directory, cluster, f'{{"folder": "{tmp_path}"}}')
    wait_until((tmp_path / "begun one").exists, "the first one's task", timeout=60)
    (directory / "unrelated.py").write_text("x = 1\n")
    (directory / "program.py").write_text("import unrelated\n" + PROGRAM)  # another bundle, with the same modules
    second = start(directory, cluster, wait=BRIEF)
    (tmp_path / "go").touch()
    assert [eval(says(program))[:2] for program in (first, second)] == [("one", "one")] * 2
    assert left_on(cluster) == []


def test_a_program_that_is_killed_leaves_nothing(cluster: Nodes, tmp_path: Path) -> None:
    ones, others = project(tmp_path / "one", VERSION, "one"), project(tmp_path / "other", VERSION, "other")
    first = start(ones, cluster, f'{{"folder": "{tmp_path}"}}')
    wait_until((tmp_path / "begun one").exists, "its task", timeout=60)
    first.kill()
    first.communicate()
    assert eval(says(start(others, cluster)))[:2] == ("other", "other")
    wait_until(lambda: left_on(cluster) == [], "an empty cluster", timeout=30)


def test_a_worker_that_the_nanny_restarts(cluster: Nodes, tmp_path: Path) -> None:
    directory = project(tmp_path / "one", RESTART, "one")
    assert says(start(directory, cluster, f'{{"folder": "{tmp_path}"}}')) == "one"
    assert (tmp_path / "died").exists()


def test_a_late_worker(tmp_path: Path) -> None:
    met = tmp_path / "met"
    met.mkdir()
    directory = project(tmp_path / "project", MEETING)
    (tmp_path / "dask").mkdir()
    with nodes(tmp_path / "dask") as cluster:
        program = start(directory, cluster, f'{{"folder": "{met}"}}')
        wait_until(lambda: list(met.iterdir()), "a task on the first worker", timeout=60)
        cluster.add_worker()
        assert says(program) == "2"
        assert left_on(cluster) == []


@pytest.mark.parametrize("where", ["scheduler", "worker"])
def test_a_node_without_this_package_is_told(tmp_path: Path, where: str) -> None:
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "sitecustomize.py").write_text(WITHOUT_US)
    without = {"PYTHONPATH": str(tmp_path / "without")}
    directory = project(tmp_path / "project", VERSION)
    (tmp_path / "dask").mkdir()
    with certificates(tmp_path / "dask"):
        cluster = Nodes(tmp_path / "dask", environ=without if where == "scheduler" else {})
        try:
            cluster.add_worker(environ=without if where == "worker" else {})
            with cluster.client() as client:
                client.wait_for_workers(1, timeout=60)
            error = error_of(start(directory, cluster))
        finally:
            cluster.end()
    assert "ExecutorUnavailable: Dask at tls://" in error
    assert f"the {where}" in error
    assert "has another release of flow-dispatcher, or none: install the flow's" in error


def test_flows_that_came_in_bundles(
    cluster: Nodes, server_url: str, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    start_worker(backends=["remote"], concurrency=2)
    here = {"DISPATCHER__URL": server_url, "DISPATCHER__SIGNING_KEYS": json.dumps(KEYS)}
    write(tmp_path / "shop", {**SHOP, "program.py": SUBMIT})
    for own in ({}, {"cluster_kwargs": SMALL}, {"cluster_kwargs": {**SMALL, "processes": False}}):
        assert says(start(tmp_path / "shop", cluster, environ=here, own=own)).endswith(SHOP_SAYS), own

    directories = [project(tmp_path / name, VERSION, name) for name in ("one", "other")]
    for directory in directories:
        (directory / "program.py").write_text(SUBMIT)
    first = start(directories[0], cluster, f'{{"folder": "{tmp_path}"}}', environ=here)
    wait_until((tmp_path / "begun one").exists, "the first one's task", timeout=60)
    refused = start(directories[1], cluster, wait=BRIEF, environ=here)
    out, errors = refused.communicate(timeout=120)
    assert "module 'later' is in two code bundles" in errors
    assert f"of run {out.split()[0]} of flow 'main'" in errors
    (tmp_path / "go").touch()
    out = says(first)
    assert f"of run {out.split()[0]} of flow 'main', which still uses it" in errors
    assert eval(out.splitlines()[1])[:2] == ("one", "one")
    assert eval(says(start(directories[1], cluster, environ=here)).splitlines()[1])[:2] == ("other", "other")
    assert left_on(cluster) == []
