"""Bounds on Jobs: a document that expands enormously is rejected within a second, with its file named."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.kubernetes import job_bounds
from backends.kubernetes import job_spec as specs
from dispatcher import InvalidInput, KubernetesJobEnvironment
from tests.unit.kubernetes.jobs import CUSTOM, custom

LAUGHS = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)
)


@pytest.fixture(autouse=True)
def _within_two_seconds() -> Iterator[None]:
    """In processor time, which other programs on the machine don't lengthen."""
    started = time.process_time()
    yield
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "larger than"),
        ("a: &a " + "x" * 100_000 + "\nb: [" + "*a, " * 20 + "]\n", "larger than"),
        ("&a a: &b {<<: [*b, *b]}", "stands inside"),
        ("a: &a [*a]", "stands inside"),
        ("a: *nobody", "stands inside"),
        ("[" * 100_000, "nested"),
        ("{a: " * 50_000, "nested"),
        ("- " * 50_000 + "x", "nested"),
        ("\n".join(f"{' ' * n}a:" for n in range(500)), "nested"),
        ("? " * 50_000, "nested"),
        ("a: " + "1:" * 100_000 + "1", "too long"),
        ("a: " + "9" * 200_000, "too long"),
        ("a: 0x" + "f" * 200_000, "too long"),
        ("a: 2026-13-45", "isn't one YAML document"),
        ("? [a]\n: b", "isn't one YAML document"),
        ("a: !!python/object/apply:os.system [id]", "isn't one YAML document"),
        ("x" * (job_bounds.MAX_SIZE + 1), "larger than"),
        ("a: {a: b}}", "isn't one YAML document"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_an_oversized_document_is_an_error_that_names_its_file(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=rf"job_spec_file {file}: .*{message}") as raised:
        KubernetesJobEnvironment(job_spec_file=str(file))
    assert len(str(raised.value)) < 2000


def test_an_endless_file_is_an_error() -> None:
    """Also of a program that writes into a pipe, as ``job_spec_file=<(…)`` of a shell does."""
    with subprocess.Popen(["yes", "# endless"], stdout=subprocess.PIPE) as endless:
        assert endless.stdout is not None
        path = f"/dev/fd/{endless.stdout.fileno()}"
        with pytest.raises(InvalidInput, match=f"job_spec_file {path}: it is larger than"):
            specs.load(path)
        endless.kill()


def test_reasonable_aliases_are_accepted() -> None:
    text = "a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}\na2: &z [1]\nd: *z\n"
    assert specs.parse(text, source="job.yaml") == {
        "a": {"x": 1},
        "b": {"x": 1},
        "c": {"x": 1, "y": 2},
        "a2": [1],
        "d": [1],
    }


def shared(levels: int) -> Any:
    """Return 2**levels texts that share their memory."""
    value: Any = ["x"]
    for _ in range(levels):
        value = [value, value]
    return value


def deep(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels):
        value = {"a": value}
    return value


def self_containing() -> Any:
    value: dict[str, Any] = {}
    value["a"] = [value]
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (shared(30), "larger than"),
        (shared(90), "larger than"),
        (deep(100_000), "nested"),
        (self_containing(), "contains itself"),
        ("x" * 2**20, "larger than"),
        (["x" * 1000] * 1000, "larger than"),
        ([0] * 2**20, "larger than"),
        (10**5000, "64 bits"),
    ],
    ids=["shared", "more shared", "deep", "itself", "text", "texts", "numbers", "number"],
)
def test_an_oversized_mapping_is_an_error_that_names_its_argument(value: Any, message: str) -> None:
    spec = custom(metadata__annotations={"a": value})
    with pytest.raises(InvalidInput, match=f"job_spec: .*{message}"):
        KubernetesJobEnvironment(job_spec=spec)
    with pytest.raises(InvalidInput, match=f"resources: .*{message}"):
        KubernetesJobEnvironment(resources={"limits": value})


def test_parts_used_twice_are_accepted() -> None:
    env = [{"name": "A", "value": "1"}]
    spec = custom(spec__template__spec__containers=[{"name": "a", "image": "i", "env": env}])
    spec["spec"]["template"]["spec"]["initContainers"] = [{"name": "b", "image": "i", "env": env}]
    specs.check(spec, source="job_spec")
    specs.check(CUSTOM, source="job_spec")


def test_a_large_job_is_refused_with_its_size_and_the_limit(tmp_path: Path) -> None:
    """The API server would refuse it, too, and then only the attempt could end."""
    large = "x" * 1_800_000
    file = tmp_path / "job.yaml"
    file.write_text(f"kind: {large}\n")
    with pytest.raises(InvalidInput, match=r"job\.yaml: it is larger than 262144 characters \(it has 1800007 bytes\)"):
        KubernetesJobEnvironment(job_spec_file=file)
    with pytest.raises(InvalidInput, match=r"job_spec: it is larger than 262144 characters \(it has 1800\d+ or more\)"):
        KubernetesJobEnvironment(job_spec=custom(metadata__annotations__note=large))
    with pytest.raises(
        InvalidInput, match=r"KubernetesJobEnvironment: its Job has 1800\d+ characters with all arguments"
    ):
        KubernetesJobEnvironment(env={f"LARGE{number}": "x" * 100_000 for number in range(18)})
