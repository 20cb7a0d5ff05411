"""A flow travels as it is at each submit. An unchanged one is pickled once."""

from __future__ import annotations

import importlib
import json
import math
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from dispatcher import LocalEnvironment, flow
from dispatcher.flows.flow import Flow
from dispatcher.serialization import pickles, unpack
from dispatcher.storage.flow_cache import FlowCache, dependencies

NUMBER = 1
ITEMS = [1]
PAIR = (1, [1])
AMOUNT = math.sqrt


class Thing:
    """A class of this module, which travels by value."""

    value = 1


def helper() -> int:
    """A function of this module, too."""
    return 1


@flow
def number(default: int = 1, *, more: int = 1) -> Any:
    """Use a global number, in an inner function, and a module."""

    def within() -> int:
        return NUMBER

    return [within(), default, more, math.floor(NUMBER)]


@flow
def rest() -> Any:
    """Use objects that may change inside."""
    return [ITEMS, PAIR[1], helper(), Thing.value, beside.LEVEL, beside.level()]  # type: ignore[name-defined] # noqa: F821


@flow
def reference() -> Any:
    """Use an object that travels by reference."""
    return AMOUNT(4.0)


def closure(content: Any) -> tuple[Flow[[], Any], Callable[[Any], None]]:
    """Return a flow that closes over ``content``, and a function that changes it."""

    @flow
    def closed() -> Any:
        return content

    def change(value: Any) -> None:
        nonlocal content
        content = value

    return closed, change


@pytest.fixture(autouse=True)
def _beside(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Write a module of the user's own, which isn't installed."""
    (tmp_path / "beside_module.py").write_text("LEVEL = 1\n\ndef level():\n    return LEVEL\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(globals(), "beside", __import__("beside_module"))
    yield
    del sys.modules["beside_module"]


def _kwdefaults() -> dict[str, Any]:
    return number.fn.__kwdefaults__ or {}


def _result_of_copy(cache: FlowCache, tested: Flow[..., Any]) -> Any:
    return unpack(cache.pack(tested)).fn()


def test_an_unchanged_flow_is_pickled_once() -> None:
    cache = FlowCache()
    for tested in (number, reference, closure(5)[0]):
        assert cache.pack(tested) is cache.pack(tested)


CHANGES: dict[str, tuple[Flow[..., Any], Callable[[pytest.MonkeyPatch], object]]] = {
    "a global": (number, lambda patch: patch.setitem(globals(), "NUMBER", 2)),
    "a default": (number, lambda patch: patch.setattr(number.fn, "__defaults__", (2,))),
    "a keyword's default": (number, lambda patch: patch.setattr(number.fn, "__kwdefaults__", {"more": 2})),
    "in a keyword's defaults": (number, lambda patch: patch.setitem(_kwdefaults(), "more", 2)),
    "a module": (number, lambda patch: patch.setitem(globals(), "math", types.SimpleNamespace(floor=lambda _: "2"))),
    "code": (number, lambda patch: patch.setattr(number.fn, "__code__", _other.__code__)),
    "a function that is used": (reference, lambda patch: patch.setitem(globals(), "AMOUNT", math.floor)),
    "a function's code": (rest, lambda patch: patch.setattr(helper, "__code__", (lambda: 2).__code__)),
    "in a class": (rest, lambda patch: patch.setattr(Thing, "value", 2)),
    "in a module beside": (rest, lambda patch: patch.setattr(sys.modules["beside_module"], "LEVEL", 2)),
    "a function in a module beside": (
        rest, lambda patch: patch.setattr(sys.modules["beside_module"], "level", lambda: 2),
    ),
}  # fmt: skip


def _other(default: int = 1, *, more: int = 1) -> Any:
    return "other"


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_travels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tested, change = CHANGES[name]
    cache = FlowCache()
    before = _result_of_copy(cache, tested)
    assert _result_of_copy(cache, tested) == before == tested.fn()

    with monkeypatch.context() as patch:
        change(patch)
        assert tested.fn() != before
        assert _result_of_copy(cache, tested) == tested.fn()
    assert _result_of_copy(cache, tested) == before


@pytest.mark.parametrize("items", [ITEMS, PAIR[1]], ids=["a list", "in a tuple"])
def test_a_list_that_changed_in_place_travels(items: Any) -> None:
    cache = FlowCache()
    before = _result_of_copy(cache, rest)
    items[0] = 2
    try:
        assert before != rest.fn() == _result_of_copy(cache, rest)
    finally:
        items[0] = 1


@pytest.mark.parametrize(("first", "second"), [(1, 2), ([1], [2]), (math.pi, helper)])
def test_a_changed_closure_travels(first: Any, second: Any) -> None:
    closed, change = closure(first)
    cache = FlowCache()
    assert _result_of_copy(cache, closed) == first
    change(second)
    travelled = _result_of_copy(cache, closed)
    assert (travelled() if callable(travelled) else travelled) == (second() if callable(second) else second)


def test_a_changed_attribute_of_the_flow_travels(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FlowCache()
    cache.pack(reference)
    monkeypatch.setattr(reference, "name", "another")
    assert unpack(cache.pack(reference)).name == "another"
    monkeypatch.setattr(reference, "environment", LocalEnvironment(labels=["eu"]))
    assert unpack(cache.pack(reference)).environment.labels == ("eu",)


@pytest.mark.parametrize("content", [[1], {}, (1, []), object(), Thing, helper, LocalEnvironment(), sys, types, json])
def test_only_immutable_values_are_comparable(content: Any) -> None:
    assert (dependencies(closure(content)[0]) is not None) == (content in (sys, types))


_MODULE = "from dispatcher import flow\n\n@flow\ndef made() -> int:\n    return 1\n"


def _imported(folder: Path, name: str) -> Any:
    """Import a project's module with a flow, which travels by reference, with its file in a bundle."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(_MODULE)
    sys.modules.pop(name, None)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))


@pytest.fixture
def module(tmp_path: Path) -> Iterator[Any]:
    """A module of a project of its own."""
    imported = _imported(tmp_path / "project", "project_with_flow")
    yield imported
    sys.modules.pop(imported.__name__, None)


def test_a_flow_that_travels_by_reference_is_pickled_once(module: Any) -> None:
    cache = FlowCache()
    assert cache.pack(module.made) is cache.pack(module.made)
    assert pickles.modules(cache.pack(module.made)) == {module.__name__}


def test_its_module_given_to_cloudpickle_travels_by_value(module: Any) -> None:
    cache = FlowCache()
    by_reference = cache.pack(module.made)
    cloudpickle.register_pickle_by_value(module)
    try:
        assert not pickles.modules(cache.pack(module.made))
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    assert cache.pack(module.made) == by_reference


def test_a_flow_that_its_module_no_longer_has_travels_by_value(module: Any, tmp_path: Path) -> None:
    cache = FlowCache()
    former = module.made
    by_reference = cache.pack(former)
    module.made = None
    assert len(cache.pack(former)) > len(by_reference)
    assert dependencies(_imported(tmp_path / "other", module.__name__).made) != dependencies(former)
