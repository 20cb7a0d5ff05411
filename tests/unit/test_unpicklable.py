"""The search for what can't be pickled: exact where it can be, bounded, and never a fault of its own."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from dispatcher.errors import InvalidInput
from dispatcher.serialization import pack


def words(obj: Any, **more: Any) -> str:
    """What :func:`pack` says of an object that can't be pickled."""
    with pytest.raises(InvalidInput) as caught:
        pack(obj, subject="it", error=InvalidInput, **more)
    assert isinstance(caught.value.__cause__, BaseException)
    return str(caught.value)


class Refuses:
    """Refuses to be pickled, so that its parts are looked at."""

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
    """Another one in each."""

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
    asked = 0

    @property
    def slow(self) -> int:
        Computes.asked += 1
        return 0

    __slots__ = ("slots",)


def test_a_part_is_named_by_its_way() -> None:
    held = {"a": [1, {"lock": threading.Lock()}]}
    assert "it holds ['a'], in it item 1, in it ['lock'] (a _thread.lock)" in words(held)
    assert "it holds parameter 'a', in it item 1, in it ['lock'] (a _thread.lock)" in words(held, each="parameter")
    assert "it holds attribute '_Slotted__hidden' of Slotted (a _thread.lock)" in words(Slotted())


def large() -> Any:
    return [0] * 10**6 + [threading.Lock()]


@pytest.mark.parametrize("make", [Endless, Deeper, large])
def test_the_search_ends(make: Callable[[], Any]) -> None:
    began = time.monotonic()
    said = words(make())
    assert said.startswith("it can't be sent: ")
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("make", [HostileMapping, Endless])
def test_what_is_not_found_is_an_unknown_piece(make: Callable[[], Any]) -> None:
    said = words(make())
    assert said == "it can't be sent: an unknown piece of it: not this"


def test_what_raises_in_the_search_is_swallowed() -> None:
    said = words(Hostile())
    assert "it holds attribute 'lock' of Hostile (a _thread.lock)" in said
    said = words(HostileClass())
    assert said == "it can't be sent: SystemExit: class"
    said = words({HostileKey(): threading.Lock()})
    assert "it holds [<HostileKey>] (a _thread.lock)" in said


def test_nothing_is_computed() -> None:
    words(Computes())
    assert Computes.asked == 0


def test_words_are_short_and_escaped() -> None:
    said = words({"\x1b[2J" + "k" * 10_000: threading.Lock()})
    assert len(said) < 500
    assert "\x1b" not in said
