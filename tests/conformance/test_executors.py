"""The contract of executors."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import distributed
import psutil  # type: ignore[import-untyped]
import pytest

from dispatcher import DaskExecutor, ExecutorUnavailable, InvalidInput, LocalExecutor, context, flow, gather, task
from dispatcher.executors.base import Executor
from dispatcher.serialization import pack, unpack
from dispatcher.testing.modules import module
from tests.dask_cluster import cluster

Pair = namedtuple("Pair", "one two")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with cluster(tmp_path_factory.mktemp("dask")) as address:
        yield address


@pytest.fixture(params=["local", "dask"])
def make(request: pytest.FixtureRequest) -> Callable[[], Executor]:
    if request.param == "local":
        return LocalExecutor
    address = request.getfixturevalue("address")
    return lambda: DaskExecutor(address, connect_timeout=20)


@pytest.fixture
def executor(make: Callable[[], Executor]) -> Iterator[Executor]:
    made = make()
    with made.start():
        yield made


def add(a: int, b: int = 1) -> int:
    return a + b


def test_submit_gives_a_future(executor: Executor) -> None:
    future = executor.submit(add, 1, b=5)
    assert future.result(timeout=20) == 6
    assert future.done()


def test_equal_calls_are_computed_separately(executor: Executor) -> None:
    first, second = executor.map(lambda _: object().__hash__() and time.perf_counter_ns(), [1, 1])
    assert executor.wait(first) != executor.wait(second)


def test_map_takes_iterables_and_constants(executor: Executor) -> None:
    assert executor.wait(executor.map(add, [1, 2], iter([10, 20, 30]))) == [11, 22]
    assert executor.wait(executor.map(add, [1, 2], b=5)) == [6, 7]
    assert executor.map(add, []) == []


def test_futures_among_arguments_are_waited_for(executor: Executor) -> None:
    future = executor.submit(add, 1)

    def total(values: list[int], named: dict[str, list[int]], pair: tuple[int, int]) -> int:
        return sum(values) + sum(named["in"]) + sum(pair)

    assert executor.submit(add, future, b=future).result(timeout=20) == 4
    assert executor.submit(total, [future, 1], named={"in": [future]}, pair=(future, 3)).result(timeout=20) == 10
    assert executor.wait(executor.map(total, [[future], [2]], named={"in": [future]}, pair=(0, future))) == [6, 6]
    assert executor.wait(executor.map(add, [future, 5], b=future)) == [4, 7]


def test_wait_keeps_the_shape_and_returns_other_values_unchanged(executor: Executor) -> None:
    future = executor.submit(add, 1)
    assert executor.wait(future) == 2
    assert executor.wait({"a": [future, (future, "x")], "b": Pair(future, 2)}) == {"a": [2, (2, "x")], "b": Pair(2, 2)}
    plain = {"a": [1, (2, 3)]}
    assert executor.wait(plain) is plain
    plain["a"].append(plain)
    assert executor.wait(plain) is plain


def test_a_failure_is_raised_by_result(executor: Executor) -> None:
    def fails(x: int) -> float:
        return 1 / x

    failed = executor.submit(fails, 0)
    for ask in (failed.result, lambda: executor.wait([failed]), lambda: executor.submit(add, failed).result()):
        with pytest.raises(ZeroDivisionError):
            ask()


def test_arguments_may_be_named_like_options_of_the_executor(executor: Executor) -> None:
    def named(key: str, fn: int, workers: int, pure: bool, self: int) -> Any:
        return (key, fn, workers, pure, self)

    future = executor.submit(named, key="k", fn=2, workers=3, pure=False, self=5)
    assert future.result(timeout=20) == ("k", 2, 3, False, 5)


def test_async_functions_and_tasks_are_run(executor: Executor) -> None:
    async def later(a: int) -> int:
        return a + 1

    assert executor.submit(later, 1).result(timeout=20) == 2
    assert executor.submit(task(later), 1).result(timeout=20) == 2


def test_collections_that_a_flow_returns_are_computed(make: Callable[[], Executor]) -> None:
    @flow
    def graph() -> Any:
        parts = [dask.delayed(add)(n) for n in range(3)]
        return {"sum": dask.delayed(sum)(parts), "parts": parts, "n": 3}

    assert graph.run({}, make()) == {"sum": 6, "parts": [1, 2, 3], "n": 3}


def test_collections_computed_inside_a_flow(make: Callable[[], Executor]) -> None:
    @flow
    def graph() -> Any:
        return dask.delayed(add)(1).compute()

    assert graph.run({}, make()) == 2


def test_tasks_of_a_flow(make: Callable[[], Executor]) -> None:
    @task
    def double(x: int) -> int:
        return 2 * x

    @flow
    def fan_out(n: int) -> Any:
        first = double.map(range(n))
        return [double.map(first), gather(first), double(1)]

    assert fan_out.run({"n": 3}, make()) == [[0, 4, 8], [0, 2, 4], 2]


def test_context_in_a_task_has_a_plain_logger(executor: Executor) -> None:
    def logs() -> str:
        context.logger.warning("from a task")
        return context.logger.name

    assert executor.submit(logs).result(timeout=20) == "dispatcher.flow"


def test_code_that_is_not_installed_reaches_the_tasks(make: Callable[[], Executor], tmp_path: Path) -> None:
    source = """
        from dataclasses import dataclass
        from dispatcher import flow, task, gather
        FACTOR = 7
        @dataclass
        class Point:
            x: int
        @task
        def scaled(points, by):
            return [Point(p.x * FACTOR + by.x) for p in points]
        @flow
        def main():
            return gather(scaled.submit([Point(1), Point(2)], by=Point(100)))
    """
    with module(tmp_path, "not_installed_here", source, installed=False) as loaded:
        cloudpickle.register_pickle_by_value(loaded)
        sealed = pack(loaded.main, subject="it")
        results = [loaded.main.run({}, make())]
        cloudpickle.unregister_pickle_by_value(loaded)
    results.append(unpack(sealed).run({}, make()))  # as in a worker, which can't import it either
    for result in results:
        assert [type(point).__name__ for point in result] == ["Point", "Point"]
        assert [point.x for point in result] == [107, 114]


def test_installed_tasks_are_pickled_by_name(make: Callable[[], Executor], tmp_path: Path) -> None:
    source = "from dispatcher import task\n@task\ndef one(): return 1\n"
    with module(tmp_path, "installed_here", source) as loaded:
        made = make()
        with made.start():
            future = made.submit(loaded.one)
            if isinstance(made, LocalExecutor):
                assert future.result() == 1
            else:  # the worker process doesn't have it, and says so
                with pytest.raises(Exception, match="needs package 'installed_here'"):
                    future.result(timeout=20)


def test_values_that_cannot_be_pickled_are_named(address: str) -> None:
    executor = DaskExecutor(address)
    lock = threading.Lock()
    with executor.start(), pytest.raises(InvalidInput, match="lock"):
        executor.submit(lambda: lock.acquire(timeout=1))


# -- only Dask


def start_and_end(executor: Executor) -> None:
    with executor.start():
        pass


@pytest.mark.parametrize(("options", "heard"), [({}, False), ({"silence_logs": False}, True)])
def test_log_messages_of_a_local_cluster(
    caplog: pytest.LogCaptureFixture, options: dict[str, object], heard: bool
) -> None:
    caplog.set_level(logging.INFO)
    level = logging.getLogger("distributed").level
    with DaskExecutor(cluster_kwargs={"n_workers": 1, "processes": False, **options}).start():
        pass
    assert heard is any(record.name.startswith("distributed") for record in caplog.records)
    assert logging.getLogger("distributed").level == level


def _listening_ports() -> set[int]:
    """Return the TCP ports on which this process listens."""
    connections = psutil.Process().net_connections("tcp")
    return {connection.laddr.port for connection in connections if connection.status == "LISTEN"}


def test_a_local_cluster_is_made_and_closed() -> None:
    before = _listening_ports()
    executor = DaskExecutor(cluster_kwargs={"n_workers": 1, "threads_per_worker": 1, "processes": False})
    with executor.start():
        client = distributed.get_client()
        open_to = _listening_ports()
        assert open_to - before == set(), "without processes there is nothing to reach"
        assert executor.submit(add, 1).result(timeout=20) == 2
    assert client.status == "closed"
    assert client.cluster.status.name == "closed"


@pytest.mark.parametrize("factory", [distributed.LocalCluster, "distributed.LocalCluster", "distributed:LocalCluster"])
def test_a_cluster_class_or_its_import_string(factory: Any) -> None:
    arguments = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": "127.0.0.1:0"}
    executor = DaskExecutor(cluster_class=factory, cluster_kwargs=arguments)
    with executor.start():
        assert executor.submit(add, 1).result(timeout=20) == 2


def test_everything_is_closed_after_an_exception(address: str) -> None:
    executor = DaskExecutor(address)
    results: list[Any] = []

    def fails() -> None:
        results.append(distributed.get_client())
        raise KeyError

    with pytest.raises(KeyError):
        flow(fails).run({}, executor)
    assert results[0].status == "closed"
    with pytest.raises(InvalidInput, match="isn't started"):
        executor.submit(add, 1)
    with executor.start(), executor.start():  # a flow in a flow
        assert executor.submit(add, 1).result(timeout=20) == 2


def test_an_unreachable_address_is_named_in_time() -> None:
    start = time.monotonic()
    with pytest.raises(ExecutorUnavailable, match=r"tcp://127\.0\.0\.1:1 within 0\.5 s"):
        start_and_end(DaskExecutor("tcp://127.0.0.1:1", connect_timeout=0.5))
    assert time.monotonic() - start < 10


def test_a_cluster_that_cannot_start_is_named() -> None:
    def broken() -> None:
        raise OSError("no room")

    with pytest.raises(ExecutorUnavailable, match="broken for Dask: OSError: no room"):
        start_and_end(DaskExecutor(cluster_class=broken))
    with pytest.raises(InvalidInput, match="cluster_class: 'distributed' has no 'NoCluster'"):
        start_and_end(DaskExecutor(cluster_class="distributed.NoCluster"))


def test_a_cluster_without_workers_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    arguments = {"n_workers": 0, "processes": False}
    with caplog.at_level(logging.WARNING, "dispatcher"), DaskExecutor(cluster_kwargs=arguments).start():
        pass
    assert "has no worker yet" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"address": "tcp://x:1", "cluster_class": "a.B"}, "not both"),
        ({"address": "tcp://x:1", "cluster_kwargs": {"n": 1}}, "not both"),
        ({"address": 3}, "address"),
        ({"address": ""}, "address"),
        ({"connect_timeout": 0}, "connect_timeout"),
        ({"connect_timeout": "1"}, "connect_timeout"),
    ],
)
def test_wrong_arguments(arguments: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        DaskExecutor(**arguments)


NO_DASK = """
import sys
sys.modules["distributed"] = None
from dispatcher import DaskExecutor, MissingExtra
try:
    with DaskExecutor().start():
        pass
except MissingExtra as error:
    print(error)
"""


def test_without_dask_the_extra_is_named() -> None:
    done = subprocess.run([sys.executable, "-c", NO_DASK], capture_output=True, text=True, check=True, timeout=60)
    assert "pip install 'flow-dispatcher[dask]'" in done.stdout


@dataclass
class Mark:
    name: str


def test_the_local_executor_runs_at_once_and_here() -> None:
    marks: list[Mark] = []
    future = LocalExecutor().submit(marks.append, Mark("a"))
    assert marks == [Mark("a")]
    assert future.done()
    with pytest.raises(KeyboardInterrupt):  # an interrupt ends the flow, it is no task's result
        LocalExecutor().submit(_interrupt)


def _interrupt() -> None:
    raise KeyboardInterrupt
