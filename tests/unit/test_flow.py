"""Flows: functions that may be flows, binding of parameters, and pickling."""

from __future__ import annotations

import asyncio
import functools
import inspect
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, assert_type

import pytest

from dispatcher import Flow, InvalidFlow, InvalidInput, InvalidParameters, LocalEnvironment, LocalStorage, Retry, flow
from dispatcher.executors.local import LocalExecutor
from dispatcher.serialization import pack, unpack
from dispatcher.submission.calls import single_call
from dispatcher.testing.modules import module


@flow
def add(a: int, b: int = 2) -> int:
    """Adds."""
    return a + b


@flow(name="named", tags=["t"], timeout=timedelta(minutes=1), retries=3, environment=LocalEnvironment(labels=["x"]))
def optioned(a: int) -> str:
    return str(a)


@flow
async def later(a: int) -> int:
    await asyncio.sleep(0)
    return a + 1


def test_a_flow_is_called_as_a_function_and_looks_like_it() -> None:
    assert add(1) == 3
    assert add.name == add.__name__ == "add"
    assert add.__doc__ == "Adds."
    assert add.__wrapped__ is add.fn
    assert inspect.signature(add) == inspect.signature(add.fn)
    assert repr(add) == "<Flow 'add': tests.unit.test_flow.add(a: 'int', b: 'int' = 2) -> 'int'>"


def test_types_are_kept() -> None:
    assert_type(add(1), int)
    assert_type(later(1), int)
    assert_type(optioned(1), str)
    assert isinstance(add, Flow)


def test_options_are_checked_at_decoration() -> None:
    assert optioned.name == "named"
    assert optioned.options.timeout == 60.0
    assert optioned.options.retries == Retry(3)
    assert optioned.options.tags == ("t",)
    assert optioned.environment == LocalEnvironment(labels=["x"])
    assert optioned(4) == "4"
    with pytest.raises(InvalidInput, match="timeout"):
        flow(timeout=-1)
    with pytest.raises(InvalidInput, match=r"@flow: no option is called 'retry'; did you mean retries\?"):
        flow(retry=1)  # type: ignore[call-overload]


def test_async_flows_run_under_asyncio_also_inside_a_loop() -> None:
    assert later(1) == 2

    async def inside() -> int:
        return later(5)

    assert asyncio.run(inside()) == 6

    @flow
    async def failing() -> None:
        raise KeyError("x")

    async def failing_inside() -> None:
        failing()

    with pytest.raises(KeyError):
        asyncio.run(failing_inside())
    with pytest.raises(KeyError) as caught:
        failing()
    assert caught.value.__context__ is None  # the search for a running loop leaves no trace


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


class Holder:
    def method(self) -> None: ...
    @classmethod
    def of(cls) -> None: ...


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (generator, "generator"),
        (async_generator, "generator"),
        (Holder, "class"),
        (Holder().method, "method"),
        (Holder.method, "method"),
        (Holder.__dict__["of"], "method"),
        (staticmethod(add.fn), "method"),
        (functools.partial(add.fn, 1), "isn't a function"),
        (len, "isn't a function"),
        (3, "isn't a function"),
        (None.__class__, "class"),
        (add, "is a flow already"),
    ],
)
def test_other_objects_are_refused_at_decoration(wrong: Any, message: str) -> None:
    for decorate in (flow, flow(name="n")):
        with pytest.raises(InvalidFlow, match=message):
            decorate(wrong)


def checked(tested: Flow[..., Any], parameters: Any) -> dict[str, Any]:
    """The parameters of a submit."""
    return single_call(tested, parameters, (), {}, typed=False)[1]


def test_parameters_are_bound_without_defaults() -> None:
    assert checked(add, {"a": 1}) == {"a": 1}
    nothing = flow(lambda: 1)
    assert checked(nothing, None) == {}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "missing parameter 'a'"),
        (None, "missing parameter 'a'"),
        ({"a": 1, "c": 2, "d": 3}, "unknown parameters 'c', 'd'"),
        ({"c": 2}, "missing parameter 'a'; unknown parameter 'c'"),
        ([1], r"must be one mapping.*or be bound: client.submit\(add.bind\(\[1\]\), …\)"),
        ("a", r"must be one mapping.*or be bound: client.submit\(add.bind\('a'\), …\)"),
        ({1: 2}, "names must be strings, got 1"),
    ],
)
def test_wrong_parameters_are_named(parameters: Any, message: str) -> None:
    with pytest.raises(InvalidParameters, match=f"flow 'add': .*{message}"):
        checked(add, parameters)


def test_the_signature_is_shown_without_addresses() -> None:
    @flow
    def odd(a: int, b: Any = object()) -> None: ...  # noqa: B008

    with pytest.raises(InvalidParameters, match=r"Its signature: \(a: 'int', b: 'int' = 2\) -> 'int'"):
        checked(add, {})
    with pytest.raises(InvalidParameters, match=r"Its signature: \(a, b\)$"):
        checked(odd, {})


def run(tested: Flow[..., Any], **parameters: Any) -> Any:
    return tested.run(parameters, LocalExecutor())


def test_every_kind_of_parameter_is_given_by_name() -> None:
    @flow
    def every(a: int, b: int = 2, /, c: int = 3, *rest: int, d: int = 4, **more: int) -> Any:
        return (a, b, c, rest, d, more)

    assert run(every, a=1) == (1, 2, 3, (), 4, {})
    assert run(every, a=1, c=5, x=6) == (1, 2, 5, (), 4, {"x": 6})
    assert run(every, a=1, rest=[7, 8], d=9) == (1, 2, 3, (7, 8), 9, {})
    assert run(every, a=1, rest=[]) == (1, 2, 3, (), 4, {})
    with pytest.raises(InvalidParameters, match="'rest' must be a list, got int"):
        checked(every, {"a": 1, "rest": 7})

    @flow
    def gap(a: int = 1, b: int = 2, /) -> Any:
        return (a, b)

    assert run(gap, b=5) == (1, 5)
    assert run(gap) == (1, 2)


def test_run_gathers_the_functions_result() -> None:
    @flow
    def futures() -> Any:
        executor = LocalExecutor()
        return {"x": [executor.submit(add.fn, 1)], "y": (executor.submit(add.fn, 2), 3)}

    assert run(futures) == {"x": [3], "y": (4, 3)}
    with pytest.raises(InvalidParameters):
        run(add)


# -- pickling


def test_a_flow_of_this_module_travels_by_value_with_all_that_it_has() -> None:
    there = unpack(pack(optioned, subject="it"))
    assert there is not optioned
    assert there(7) == "7"
    assert (there.name, there.options, there.environment) == (optioned.name, optioned.options, optioned.environment)


def test_closures_lambdas_and_recursion_travel() -> None:
    factor = 3
    assert unpack(pack(flow(lambda x: x * factor), subject="it"))(2) == 6

    @flow
    def faculty(n: int) -> int:
        return 1 if n < 2 else n * faculty(n - 1)

    assert unpack(pack(faculty, subject="it"))(5) == 120


def test_the_same_flow_is_the_same_bytes() -> None:
    storage = LocalStorage("nowhere")
    carrying = flow(storage=storage)(add.fn)
    before = pack(carrying, subject="it")
    storage.flows["add"] = "somewhere"
    assert pack(carrying, subject="it") == before


def test_an_installed_flow_travels_by_reference(tmp_path: Path) -> None:
    source = "from dispatcher import flow\n@flow\ndef installed(a): return a\n"
    with module(tmp_path, "flows_installed", source) as flows:
        data = pack(flows.installed, subject="it")
        assert unpack(data) is flows.installed
        assert len(data) < 300
    with module(tmp_path, "flows_beside", source, installed=False) as flows:
        data = pack(flows.installed, subject="it")
        assert unpack(data) is flows.installed, "its file travels in a bundle"


def test_an_object_that_cannot_travel_is_named_at_save(tmp_path: Path) -> None:
    handle = (tmp_path / "file").open("w")

    @flow
    def holds() -> None:
        handle.write("x")

    with handle, pytest.raises(InvalidFlow, match="handle"):
        holds.save(tmp_path / "it.flow")
    assert not list(tmp_path.glob("*.flow*"))


def test_save_and_load(tmp_path: Path) -> None:
    path = tmp_path / "it.flow"
    path.write_text("former content")
    optioned.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["it.flow"]
    there = Flow.load(str(path))
    assert there(1) == "1"
    assert there.name == "named"
    path.write_bytes(pack([1], subject="a list"))
    with pytest.raises(InvalidFlow, match=r"it\.flow holds no flow but list"):
        Flow.load(path)


SCRIPT = """
import sys
from dispatcher import context, flow, gather, task
LIMIT = 10
class Point:
    def __init__(self, x): self.x = x
@task
def double(p): return Point(p.x * 2)
@flow(tags=["a"])
def main(x, again=True):
    context.logger.info("x")
    if again and x < LIMIT:
        return main(x + 1)
    return gather(double.map([Point(x)]))[0].x
if __name__ == "__main__":
    main.save(sys.argv[1])
"""


def test_a_flow_of_a_script_runs_in_another_process(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    subprocess.run([sys.executable, tmp_path / "script.py", tmp_path / "f"], check=True, timeout=60)
    assert Flow.load(tmp_path / "f")(3) == 20


def test_parameters_follow_changes_of_the_function(monkeypatch: pytest.MonkeyPatch) -> None:
    @flow
    def changed(a: int = 1) -> int:
        return a

    @flow
    def other(b: int) -> int:
        return b

    assert checked(changed, {}) == {}
    monkeypatch.setattr(changed.fn, "__defaults__", None)
    with pytest.raises(InvalidParameters, match="missing parameter 'a'"):
        checked(changed, {})
    monkeypatch.setattr(changed.fn, "__code__", other.fn.__code__)
    assert checked(changed, {"b": 2}) == {"b": 2}
