"""The identity of a place: anchors of the whole decide, then those of its parts; what isn't one reads as none."""

from __future__ import annotations

from typing import Any

import pytest

from dispatcher.runs.place_identity import Agreement, compare, part_of, read_identity, shown

WHOLE = {"system": "1"}
PART = {"ca/flows": "a"}


@pytest.mark.parametrize(
    ("identity", "other", "agreement"),
    [
        (WHOLE, WHOLE, Agreement.SAME),
        (WHOLE, {"system": "2"}, Agreement.DIFFERENT),
        (WHOLE, PART, Agreement.UNCLEAR),
        (WHOLE, {}, Agreement.UNCLEAR),
        ({}, {}, Agreement.UNCLEAR),
        (WHOLE | PART, PART, Agreement.SAME),
        (WHOLE | PART, {"ca/flows": "b"}, Agreement.DIFFERENT),
        (WHOLE | PART, WHOLE | {"ca/flows": "b"}, Agreement.SAME),  # the ConfigMap was created anew
        (WHOLE | PART, {"system": "2"} | PART, Agreement.DIFFERENT),
        ({"ca/a": "1", "ca/b": "2"}, {"ca/a": "1", "ca/b": "3"}, Agreement.SAME),
        ({"ca/a": "1"}, {"ca/b": "1"}, Agreement.UNCLEAR),
    ],
)
def test_compare(identity: dict[str, str], other: dict[str, str], agreement: Agreement) -> None:
    assert compare(identity, other) is compare(other, identity) is agreement


@pytest.mark.parametrize("value", [None, [], "x", {"a": 1}, {1: "a"}, {"a": ""}, {"a": "x" * 300}, {"a": None}])
def test_what_is_no_identity_is_none(value: Any) -> None:
    assert read_identity(value) == {}
    assert read_identity({str(n): "x" for n in range(300)}) == {}


def test_parts_and_words() -> None:
    identity = WHOLE | PART | {"ca/other": "b"}
    assert part_of(identity, "flows") == WHOLE | PART
    assert shown(identity) == "system 1"
    assert shown(PART | {"ca/other": "b"}) == "ca/flows a, ca/other b"
    assert shown({}) == "no identity"
