"""Tasks: functions that run here when called, and on the current executor when submitted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, assert_type

import pytest

from dispatcher import InvalidInput, Task, flow, gather, task
from dispatcher.executors.base import Executor
from dispatcher.executors.local import LocalExecutor
from dispatcher.serialization import pack, unpack
from dispatcher.testing.modules import module


@task
def add(a: int, b: int = 1) -> int:
    """Adds."""
    return a + b


@task(name="slow")
async def later(a: int) -> int:
    await asyncio.sleep(0)
    return a


class Counting(LocalExecutor):
    """Records the names of submitted tasks."""

    def __init__(self) -> None:
        self.submitted: list[str] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.submitted.append(fn.name)
        return super().submit(fn, *args, **kwargs)


def test_called_plainly_it_runs_here() -> None:
    assert add(1) == 2
    assert later(3) == 3
    assert add.name == add.__name__ == "add"
    assert add.__doc__ == "Adds."
    assert later.name == "slow"
    assert "test_task.add(a: 'int', b: 'int' = 1)" in repr(add)


def test_types_are_kept() -> None:
    assert_type(add(1), int)
    assert_type(later(1), int)
    assert_type(gather(add.map([1])), list[int])
    assert_type(add.submit(1).result(), int)
    assert isinstance(add, Task)


def test_inside_a_flow_submit_and_map_go_to_its_executor() -> None:
    @flow
    def inside() -> list[int]:
        add(0)
        first = add.submit(1, b=2)
        return gather([*add.map([1, 2], b=10), add.submit(first)])

    executor = Counting()
    assert inside.run({}, executor) == [11, 12, 4]
    assert executor.submitted == ["add"] * 4
    assert inside() == [11, 12, 4]
    assert len(executor.submitted) == 4


def test_a_flow_called_in_a_flow_uses_the_current_executor() -> None:
    @flow
    def inner() -> int:
        return add.submit(1).result()

    @flow
    async def outer() -> int:
        return inner() + add.submit(1).result()

    executor = Counting()
    assert outer.run({}, executor) == 4
    assert executor.submitted == ["add", "add"]


def test_map_stops_with_the_shortest_and_needs_an_iterable() -> None:
    assert gather(add.map([1, 2, 3], iter([10, 20]))) == [11, 22]
    assert gather(add.map([])) == []
    with pytest.raises(InvalidInput, match="map needs at least one iterable"):
        add.map(b=1)


def test_gather_keeps_the_shape() -> None:
    future = add.submit(1)
    assert gather(future) == 2
    assert gather({"a": [future, (future, 5)], "b": None}) == {"a": [2, (2, 5)], "b": None}
    assert gather(future for _ in range(2)) == [2, 2]


def test_a_failed_task_raises_where_its_result_is_asked_for() -> None:
    failed = task(lambda x: 1 // x).submit(0)
    with pytest.raises(ZeroDivisionError):
        failed.result()
    with pytest.raises(ZeroDivisionError):
        gather([failed])
    with pytest.raises(ZeroDivisionError):
        add.submit(failed).result()


def generator() -> Iterator[int]:
    yield 1


def test_what_is_no_function_is_refused() -> None:
    wrong: list[Any] = [3, len, Executor, add]
    for value in wrong:
        with pytest.raises(InvalidInput, match="isn't a function"):
            task(value)
    with pytest.raises(InvalidInput, match="generator"):
        task(generator)


def test_a_task_travels(tmp_path: Path) -> None:
    there = unpack(pack(add, subject="it"))
    assert there is not add
    assert there(1) == 2
    source = "from dispatcher import task\n@task\ndef installed(a): return a\n"
    with module(tmp_path, "tasks_installed", source) as tasks:
        assert unpack(pack(tasks.installed, subject="it")) is tasks.installed
