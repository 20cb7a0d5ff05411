"""Values that are nested too deeply for a pickle give an error that names them, and no crash."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from dispatcher import Dispatcher, InvalidParameters, flow
from dispatcher.executors.nested_values import replace_nested
from dispatcher.runs.states import Cause, State
from dispatcher.serialization.values import as_json
from tests.unit.attempts import World, double

DEPTH = 100_000


def nest(depth: int = DEPTH) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def depth_of(value: list[Any]) -> int:
    depth = 0
    while value:
        [value] = value
        depth += 1
    return depth


@flow
def gives(depth: int) -> Any:
    return nest(depth)


@flow
def raises() -> None:
    raise RuntimeError(nest())


@flow
def goes_deep() -> Any:
    sys.setrecursionlimit(10**6)
    return nest()


@pytest.fixture
def client() -> Iterator[Dispatcher]:
    with Dispatcher("memory://") as client:
        yield client


@pytest.fixture
def _same_limit() -> Iterator[None]:
    limit = sys.getrecursionlimit()
    yield
    sys.setrecursionlimit(limit)


@pytest.mark.usefixtures("_same_limit")
@pytest.mark.parametrize(("tested", "parameters"), [(gives, {"depth": DEPTH}), (goes_deep, {})])
def test_a_result_too_deep_fails_its_run(tested: Any, parameters: dict[str, Any]) -> None:
    world = World()
    done = world.run(world.submit(tested, parameters))
    assert done.state is State.FAILED
    assert done.outcome is not None
    assert done.outcome.cause is Cause.USER_ERROR
    assert f"the result of flow {tested.name!r} can't be sent: it is too deeply nested" in done.outcome.message


def test_an_exception_too_deep_leaves_its_text() -> None:
    world = World()
    done = world.run(world.submit(raises))
    assert done.state is State.FAILED
    assert done.outcome is not None
    assert (done.outcome.reason, done.outcome.exception) == ("RuntimeError", None)


@pytest.mark.usefixtures("_same_limit")
@pytest.mark.parametrize("limit", [1000, 10**6])
def test_a_parameter_too_deep_is_named(client: Dispatcher, limit: int) -> None:
    sys.setrecursionlimit(limit)
    with pytest.raises(InvalidParameters, match=r"flow 'double' can't be sent: parameter 'x' is too deeply nested"):
        client.submit(double, {"x": nest()})


@pytest.mark.parametrize("depth", [10, 199, 201, 400])
def test_what_is_less_deep_arrives(client: Dispatcher, depth: int) -> None:
    assert depth_of(client.submit(gives, {"depth": depth}).result()) == depth


def test_json_is_never_deeper_than_its_reader_can_read() -> None:
    assert as_json(nest(199)) is not None
    assert as_json(nest(200)) is None
    assert as_json({"a": nest(198)}) is not None
    assert as_json({"a": nest(199)}) is None


def test_things_are_replaced_at_any_depth() -> None:
    deep = nest()
    assert replace_nested(deep, lambda _: False, str) is deep
    changed = replace_nested(deep, lambda part: part == [] and type(part) is list, lambda _: "it")
    assert changed is not deep
    for _ in range(DEPTH):
        [changed] = changed
    assert changed == "it"
