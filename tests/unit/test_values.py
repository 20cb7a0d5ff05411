"""Encoded values: JSON if it gives the value back, else a sealed pickle, which is verified before it is opened."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.errors import InvalidInput, InvalidParameters, OpeningFailed, SealBroken
from dispatcher.runs.value import Value
from dispatcher.serialization import KeyRing, from_value, pack, to_value
from dispatcher.serialization.seals import AttemptSeal, Returned

SEAL = AttemptSeal("run", 1, b"k" * 32)


class Explosive:
    def __reduce__(self) -> Any:
        return exec, ("raise RuntimeError('opened')",)


def travel(obj: Any, *, inline: int = 10**6, seal: AttemptSeal | None = SEAL) -> tuple[Value, Any]:
    blobs: dict[str, bytes] = {}

    def put(data: bytes) -> str:
        blobs["blob"] = data
        return "blob"

    value = to_value(obj, subject="value", limit_inline=inline, limit=10**8, put=put, seal=seal)
    return value, from_value(Value.from_json(json.loads(json.dumps(value.to_json()))), get=blobs.__getitem__, seal=seal)


def same(left: Any, right: Any) -> bool:
    """Return True if two values are equal and have the same types at each level."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(
            same(a, b) for pair in zip(left.items(), right.items(), strict=True) for a, b in zip(*pair, strict=True)
        )
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right, strict=True))
    if isinstance(left, float):
        return (math.isnan(left) and math.isnan(right)) or (
            left == right and math.copysign(1, left) == math.copysign(1, right)
        )
    return bool(left == right)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=20)
KEYS = st.text(max_size=5) | st.integers() | st.booleans() | st.none()
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.tuples(inner, inner)
        | st.frozensets(st.integers(), max_size=3)
    ),
    max_leaves=12,
)


@given(TREES, st.sampled_from([0, 10**6]))
def test_every_value_comes_back_as_it_was(obj: Any, inline: int) -> None:
    value, back = travel(obj, inline=inline)
    assert same(obj, back)
    assert (value.blob is None) != (value.inline is None)


class Text(str):
    __slots__ = ()


class Number(int):
    pass


@pytest.mark.parametrize(
    ("obj", "codec"),
    [
        ({"a": [1, 2.5, None, True, "ü"]}, "json"),
        ([], "json"),
        (-0.0, "json"),
        ((1, 2), "pickle"),
        ({1: "a"}, "pickle"),
        ({1, 2}, "pickle"),
        (math.nan, "pickle"),
        ([math.inf], "pickle"),
        (Text("x"), "pickle"),
        ({Text("x"): 1}, "pickle"),
        ([Number(3)], "pickle"),
        ("\ud800", "pickle"),
        (10**5000, "pickle"),
        (b"bytes", "pickle"),
    ],
    ids=lambda value: str(value)[:20].encode("ascii", "replace").decode() if not isinstance(value, int) else "n",
)
def test_json_where_it_gives_the_value_back(obj: Any, codec: str) -> None:
    value, back = travel(obj)
    assert value.codec == codec
    assert same(obj, back) or obj == back


def test_shared_parts_stay_shared_and_cycles_come_back() -> None:
    part = [1]
    _, (first, second) = travel([part, part])
    assert first is second
    ring: list[Any] = []
    ring.append(ring)
    _, back = travel(ring)
    assert back[0] is back


@dataclasses.dataclass
class Point:
    x: int


def test_large_values_become_blobs() -> None:
    value, back = travel("x" * 100, inline=99)
    assert (value.blob, value.inline, value.size) == ("blob", None, 102)
    assert back == "x" * 100
    assert travel("x" * 97, inline=99)[0].blob is None


def test_too_large_names_limit_and_setting() -> None:
    with pytest.raises(
        InvalidParameters, match=r"parameters of 'f': 1,002 bytes .* 1,000 bytes.*DISPATCHER__LIMITS__X"
    ):
        to_value(
            "x" * 1000, subject="parameters of 'f'", limit_inline=10, limit=1000, put=lambda _: "", seal=None,
            error=InvalidParameters, setting="DISPATCHER__LIMITS__X",
        )  # fmt: skip


def sealed(obj: Any, seal: AttemptSeal | None = SEAL) -> Value:
    return to_value(obj, subject="value", limit_inline=10**6, limit=10**8, put=lambda _: "", seal=seal)


def no_blob(_name: str) -> bytes:
    raise AssertionError("no blob is asked for")


def test_a_pickle_is_opened_only_with_its_key() -> None:
    value = sealed(Explosive())
    with pytest.raises(SealBroken, match="attempt 1 of run run"):
        from_value(value, get=no_blob, seal=AttemptSeal("run", 1, b"x" * 32))
    for other in (AttemptSeal("run", 2, SEAL.key), AttemptSeal("other", 1, SEAL.key)):
        with pytest.raises(SealBroken, match="sealed by attempt"):
            from_value(value, get=no_blob, seal=other)
    with pytest.raises(SealBroken, match="exception"):  # nor as a value of another kind
        from_value(value, get=no_blob, seal=SEAL, kind=Returned.EXCEPTION)
    with pytest.raises(SealBroken, match="keygen"):
        from_value(value, get=no_blob, seal=None)
    with pytest.raises(SealBroken, match="attempt 1 of run run"):
        from_value(dataclasses.replace(value, mac=""), get=no_blob, seal=SEAL)
    with pytest.raises(OpeningFailed, match="RuntimeError: opened"):
        from_value(value, get=no_blob, seal=SEAL)


def test_a_signed_spec_vouches_for_its_parameters() -> None:
    value = sealed(Point(3), seal=None)
    assert value.mac == ""
    assert from_value(value, get=no_blob, seal=None, trusted=True) == Point(3)


@pytest.mark.parametrize("trusted", [False, True])
def test_one_changed_byte_is_found(trusted: bool) -> None:
    value = sealed(Explosive())
    raw = bytearray(base64.b64decode(value.inline or ""))
    for position in (0, len(raw) // 2, len(raw) - 1):
        changed = bytearray(raw)
        changed[position] ^= 1
        with pytest.raises(SealBroken, match="changed"):
            from_value(
                dataclasses.replace(value, inline=base64.b64encode(changed).decode()),
                get=no_blob,
                seal=SEAL,
                trusted=trusted,
            )
    with pytest.raises(SealBroken, match="base64"):
        from_value(dataclasses.replace(value, inline="?"), get=no_blob, seal=SEAL, trusted=trusted)


def test_json_needs_no_key_but_its_digest() -> None:
    value = sealed({"a": 1})
    assert from_value(value, get=no_blob, seal=None) == {"a": 1}
    with pytest.raises(SealBroken):
        from_value(dataclasses.replace(value, inline='{"a":2}'), get=no_blob, seal=None)


def test_a_json_value_can_not_be_taken_for_a_pickle() -> None:
    text = base64.b64encode(pack(Explosive(), subject="bomb")).decode()
    value = sealed(text)
    with pytest.raises(SealBroken):
        from_value(dataclasses.replace(value, codec="pickle", inline=text), get=no_blob, seal=SEAL)


def test_a_missing_blob_is_the_callers_to_tell() -> None:
    value, _ = travel("x" * 100, inline=1)
    with pytest.raises(KeyError):
        from_value(value, get=dict[str, bytes]().__getitem__, seal=SEAL)


def test_a_large_value_is_copied_once_to_pack() -> None:
    import tracemalloc

    data = bytes(20_000_000)
    tracemalloc.start()
    try:
        pack({"data": data}, subject="value")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1.5 * len(data)


def test_a_key_ring_does_not_travel() -> None:
    ring = KeyRing(KeyRing.generate())
    with pytest.raises(InvalidInput, match="secrets"):
        pack([ring], subject="parameters")
