"""Values in error messages: their repr, escaped and cut, at a bounded cost."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from dispatcher.support.escaping import LONGEST, shown


class Word(StrEnum):
    ONE = "one"


class Names(list[str]):
    pass


class Numbers(set[int]):
    pass


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class Hostile(list[int]):
    def __iter__(self) -> Iterator[int]:
        raise RuntimeError("no entries")

    def __len__(self) -> int:
        raise RuntimeError("no length")


class Counted:
    """Counts how often it is written."""

    def __init__(self) -> None:
        self.count = 0

    def __repr__(self) -> str:
        self.count += 1
        return "c"


SMALL: tuple[Any, ...] = (
    None, True, 1, -1, 1.5, "", "a'b", 'a"b', "a'b\"c", b"\x00", bytearray(b"x"), [], [1, "a"], (), (1,), (1, 2), {},
    {"a": [1, {2: (3,)}]}, set(), {1}, frozenset(), frozenset({1}), Word.ONE, Names(["x"]), Numbers({1}), Numbers(),
    Hostile([1]),
    Path("a"), Counter("aab"), deque([1]), range(3), int, 10**70, "x" * 78, [[[[1]]]],
)  # fmt: skip


@pytest.mark.parametrize("value", SMALL, ids=repr)
def test_a_small_value_is_shown_as_python_writes_it(value: Any) -> None:
    assert shown(value) == repr(value)


LARGE: tuple[Any, ...] = (
    "x" * 1000, "x" * 79, b"x" * 1000, list(range(1000)), tuple(range(1000)), {n: n for n in range(1000)},
    set(range(1000)), [["a"] * 50] * 50, 10**4000, -(10**4000), [{"a": ("b" * 100,)}], "\x1b" * 100,
)  # fmt: skip


@pytest.mark.parametrize("value", LARGE, ids=lambda value: type(value).__name__)
def test_a_large_value_is_cut(value: Any) -> None:
    assert shown(value) == f"{repr(value)[: LONGEST - 1]}…"


def test_a_value_that_holds_itself_is_shown_as_python_writes_it() -> None:
    ring: list[Any] = [1]
    ring.append(ring)
    table: dict[str, Any] = {}
    table["self"] = table
    assert (shown(ring), shown(table)) == (repr(ring), repr(table))
    twice = [1]
    assert shown([twice, twice]) == "[[1], [1]]"


def test_no_more_is_read_than_is_shown() -> None:
    for make in (list, tuple, lambda entries: dict(enumerate(entries)), lambda entries: [{"a": (entries,)}]):
        counted = Counted()
        assert "c, " in shown(make([counted] * 1_000_000))
        assert counted.count <= LONGEST


def test_what_python_can_not_write_is_described() -> None:
    assert shown(10**10_000) == "<int of 33220 bits>"
    assert shown([10**10_000]) == "[<int of 33220 bits>]"
    assert shown(Counter(range(2000))) == "<Counter of 2000>"
    assert shown(Broken()) == "<Broken, whose repr raises RuntimeError>"


def test_deep_nesting_is_cut() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    assert shown(deep) == "[" * (LONGEST - 1) + "…"
    while isinstance(deep, list):  # freed from outside, since the interpreter may recurse
        deep = deep[0]
