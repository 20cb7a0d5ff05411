"""The key ring: rotation, wrong keys, and secrets that are never shown."""

from __future__ import annotations

import hmac
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from dispatcher.errors import InvalidInput, InvalidSettings, SealBroken
from dispatcher.runs.record import Record
from dispatcher.runs.routing import Route
from dispatcher.serialization import KeyRing
from dispatcher.serialization.seals import Stored
from dispatcher.settings import Settings
from tests.unit.making import make_record, sign

OLD, NEW = "the old secret 0123456789", "the new secret 0123456789"


def test_a_signature_verifies() -> None:
    ring = KeyRing({"a": NEW})
    ring.verify("run", "a", b"spec", ring.sign("run", b"spec"))


@pytest.mark.parametrize(
    ("run_id", "data", "tail"), [("other", b"spec", ""), ("run", b"spec!", ""), ("run", b"spec", "0"), ("run", b"", "")]
)
def test_a_changed_spec_does_not_verify(run_id: str, data: bytes, tail: str) -> None:
    ring = KeyRing({"a": NEW})
    with pytest.raises(SealBroken, match="never opened"):
        ring.verify(run_id, "a", data, ring.sign("run", b"spec") + tail)


def test_a_signature_that_is_no_ascii_does_not_verify() -> None:
    with pytest.raises(SealBroken):
        KeyRing({"a": NEW}).verify("run", "a", b"spec", "ü")


def test_keys_rotate() -> None:
    before, both, after = KeyRing({"old": OLD}), KeyRing({"new": NEW, "old": OLD}), KeyRing({"new": NEW})
    assert (before.signing_key_id, both.signing_key_id) == ("old", "new")
    both.verify("run", before.signing_key_id, b"spec", before.sign("run", b"spec"))
    after.verify("run", both.signing_key_id, b"spec", both.sign("run", b"spec"))
    with pytest.raises(SealBroken, match=r"'old'.*'new'.*DISPATCHER__SIGNING_KEYS"):
        after.verify("run", "old", b"spec", before.sign("run", b"spec"))


def test_the_same_id_with_another_secret_does_not_verify() -> None:
    with pytest.raises(SealBroken, match="key 'a'"):
        KeyRing({"a": NEW}).verify("run", "a", b"spec", KeyRing({"a": OLD}).sign("run", b"spec"))


def test_each_attempt_has_keys_of_its_own() -> None:
    """No two purposes, runs, attempts or keys of the ring share a derived key."""
    ring = KeyRing({"a": NEW, "b": OLD})
    attempts = [("1", 1, "a"), ("2", 1, "a"), ("1", 2, "a"), ("1", 1, "b"), ("11", 1, "a"), ("1", 11, "a")]
    seals = {ring.attempt_seal(run_id, attempt, key_id).key.hex() for run_id, attempt, key_id in attempts}
    tokens = {ring.token(run_id, attempt, 1, key_id) for run_id, attempt, key_id in attempts}
    signatures = {ring.sign(run_id, b"") for run_id, _, _ in attempts}
    assert len(seals | tokens | signatures) == 2 * len(attempts) + 3
    assert ring.token("1", 1, 1) != ring.token("1", 1, 2)
    assert ring.attempt_seal("1", 1) == ring.attempt_seal("1", 1, "a") == KeyRing({"a": NEW}).attempt_seal("1", 1)


def test_a_containers_keys_sign_no_spec() -> None:
    """Neither its seal nor its token is the key of a signature."""
    ring = KeyRing({"a": NEW})
    for key in (ring.attempt_seal("run", 1).key, bytes.fromhex(ring.token("run", 1, 1))):
        for data in (b"spec", b"spec:spec"):
            assert hmac.digest(key, data, "sha256").hex() != ring.sign("run", b"spec")


def record_of(ring: KeyRing, **changes: Any) -> Record:
    """Return a record with a signed spec."""
    record = make_record(**{"key_id": ring.signing_key_id, **changes})
    return sign(record, ring)


def test_a_key_is_bound_to_backends() -> None:
    ring = KeyRing({"team": {"secret": NEW, "backends": ["local", "remote"]}})
    ring.check(record_of(ring), 0.0)
    with pytest.raises(SealBroken, match="key 'team', which may not use backend 'kubernetes'"):
        ring.check(record_of(ring, route=Route("kubernetes")), 0.0)
    ring.check_backend("remote")
    with pytest.raises(InvalidInput, match=r"key 'team' may not use backend 'kubernetes', only local, remote"):
        ring.check_backend("kubernetes")


def test_every_signature_expires() -> None:
    ring = KeyRing({"a": NEW})
    ring.check(record_of(ring, expires=100.0), 99.0)
    with pytest.raises(SealBroken, match="expired 1 s ago: the run waited too long"):
        ring.check(record_of(ring, expires=100.0), 101.0)
    with pytest.raises(SealBroken, match="has no expiry"):
        ring.check(record_of(ring, expires=None), 0.0)


def test_a_spec_belongs_to_its_run() -> None:
    ring = KeyRing({"a": NEW})
    copied = record_of(ring).but(id="other")
    with pytest.raises(SealBroken, match="changed on its way"):
        ring.check(copied, 0.0)
    with pytest.raises(SealBroken, match="carries the spec of run run1"):
        ring.check(sign(copied, ring), 0.0)


REQUEST = {"shard": "kubernetes/1", "epoch": 1, "body": {"namespace": "default", "n": [1, 2.5, None, "é"]}}


def test_what_workers_store_is_sealed() -> None:
    ring = KeyRing({"a": NEW})
    sealed = json.loads(json.dumps(ring.engine.sealed("run", 1, Stored.REQUEST, REQUEST)))
    ring.engine.check("run", 1, Stored.REQUEST, sealed)
    assert {name: value for name, value in sealed.items() if name != "seal"} == REQUEST
    wrong: list[tuple[str, int, Stored, Any]] = [
        ("other", 1, Stored.REQUEST, sealed),
        ("run", 2, Stored.REQUEST, sealed),
        ("run", 1, Stored.HANDLE, sealed),
        ("run", 1, Stored.REQUEST, sealed | {"epoch": 2}),
        ("run", 1, Stored.REQUEST, REQUEST),
        ("run", 1, Stored.REQUEST, sealed | {"seal": None}),
        ("run", 1, Stored.REQUEST, sealed | {"seal": "z:" + sealed["seal"]}),
        ("run", 1, Stored.REQUEST, sealed | {"seal": "a:é"}),
        ("run", 1, Stored.REQUEST, sealed | {"more": 1}),
    ]
    for run_id, attempt, kind, data in wrong:
        with pytest.raises(SealBroken, match="wasn't stored by a worker"):
            ring.engine.check(run_id, attempt, kind, data)


def test_workers_may_have_a_key_of_their_own() -> None:
    """If they have one, workers accept no seal made with a submitter's key."""
    submitter = KeyRing({"a": NEW})
    workers = KeyRing({"a": NEW, "w": {"secret": OLD, "use": "records"}})
    assert workers.signing_key_id == "a"
    forged = submitter.engine.sealed("run", 1, Stored.REQUEST, REQUEST)
    with pytest.raises(SealBroken):
        workers.engine.check("run", 1, Stored.REQUEST, forged)
    workers.engine.check("run", 1, Stored.REQUEST, workers.engine.sealed("run", 1, Stored.REQUEST, REQUEST))
    signed = record_of(submitter, key_id="w")
    with pytest.raises(SealBroken, match="'w' isn't in the key ring"):
        workers.check(signed, 0.0)


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"secret": NEW, "backend": ["local"]}, "unknown field: backend"),
        ({"secret": NEW, "backends": "local"}, "must be a list of names"),
        ({"secret": NEW, "use": "results"}, "must be 'specs' or 'records'"),
        ({"backends": ["local"]}, "isn't of the form"),
        ({"secret": NEW, "use": "records"}, "no key that signs"),
    ],
)
def test_an_entry_of_another_form_is_refused(entry: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidSettings, match=problem):
        KeyRing({"a": entry})


def test_entries_from_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "DISPATCHER__SIGNING_KEYS",
        json.dumps({"a": {"secret": NEW, "backends": ["local"]}, "w": {"secret": OLD, "use": "records"}}),
    )
    settings = Settings.load()
    ring = KeyRing.from_settings(settings)
    assert NEW not in repr(settings)
    with pytest.raises(InvalidInput, match="only local"):
        ring.check_backend("remote")


def test_secrets_never_show() -> None:
    ring = KeyRing({"a": NEW, "b": OLD})
    assert repr(ring) == "KeyRing(a, b)"
    with pytest.raises(TypeError, match="secrets") as caught:
        pickle.dumps(ring)
    with pytest.raises(InvalidSettings) as short:
        KeyRing({"a": "tiny secret"})
    with pytest.raises(SealBroken) as unknown:
        ring.token("run", 1, 1, "c")
    for text in (repr(ring), str(caught.value), str(short.value), str(unknown.value)):
        assert "secret 0" not in text
        assert "tiny" not in text


@pytest.mark.parametrize("keys", [{}, {"a": ""}, {"a": "short"}, {"": NEW}, {"good": NEW, "bad": "x" * 15}])
def test_weak_rings_are_refused(keys: dict[str, str]) -> None:
    with pytest.raises(InvalidSettings, match="DISPATCHER__SIGNING_KEYS: "):
        KeyRing(keys)


def test_a_generated_ring_works() -> None:
    keys, others = KeyRing.generate(), KeyRing.generate()
    assert keys.keys().isdisjoint(others)
    assert KeyRing(keys).signing_key_id in keys


def test_from_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER__SIGNING_KEYS", json.dumps({"z": NEW, "a": OLD}))
    ring = KeyRing.from_settings(Settings.load())
    assert ring.signing_key_id == "z"
    assert ring.token("run", 1, 1, "a") == KeyRing({"a": OLD}).token("run", 1, 1)


def test_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"a": NEW}))
    assert KeyRing.from_settings(Settings.load(signing_keys_file=path)).signing_key_id == "a"


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


@pytest.mark.parametrize("key_id", ["S3CRET:word", "", "S3CRET\n"])
def test_an_invalid_key_id_is_not_repeated(key_id: str) -> None:
    """It may be a part of a secret that was put into the wrong place."""
    with pytest.raises(InvalidSettings, match="without a colon") as caught:
        KeyRing({key_id: "x" * 32})
    assert "S3CRET" not in str(caught.value)
