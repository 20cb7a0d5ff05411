"""The search for the part that can't be pickled: exact if possible, bounded, and never a failure of its own."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from dispatcher.errors import InvalidInput
from dispatcher.serialization import pack


def message(obj: Any, **more: Any) -> str:
    """Return the message of :func:`pack` for an object that can't be pickled."""
    with pytest.raises(InvalidInput) as caught:
        pack(obj, subject="it", error=InvalidInput, **more)
    assert isinstance(caught.value.__cause__, BaseException)
    return str(caught.value)


class Refuses:
    """Refuses to be pickled, so that its parts are searched."""

    def __reduce__(self) -> Any:
        raise TypeError("not this")


class Endless(Refuses, Mapping[int, int]):
    def __getitem__(self, key: int) -> int:
        return key

    def __iter__(self) -> Iterator[int]:
        return itertools.count()

    def __len__(self) -> int:
        return 1


class Deeper(Refuses):
    """Holds another one of its class, without end."""

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
        return {"more": Deeper()}


class Hostile(Refuses):
    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __getattribute__(self, name: str) -> Any:
        raise SystemExit(name)


class HostileMapping(Refuses, Mapping[str, Any]):
    def __getitem__(self, key: str) -> Any:
        raise SystemExit(key)

    def __iter__(self) -> Iterator[str]:
        yield "key"
        raise GeneratorExit

    def __len__(self) -> int:
        raise KeyError


class HostileKey:
    def __repr__(self) -> str:
        raise SystemExit("repr")


class HostileClass(Refuses):
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise SystemExit("class")


class Slotted:
    __slots__ = ("__hidden", "empty")

    def __init__(self) -> None:
        self.__hidden = threading.Lock()

    def __reduce__(self) -> Any:
        return Slotted, (), (None, {"hidden": self.__hidden})


class Computes(Refuses):
    calls = 0

    @property
    def slow(self) -> int:
        Computes.calls += 1
        return 0

    __slots__ = ("slots",)


def test_a_part_is_named_by_its_path() -> None:
    value = {"a": [1, {"lock": threading.Lock()}]}
    assert "it holds ['a'], in it item 1, in it ['lock'] (a _thread.lock)" in message(value)
    assert "it holds parameter 'a', in it item 1, in it ['lock'] (a _thread.lock)" in message(value, each="parameter")
    assert "it holds attribute '_Slotted__hidden' of Slotted (a _thread.lock)" in message(Slotted())


def large() -> Any:
    return [0] * 10**6 + [threading.Lock()]


@pytest.mark.parametrize("make", [Endless, Deeper, large])
def test_the_search_ends(make: Callable[[], Any]) -> None:
    began = time.monotonic()
    text = message(make())
    assert text.startswith("it can't be sent: ")
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("make", [HostileMapping, Endless])
def test_an_unfindable_part_is_unknown(make: Callable[[], Any]) -> None:
    text = message(make())
    assert text == "it can't be sent: an unknown part of it: not this"


def test_exceptions_in_the_search_are_ignored() -> None:
    text = message(Hostile())
    assert "it holds attribute 'lock' of Hostile (a _thread.lock)" in text
    text = message(HostileClass())
    assert text == "it can't be sent: SystemExit: class"
    text = message({HostileKey(): threading.Lock()})
    assert "it holds [<HostileKey>] (a _thread.lock)" in text


def test_nothing_is_computed() -> None:
    message(Computes())
    assert Computes.calls == 0


def test_messages_are_short_and_escaped() -> None:
    text = message({"\x1b[2J" + "k" * 10_000: threading.Lock()})
    assert len(text) < 500
    assert "\x1b" not in text
