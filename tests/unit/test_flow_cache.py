"""A flow travels as it is at each submit, whatever of it changed since the last one; unchanged, it is pickled once."""

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
    """Of this module, so that it travels by value."""

    value = 1


def helper() -> int:
    """Of this module, too."""
    return 1


@flow
def number(given: int = 1, *, more: int = 1) -> Any:
    """Names a number, within a function in it, and a module."""

    def within() -> int:
        return NUMBER

    return [within(), given, more, math.floor(NUMBER)]


@flow
def rest() -> Any:
    """Names what may change inside."""
    return [ITEMS, PAIR[1], helper(), Thing.value, beside.LEVEL, beside.told()]  # type: ignore[name-defined] # noqa: F821


@flow
def reference() -> Any:
    """Names what travels by reference."""
    return AMOUNT(4.0)


def closing(over: Any) -> tuple[Flow[[], Any], Callable[[Any], None]]:
    """A flow that closes over something, and what changes that."""

    @flow
    def closed() -> Any:
        return over

    def change(value: Any) -> None:
        nonlocal over
        over = value

    return closed, change


@pytest.fixture(autouse=True)
def _beside(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module of the user's own, beside."""
    (tmp_path / "beside_module.py").write_text("LEVEL = 1\n\ndef told():\n    return LEVEL\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(globals(), "beside", __import__("beside_module"))
    yield
    del sys.modules["beside_module"]


def _kwdefaults() -> dict[str, Any]:
    return number.fn.__kwdefaults__ or {}


def _travels(cache: FlowCache, one: Flow[..., Any]) -> Any:
    return unpack(cache.pack(one)).fn()


def test_what_is_unchanged_is_pickled_once() -> None:
    cache = FlowCache()
    for one in (number, reference, closing(5)[0]):
        assert cache.pack(one) is cache.pack(one)


CHANGES: dict[str, tuple[Flow[..., Any], Callable[[pytest.MonkeyPatch], object]]] = {
    "a global": (number, lambda patch: patch.setitem(globals(), "NUMBER", 2)),
    "a default": (number, lambda patch: patch.setattr(number.fn, "__defaults__", (2,))),
    "a keyword's default": (number, lambda patch: patch.setattr(number.fn, "__kwdefaults__", {"more": 2})),
    "in a keyword's defaults": (number, lambda patch: patch.setitem(_kwdefaults(), "more", 2)),
    "a module": (number, lambda patch: patch.setitem(globals(), "math", types.SimpleNamespace(floor=lambda _: "2"))),
    "code": (number, lambda patch: patch.setattr(number.fn, "__code__", _other.__code__)),
    "what is named": (reference, lambda patch: patch.setitem(globals(), "AMOUNT", math.floor)),
    "a function's code": (rest, lambda patch: patch.setattr(helper, "__code__", (lambda: 2).__code__)),
    "in a class": (rest, lambda patch: patch.setattr(Thing, "value", 2)),
    "in a module beside": (rest, lambda patch: patch.setattr(sys.modules["beside_module"], "LEVEL", 2)),
    "a function in a module beside": (
        rest, lambda patch: patch.setattr(sys.modules["beside_module"], "told", lambda: 2),
    ),
}  # fmt: skip


def _other(given: int = 1, *, more: int = 1) -> Any:
    return "other"


@pytest.mark.parametrize("what", CHANGES)
def test_what_changed_travels(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one, change = CHANGES[what]
    cache = FlowCache()
    before = _travels(cache, one)
    assert _travels(cache, one) == before == one.fn()

    with monkeypatch.context() as patch:
        change(patch)
        assert one.fn() != before
        assert _travels(cache, one) == one.fn()
    assert _travels(cache, one) == before


@pytest.mark.parametrize("held", [ITEMS, PAIR[1]], ids=["a list", "in a tuple"])
def test_a_list_that_changed_in_place_travels(held: Any) -> None:
    cache = FlowCache()
    before = _travels(cache, rest)
    held[0] = 2
    try:
        assert before != rest.fn() == _travels(cache, rest)
    finally:
        held[0] = 1


@pytest.mark.parametrize(("first", "second"), [(1, 2), ([1], [2]), (math.pi, helper)])
def test_what_is_closed_over_travels(first: Any, second: Any) -> None:
    closed, change = closing(first)
    cache = FlowCache()
    assert _travels(cache, closed) == first
    change(second)
    travelled = _travels(cache, closed)
    assert (travelled() if callable(travelled) else travelled) == (second() if callable(second) else second)


def test_what_the_flow_itself_says_travels(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FlowCache()
    cache.pack(reference)
    monkeypatch.setattr(reference, "name", "another")
    assert unpack(cache.pack(reference)).name == "another"
    monkeypatch.setattr(reference, "environment", LocalEnvironment(labels=["eu"]))
    assert unpack(cache.pack(reference)).environment.labels == ("eu",)


@pytest.mark.parametrize("held", [[1], {}, (1, []), object(), Thing, helper, LocalEnvironment(), sys, types, json])
def test_only_what_cannot_change_unseen_is_sure(held: Any) -> None:
    assert (dependencies(closing(held)[0]) is not None) == (held in (sys, types))
