"""Errors of input name the place and the remedy. Their values are escaped and short."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.kubernetes import job_spec
from dispatcher.cli import options, targets
from dispatcher.errors import InvalidInput, InvalidParameters, SealBroken
from dispatcher.logs.shipper import clean
from dispatcher.runs.options import Options
from dispatcher.serialization import KeyRing
from dispatcher.support.escaping import article, counted
from tests.unit.command import call
from tests.unit.test_signing_keys import record_of

STEERING = "\x1b[31m\x9b1m\u202e"


def test_grammar() -> None:
    assert (article("int"), article("Environment"), article("dict")) == ("an int", "an Environment", "a dict")
    assert (counted(1, "process", "processes"), counted(2, "process", "processes")) == ("1 process", "2 processes")
    assert (counted(1, "flow"), counted(0, "flow")) == ("1 flow", "0 flows")


def test_an_unknown_environment_names_file_and_option(tmp_path: Path) -> None:
    file = tmp_path / "env.json"
    file.write_text('{"type": "LokalEnvironment"}')
    with pytest.raises(InvalidInput, match=rf"^--environment: {file}: .*LokalEnvironment"):
        options.environment(str(file), ())


def test_a_long_value_is_cut() -> None:
    def takes(x: int) -> None: ...

    with pytest.raises(InvalidParameters) as caught:
        targets.parameters(takes, [f"x={'y' * 10_000}"])
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("value", [1e300, float("nan"), float("inf"), 0, -1])
def test_wrong_durations(value: float) -> None:
    with pytest.raises(InvalidInput, match=r"^timeout: must be more than 0 seconds and less than 1e\+10 .*, got "):
        Options.of(timeout=value)


@pytest.mark.parametrize("place", ["", "metadata", "spec"])
def test_unknown_fields_of_a_job_steer_no_terminal(place: str) -> None:
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {},
        "spec": {"template": {"spec": {"containers": [{"name": "flow"}]}}},
    }
    (job if not place else job[place])[f"{STEERING}{'x' * 1000}"] = STEERING  # type: ignore[index]
    with pytest.raises(InvalidInput, match="unknown field") as caught:
        job_spec.check(job, source="job_spec")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_keygen_warns_of_a_backend_that_is_not_known() -> None:
    done = call("keygen", "--backend", "lokal", "--backend", "local")
    assert done.exit_code == 0
    assert done.stderr.startswith("warning: --backend 'lokal': no such backend in this environment; known: ")
    assert len(done.stderr.splitlines()) == 1
    assert '"lokal"' in done.stdout


def test_a_key_of_another_backend_has_a_remedy() -> None:
    secret = "a secret of many bytes"
    ring = KeyRing({"k": {"secret": secret, "backends": ["kubernetes"]}})
    ring.owner = "worker w1"
    with pytest.raises(SealBroken, match=r"submit it with another key, or change .*SIGNING_KEYS of worker w1"):
        ring.check(record_of(ring), 0.0)


def test_a_missing_key_says_who_lacks_it() -> None:
    ring = KeyRing({"k": "a secret of many bytes"})
    ring.owner = "worker w1"
    with pytest.raises(SealBroken, match="give worker w1 the key that signed"):
        ring.token("r1", 1, 1, "other")


def test_sequences_of_c1_are_taken_out_of_lines() -> None:
    assert clean("a\x9b31mb\x9b0mc\x9d0;title\x9cd\x1b[1me", 100) == "abcde"
