"""JSON and YAML that people write: a key that appears twice is refused, wherever it is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.kubernetes import job_spec
from dispatcher.cli import options, targets
from dispatcher.cli.root import root
from dispatcher.errors import InvalidInput, InvalidParameters, InvalidSettings
from dispatcher.serialization import KeyRing
from dispatcher.settings import Settings
from dispatcher.support.json_documents import DuplicateKey, read_document

VALUES = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES, st.sampled_from([None, 1]))
def test_what_has_no_key_twice_is_read_as_json(value: Any, indent: int | None) -> None:
    assert read_document(json.dumps(value, indent=indent)) == value


@given(VALUES, st.text(), st.integers(0, 3))
def test_a_key_that_stands_twice(value: Any, key: str, deep: int) -> None:
    name, inner = json.dumps(key), json.dumps(value)
    text = f"{{{name}: {inner},\n {json.dumps(key, ensure_ascii=False)}: 1}}"  # the same key, perhaps written otherwise
    for _ in range(deep):
        text = f'[{{"a[{{": {text}, "b": 1}}]'
    with pytest.raises(DuplicateKey, match=r"appears twice \(line 2\)"):
        read_document(text)


def test_the_key_is_escaped_and_short() -> None:
    key = json.dumps("\x1b[31m" + "x" * 1000)
    with pytest.raises(DuplicateKey, match=r"^the key '\\x1b\[31mx{60,80}… appears twice; write it once$"):
        read_document(f"{{{key}: 1, {key}: 2}}")


@pytest.mark.parametrize("option", ["environment", "storage"])
def test_files_of_options(option: str, tmp_path: Path) -> None:
    file = tmp_path / "it.json"
    file.write_text('{"type": "LocalEnvironment",\n "labels": ["a"],\n "labels": ["b"]}')
    read: dict[str, Callable[[], object]] = {
        "environment": lambda: options.environment(str(file), ()),
        "storage": lambda: options.storage(str(file)),
    }
    with pytest.raises(InvalidInput, match=rf"--{option}: {file}: the key 'labels' appears twice \(line 3\)"):
        read[option]()


def test_options_and_parameters() -> None:
    def takes(x: dict[str, int]) -> None: ...

    with pytest.raises(InvalidParameters, match="-p x: the key 'a' appears twice"):
        targets.parameters(takes, ['x={"a":1,"a":2}'])
    with pytest.raises(InvalidInput, match="--retries: the key 'count' appears twice"):
        options.retries('{"count": 1, "count": 2}')


def test_key_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "keys.json"
    file.write_text('{"k": "a secret of many bytes",\n "k": "another secret of many bytes"}')
    file.chmod(0o600)
    with pytest.raises(InvalidSettings, match=rf"FILE: {file}: the key 'k' appears twice \(line 2\)"):
        KeyRing.from_settings(Settings.load(signing_keys_file=file))
    with pytest.raises(SystemExit) as ended:
        root.main(["keygen", "--file", str(file)])
    assert ended.value.code == 2
    assert f"{file}: the key 'k' appears twice (line 2)" in capsys.readouterr().err
    assert "another" in file.read_text()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SIGNING_KEYS", '{"a": "a secret of many bytes", "a": "another secret of many bytes"}'),
        ("WORKER", '{"a": 5, "a": 6}'),
        ("DEFAULTS__EXECUTOR_KWARGS", '{"a": 5, "a": 6}'),
        ("KUBERNETES__CLUSTERS", '{"eu": {"a": "x", "a": "y"}}'),
    ],
)
def test_variables(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"DISPATCHER__{variable}", value)
    with pytest.raises(InvalidSettings, match=f"^DISPATCHER__{variable}: the key 'a' appears twice") as caught:
        Settings.load()
    assert "secret of many" not in str(caught.value)


JOB = """apiVersion: batch/v1
kind: Job
metadata:
  labels: &shared {a: b}
  annotations:
    <<: *shared
    a: c
"""


def test_yaml() -> None:
    document = job_spec.parse(JOB, source="job.yaml")
    assert document["metadata"] == {"labels": {"a": "b"}, "annotations": {"a": "c"}}
    with pytest.raises(InvalidInput, match=r"^job.yaml: the key 'kind' appears twice \(line 8\); write it once$"):
        job_spec.parse(f"{JOB}'kind': Job\n", source="job.yaml")
    with pytest.raises(InvalidInput, match=r"the key 'a' appears twice \(line 9\)"):
        job_spec.parse(f"{JOB}spec:\n- {{b: 1, a: [], a: 2}}\n", source="job.yaml")
