"""Calls of the client as people write them: bound flows, and mistakes whose errors show the right line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dispatcher import (
    Dispatcher,
    FlowFailed,
    InvalidFlow,
    InvalidInput,
    InvalidParameters,
    LocalEnvironment,
    Settings,
    flow,
)
from dispatcher.client.runs import Runs
from dispatcher.serialization import pack, unpack
from tests.unit.sums import add, fail


@pytest.fixture
def client() -> Iterator[Dispatcher]:
    with Dispatcher("memory://") as dispatcher:
        yield dispatcher


@flow
def every(a: int, b: int = 2, /, c: int = 3, *rest: int, d: int = 4, **more: int) -> list[Any]:
    """Return all arguments."""
    return [a, b, c, list(rest), d, dict(more)]


@flow
async def later(a: int) -> int:
    """Return the argument, in a coroutine."""
    return a


class TestBind:
    @pytest.mark.parametrize(
        ("args", "kwargs"),
        [((1,), {}), ((1, 5), {"d": 9}), ((1, 2, 3, 7, 8), {"x": 6}), ((1,), {"c": 0, "d": 0, "y": 1})],
    )
    def test_a_bound_flow_returns_what_the_call_returns(
        self, client: Dispatcher, args: tuple[int, ...], kwargs: dict[str, int]
    ) -> None:
        bound = every.bind(*args, **kwargs)
        assert client.submit(bound).result() == bound() == every(*args, **kwargs)

    def test_it_runs_nothing_and_shows_its_arguments(self) -> None:
        assert repr(add.bind(1, b="x" * 200)).startswith("<BoundFlow add(a=1, b='xxx")  # type: ignore[arg-type]
        assert add.bind(1, 2) == add.bind(1, b=2) != add.bind(2, 2)

    def test_a_coroutine_flow(self, client: Dispatcher) -> None:
        assert client.submit(later.bind(3)).result() == later.bind(3)() == 3

    def test_it_travels(self) -> None:
        copied = unpack(pack(add.bind(1), subject="a bound flow"))
        assert (copied.flow.name, dict(copied.parameters), copied()) == ("add", {"a": 1}, 3)

    @pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((1, 2, 3), {}), ((1,), {"c": 2}), ((1,), {"a": 2})])
    def test_arguments_that_do_not_fit(self, args: tuple[int, ...], kwargs: dict[str, int]) -> None:
        bind: Any = add.bind
        with pytest.raises(InvalidParameters, match=r"flow 'add': .*Its signature: \(a: 'int', b: 'int' = 2\)"):
            bind(*args, **kwargs)

    def test_many(self, client: Dispatcher) -> None:
        assert client.map([add.bind(n) for n in range(3)]).results() == [2, 3, 4]
        assert client.map(add, [add.bind(1), {"a": 2}]).results() == [3, 4]  # type: ignore[list-item]

    def test_many_of_several_flows(self, client: Dispatcher) -> None:
        with pytest.raises(InvalidInput, match="map: item 1 is of flow 'fail', item 0 of another; map them apart"):
            client.map([add.bind(1), fail.bind()])  # type: ignore[arg-type]
        with pytest.raises(InvalidInput, match="map: item 1: it is of flow 'fail', not of 'add'"):
            client.map(add, [{"a": 1}, fail.bind()])  # type: ignore[list-item]
        assert list(client.runs()) == []

    def test_none_at_all(self, client: Dispatcher) -> None:
        assert client.map(add, []) == []
        with pytest.raises(InvalidInput, match="an empty list doesn't say of which flow"):
            client.map([])


@pytest.fixture
def call(client: Dispatcher) -> Any:
    """The client, without types."""
    return client


class TestWrongCalls:
    @pytest.mark.parametrize(
        ("args", "kwargs", "line"),
        [
            ((1, 2), {}, "client.submit(add.bind(1, 2), …)"),
            ((1,), {}, "client.submit(add.bind(1), …)"),
            ((), {"a": 1}, "client.submit(add.bind(a=1), …)"),
            ((1,), {"b": 2}, "client.submit(add.bind(1, b=2), …)"),
        ],
    )
    def test_arguments_of_the_flow(self, call: Any, args: tuple[int, ...], kwargs: dict[str, int], line: str) -> None:
        with pytest.raises(InvalidParameters, match=re.escape(line)):
            call.submit(add, *args, **kwargs)

    def test_a_misspelt_option(self, call: Any) -> None:
        with pytest.raises(InvalidInput, match=r"submit: no option is called 'timout'; did you mean timeout\?"):
            call.submit(add, {"a": 1}, timout=3)
        with pytest.raises(InvalidInput, match=r"map: no option is called 'tag'; did you mean tags\?"):
            call.map(add, [{"a": 1}], tag="x")
        with pytest.raises(InvalidInput, match=r"no option is called 'where'; there are environment, storage, "):
            call.submit(add, {"a": 1}, where="here")

    def test_a_misspelt_option_of_the_decorator(self) -> None:
        decorate: Any = flow
        with pytest.raises(InvalidInput, match=r"@flow: no option is called 'timout'; did you mean timeout\?"):
            decorate(timout=3)
        with pytest.raises(InvalidInput, match=r"@flow: no option is called 'where'; there are name, environment, "):
            decorate(where="here")

    def test_a_plain_function(self, call: Any) -> None:
        def plain() -> None: ...

        with pytest.raises(InvalidFlow, match="plain is a plain function; put @flow on the line above 'def plain'"):
            call.submit(plain)
        with pytest.raises(InvalidFlow, match=r"client.submit\(flow\(…\), …\)"):
            call.submit(lambda: 1)
        with pytest.raises(InvalidFlow, match="give a function decorated with @flow"):
            call.submit(3)

    def test_parameters_beside_bound_ones(self, call: Any) -> None:
        for args in (({"a": 2},), (1, 2)):
            with pytest.raises(InvalidParameters, match="has its arguments already"):
                call.submit(add.bind(1), *args)

    @pytest.mark.parametrize("parameters", [None, {"a": 1}, "abc", 3])
    def test_no_list_of_parameters(self, call: Any, parameters: Any) -> None:
        with pytest.raises(InvalidParameters, match=r"needs an iterable.*client.map\(\[add.bind\(…\) for … in …\]"):
            call.map(add, parameters)

    def test_items_that_are_no_bound_flows(self, call: Any) -> None:
        with pytest.raises(InvalidFlow, match="map: item 1: 3 is no flow with arguments"):
            call.map([add.bind(1), 3])

    def test_results_of_a_wait(self, call: Any) -> None:
        runs = call.map([add.bind(1)])
        with pytest.raises(AttributeError, match=r"\[run.result for run in client.wait\(runs\).done\]"):
            [run.result() for run in call.wait(runs)]
        done, not_done = call.wait(runs)
        assert ([run.result() for run in done], not_done) == ([3], set())
        assert not hasattr(done, "nonsense")

    def test_types_are_checked_unless_a_setting_says_otherwise(self, call: Any) -> None:
        with pytest.raises(InvalidParameters, match="flow 'add': parameter 'a' must be int, got 'x'"):
            call.submit(add, {"a": "x"})
        with pytest.raises(InvalidParameters, match="map: item 1: flow 'add': parameter 'b' must be int, got None"):
            call.map(add, [{"a": 1}, {"a": 1, "b": None}])
        assert list(call.runs()) == []
        relaxed: Any = Dispatcher(settings=Settings.load(url="memory://", defaults={"check_types": False}))
        with relaxed as client, pytest.raises(FlowFailed):
            client.submit(add, {"a": "x"}).result()


class TestRuns:
    def test_all_together(self, client: Dispatcher) -> None:
        runs = client.map([add.bind(n) for n in range(3)])
        assert runs.results(timeout=5) == [2, 3, 4]
        assert runs.failed() == []
        assert runs.wait().done == set(runs)
        assert isinstance(runs[1:], Runs)
        assert runs[1:].results() == [3, 4]
        assert repr(runs) == "<Runs: 3 (3 SUCCEEDED, last known)>"

    def test_failures(self, client: Dispatcher) -> None:
        runs = client.map([fail.bind(), fail.bind()])
        with pytest.raises(FlowFailed):
            runs.results()
        assert runs.failed() == runs

    def test_a_table_for_notebooks(self, client: Dispatcher) -> None:
        @flow(name="<b>")
        def bold() -> None: ...

        table = client.map([bold.bind()])._repr_html_()
        assert "<th>state</th>" in table
        assert "&lt;b&gt;" in table
        assert "<b>" not in table


class TestRun:
    def test_what_it_says_of_itself(self, client: Dispatcher) -> None:
        before = datetime.now(UTC) - timedelta(seconds=1)
        environment = LocalEnvironment(labels=["gpu", "eu"])
        run = client.submit(add.bind(1), environment=environment, tags=["night"], name="nightly")
        again = client.get(run.id)
        for each in (run, again):
            assert (each.flow, each.name, each.tags, set(each.labels)) == ("add", "nightly", ("night",), {"gpu", "eu"})
            assert each.attempt == 1
            assert each.started is not None
            assert each.ended is not None
            assert before <= each.created <= each.started <= each.ended
        assert client.submit(add.bind(1)).name == "add"

    def test_dir_has_what_users_need(self, client: Dispatcher) -> None:
        run = client.submit(add.bind(1))
        assert {"result", "state", "flow", "created"} <= set(dir(run))
        assert {"session", "remember", "last_record", "facts"}.isdisjoint(dir(run))
        assert {"submit", "map", "runs"} <= set(dir(client))
        assert {"session", "records"}.isdisjoint(dir(client))


def test_a_client_without_with_works_and_is_closed_at_exit() -> None:
    client = Dispatcher("memory://")
    assert client.submit(add.bind(1)).result() == 3
    client.close()
