"""The key ring: rotation, other keys, secrets that never show."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from dispatcher.errors import InvalidSettings, SealBroken
from dispatcher.payload import KeyRing
from dispatcher.settings import Settings

OLD, NEW = "the old secret 0123456789", "the new secret 0123456789"


def test_what_is_signed_verifies() -> None:
    ring = KeyRing({"a": NEW})
    ring.verify("run", "a", b"spec", ring.sign("run", b"spec"))


@pytest.mark.parametrize(
    ("run_id", "data", "tail"), [("other", b"spec", ""), ("run", b"spec!", ""), ("run", b"spec", "0"), ("run", b"", "")]
)
def test_anything_else_does_not(run_id: str, data: bytes, tail: str) -> None:
    ring = KeyRing({"a": NEW})
    with pytest.raises(SealBroken, match="never opened"):
        ring.verify(run_id, "a", data, ring.sign("run", b"spec") + tail)


def test_a_signature_that_is_no_ascii_does_not_verify() -> None:
    with pytest.raises(SealBroken):
        KeyRing({"a": NEW}).verify("run", "a", b"spec", "ü")


def test_keys_rotate() -> None:
    before, both, after = KeyRing({"old": OLD}), KeyRing({"new": NEW, "old": OLD}), KeyRing({"new": NEW})
    assert (before.signs, both.signs) == ("old", "new")
    both.verify("run", before.signs, b"spec", before.sign("run", b"spec"))
    after.verify("run", both.signs, b"spec", both.sign("run", b"spec"))
    with pytest.raises(SealBroken, match=r"'old'.*'new'.*DISPATCHER__SIGNING_KEYS"):
        after.verify("run", "old", b"spec", before.sign("run", b"spec"))


def test_the_same_id_with_another_secret_does_not_verify() -> None:
    with pytest.raises(SealBroken, match="key 'a'"):
        KeyRing({"a": NEW}).verify("run", "a", b"spec", KeyRing({"a": OLD}).sign("run", b"spec"))


def test_each_run_has_a_key_of_its_own() -> None:
    ring = KeyRing({"a": NEW, "b": OLD})
    keys = {ring.run_key("1"), ring.run_key("2"), ring.run_key("1", "b")}
    assert len(keys) == 3
    assert ring.run_key("1") == ring.run_key("1", "a") == KeyRing({"a": NEW}).run_key("1")


def test_secrets_never_show() -> None:
    ring = KeyRing({"a": NEW, "b": OLD})
    assert repr(ring) == "KeyRing(a, b)"
    with pytest.raises(TypeError, match="secrets") as caught:
        pickle.dumps(ring)
    with pytest.raises(InvalidSettings) as short:
        KeyRing({"a": "tiny secret"})
    with pytest.raises(SealBroken) as unknown:
        ring.run_key("run", "c")
    for text in (repr(ring), str(caught.value), str(short.value), str(unknown.value)):
        assert "secret 0" not in text
        assert "tiny" not in text


@pytest.mark.parametrize("keys", [{}, {"a": ""}, {"a": "short"}, {"": NEW}, {"good": NEW, "bad": "x" * 15}])
def test_weak_rings_are_refused(keys: dict[str, str]) -> None:
    with pytest.raises(InvalidSettings, match="DISPATCHER__SIGNING_KEYS: "):
        KeyRing(keys)


def test_a_generated_ring_works() -> None:
    one, other = KeyRing.generate(), KeyRing.generate()
    assert one.keys().isdisjoint(other)
    assert KeyRing(one).signs in one


def test_from_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER__SIGNING_KEYS", json.dumps({"z": NEW, "a": OLD}))
    ring = KeyRing.from_settings(Settings.load())
    assert ring.signs == "z"
    assert ring.run_key("run", "a") == KeyRing({"a": OLD}).run_key("run")


def test_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"a": NEW}))
    assert KeyRing.from_settings(Settings.load(signing_keys_file=path)).signs == "a"


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"a": 1}', "{}", '{"a": "short"}', "\x00", b"\xff"])
def test_a_bad_file_names_the_variable(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "keys.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InvalidSettings, match="DISPATCHER__SIGNING_KEYS_FILE"):
        KeyRing.from_settings(Settings.load(signing_keys_file=path))


def test_none_at_all_names_the_remedy() -> None:
    with pytest.raises(InvalidSettings, match=r"DISPATCHER__SIGNING_KEYS .*dispatcher keygen"):
        KeyRing.from_settings(Settings.load())
