"""The item of a mapping that can't be opened is named, wherever in the item the problem is."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest

from dispatcher.errors import OpeningFailed, Permanent
from dispatcher.serialization import pack, unpack
from dispatcher.serialization.unreadable_item import item_of


class Unopenable:
    def __init__(self) -> None:
        self.state = ("a", "b")

    def __setstate__(self, state: object) -> None:
        raise SystemExit(3)


class Fine:
    def __init__(self) -> None:
        self.first, self.second = "first", ["second", ("first", "last", 3, {"x": 1})]


class Calls:
    def __reduce__(self) -> Any:
        return int, ("no number",)


bad = Unopenable()


VALUES: list[Any] = [
    bad,
    [bad],
    ("a", "b", bad),
    ("a", "b", "c", "d", bad),
    {"k": "v", "last": [1, {"n": bad}]},
    [Fine(), bad],
    {bad},
    OrderedDict(a=Fine(), b=bad),
    [b"x" * 100_000, bad],
    Calls(),
]


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
@pytest.mark.parametrize("place", range(4))
def test_the_item_is_named(value: Any, place: int) -> None:
    shared = Fine()
    items: list[Any] = [Fine(), shared, [shared, "third"]]
    items.insert(place, value)
    parameters = dict(zip(("first", "second", "third", "last"), items, strict=True))
    with pytest.raises(OpeningFailed, match=f"^parameter '{list(parameters)[place]}': "):
        unpack(pack(parameters, subject="it"), each="parameter")


def test_many_items_are_told_apart() -> None:
    parameters: dict[str, Any] = {f"n{number}": Fine() for number in range(3000)}
    with pytest.raises(OpeningFailed, match=r"^parameter 'n2500': "):
        unpack(pack({**parameters, "n2500": bad}, subject="it"), each="parameter")


def test_one_item_alone_is_named() -> None:
    with pytest.raises(OpeningFailed, match=r"^parameter 'x': SystemExit: 3$"):
        unpack(pack({"x": bad}, subject="it"), each="parameter")


def test_what_is_missing_is_named_with_its_item(monkeypatch: pytest.MonkeyPatch) -> None:
    import colorsys

    class Shade:
        pass

    Shade.__module__, Shade.__qualname__ = "colorsys", "Shade"
    with monkeypatch.context() as patch:
        patch.setattr(colorsys, "Shade", Shade, raising=False)
        data = pack({"a": Fine(), "b": Shade()}, subject="it")
    with pytest.raises(Permanent, match=r"^parameter 'b': needs package 'colorsys'"):
        unpack(data, each="parameter")


@pytest.mark.parametrize("data", [b"", b"no pickle", b"\x80\x05.", b"(dp0\n."])
def test_nothing_tells_of_what_is_no_mapping(data: bytes) -> None:
    assert item_of(data) is None
