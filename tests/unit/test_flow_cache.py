"""A flow travels as it is at each submit. An unchanged one is pickled once."""

from __future__ import annotations

import json
import math
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dispatcher import LocalEnvironment, flow
from dispatcher.flows.flow import Flow
from dispatcher.serialization import unpack
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
