"""Futures in containers and objects: every executor replaces them, or refuses those it can't replace."""

from __future__ import annotations

import functools
from collections import OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dispatcher import DaskExecutor, InvalidInput, LocalExecutor, flow, gather, task
from dispatcher.executors.base import Executor
from dispatcher.executors.current import current
from tests.dask_cluster import cluster

Pair = namedtuple("Pair", "one two")


@dataclass(frozen=True)
class Frozen:
    value: Any
    more: list[Any] = field(default_factory=list)


@dataclass(slots=True)
class Slotted:
    value: Any


class Plain:
    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plain) and self.value == other.value

    __hash__ = None  # type: ignore[assignment]


def array(value: Any) -> Any:
    made = np.empty((2, 1), dtype=object)
    made[0, 0], made[1, 0] = value, [value]
    return made


SHAPES: dict[str, Callable[[Any], Any]] = {
    "list": lambda x: [x, [x]],
    "tuple": lambda x: (x, (1, x)),
    "named tuple": lambda x: Pair(x, 2),
    "dict": lambda x: {x: {"in": x}},
    "default dict": lambda x: defaultdict(list, a=x),
    "ordered dict": lambda x: OrderedDict(a=x),
    "set": lambda x: {x, 2},
    "frozen set": lambda x: frozenset({x}),
    "deque": lambda x: deque([x], maxlen=3),
    "dataclass": lambda x: Frozen(x, [x]),
    "object": lambda x: Plain({"a": [Plain(x)]}),
    "namespace": lambda x: SimpleNamespace(a=x),
    "array": array,
}


@pytest.fixture(scope="module", params=["local", "dask"])
def executor(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Executor]:
    if request.param == "local":
        yield LocalExecutor()
        return
    with cluster(tmp_path_factory.mktemp("dask")) as address:
        made = DaskExecutor(address)
        with made.start():
            yield made


def one() -> int:
    return 1


def same(value: Any) -> Any:
    return value


def equal(left: Any, right: Any) -> bool:
    return bool(np.array_equal(left, right) if isinstance(left, np.ndarray) else left == right)


@pytest.mark.parametrize("shape", SHAPES)
def test_nested_futures_are_replaced(executor: Executor, shape: str) -> None:
    make = SHAPES[shape]
    future = executor.submit(one)
    for arguments in ((make(future),), {"value": make(future)}):
        named, positional = (arguments, ()) if isinstance(arguments, dict) else ({}, arguments)
        answer = executor.submit(same, *positional, **named)
        assert equal(answer.result(timeout=60), make(1))
    value = make(future)
    result = executor.wait(value)
    assert equal(result, make(1))
    assert type(result) is type(value)
    assert not equal(value, result), "what was given stays as it is"
    assert executor.wait(result) is result


def test_slots(executor: Executor) -> None:
    future = executor.submit(one)
    assert executor.wait(Slotted(future)) == Slotted(1)
    assert executor.submit(lambda slotted: slotted.value, Slotted([future])).result(timeout=60) == [1]


def test_an_object_that_occurs_twice_stays_one(executor: Executor) -> None:
    shared = [executor.submit(one)]
    left, right = executor.wait([shared, shared])
    assert left is right


def test_partial_calls_and_views(executor: Executor) -> None:
    future = executor.submit(one)
    partial, view = executor.wait([functools.partial(same, future), MappingProxyType({"a": future})])
    assert (partial(), dict(view)) == (1, {"a": 1})
    assert executor.submit(lambda call: call(), functools.partial(same, future)).result(timeout=60) == 1


def test_a_future_in_a_cyclic_structure(executor: Executor) -> None:
    circle: list[Any] = [executor.submit(one)]
    circle.append(circle)
    with pytest.raises(InvalidInput, match="a list holds itself and a future"):
        executor.wait(circle)


def test_what_can_not_be_replaced_is_named(executor: Executor) -> None:
    """Pickle rebuilds a list that holds itself on a Dask worker; the flow's own process doesn't."""
    circle: list[Any] = [executor.submit(one)]
    circle.append(circle)
    with current.using(executor):
        with pytest.raises(InvalidInput, match=r"^gather: a list holds itself and a future"):
            gather(circle)
        if isinstance(executor, LocalExecutor):
            for future in (task(same).submit(circle), task(same).submit(value=circle)):
                with pytest.raises(InvalidInput, match=r"^task 'same': argument .value. .list.: a list holds itself"):
                    future.result()


def test_a_result_that_can_not_be_replaced_is_named() -> None:
    @flow
    def circular() -> Any:
        circle: list[Any] = [task(one).submit()]
        circle.append(circle)
        return circle

    with pytest.raises(InvalidInput, match=r"^the result of flow 'circular': a list holds itself and a future"):
        circular.run({}, LocalExecutor())


def test_a_result_that_cannot_take_a_future_s_place_is_named(executor: Executor) -> None:
    future = executor.submit(list)
    with pytest.raises(InvalidInput, match=r"a set can't be rebuilt.*unhashable type"):
        executor.wait({future})


def test_generators(executor: Executor) -> None:
    future = executor.submit(one)
    pairs = ((n, future) for n in range(2))
    if isinstance(executor, LocalExecutor):
        assert executor.submit(list, pairs).result() == [(0, 1), (1, 1)]
        return

    def total(start: int, values: Any) -> int:
        return start + len(list(values))

    with pytest.raises(InvalidInput, match=r"task 'total': argument 'values' \(generator\).*generator"):
        executor.submit(total, 1, pairs)
    with pytest.raises(InvalidInput, match=r"return list"):
        executor.wait({"a": pairs})
    assert executor.submit(list, map(same, [future])).result(timeout=60) == [1]


def test_a_flow_that_returns_a_future_out_of_reach_is_refused() -> None:
    from dispatcher import Dispatcher, RemoteEnvironment

    @task
    def number() -> int:
        return 1

    @flow
    def hides() -> Any:
        future = number.submit()
        return lambda: future

    arguments = {"cluster_kwargs": {"n_workers": 1, "threads_per_worker": 1, "processes": False}}
    with Dispatcher("memory://") as client:
        run = client.submit(hides, environment=RemoteEnvironment(DaskExecutor, arguments))
        assert run.state == "FAILED"
        assert "variable 'future'" in str(run.exception())
        assert "gather it" in str(run.exception())
