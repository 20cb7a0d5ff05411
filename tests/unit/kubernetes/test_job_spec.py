"""Validation of Jobs: an error at construction that names the path in the YAML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from backends.kubernetes import job_fields
from backends.kubernetes import job_spec as specs
from dispatcher import InvalidInput, KubernetesJobEnvironment
from tests.cloud.k8s import PAGE
from tests.unit.kubernetes.jobs import CUSTOM, custom

CONTAINERS = "spec__template__spec__containers"


def test_a_custom_spec_is_accepted() -> None:
    specs.check(CUSTOM, source="job_spec")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (custom(kind="Pod"), "kind: must be Job, got 'Pod'"),
        (custom(apiVersion="v1"), "apiVersion: must be batch/v1, got 'v1'"),
        (custom(**{CONTAINERS: []}), r"spec\.template\.spec\.containers: needs a container"),
        (custom(spec={}), r"spec\.template\.spec\.containers: needs a container"),
        ("Job", "must be a mapping"),
    ],
)
def test_a_spec_without_a_job_or_container_is_an_error(spec: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=f"job_spec: .*{message}"):
        KubernetesJobEnvironment(job_spec=spec)


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"metadata__generateName": "x-"}, "metadata.generateName"),
        ({"spec__selector": {"matchLabels": {"a": "b"}}}, "spec.selector"),
        ({"spec__manualSelector": True}, "spec.manualSelector"),
        ({"spec__parallelism": 3}, "spec.parallelism"),
        ({"spec__parallelism": 0}, "spec.parallelism"),
        ({"spec__completions": 2}, "spec.completions"),
        ({"spec__completionMode": "Indexed"}, "spec.completionMode"),
        ({"spec__podFailurePolicy": {"rules": []}}, "spec.podFailurePolicy"),
        ({"spec__successPolicy": {"rules": []}}, "spec.successPolicy"),
        ({"spec__backoffLimitPerIndex": 0}, "spec.backoffLimitPerIndex"),
        ({"spec__backoffLimit": 6}, "spec.backoffLimit"),
        ({"spec__managedBy": "kueue.x-k8s.io/multikueue"}, "spec.managedBy"),
        ({"spec__template__spec__volumes": [{"name": "dispatcher-run"}]}, "spec.template.spec.volumes[0].name"),
        (
            {f"{CONTAINERS}__0__volumeMounts": [{"name": "x", "mountPath": "/run/dispatcher/"}]},
            "spec.template.spec.containers[0].volumeMounts[0].mountPath",
        ),
    ],
)
def test_a_field_that_would_break_the_run_is_rejected_with_path_and_reason(changes: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        KubernetesJobEnvironment(job_spec=custom(**changes))
    named_path, _, reason = str(raised.value).removeprefix("job_spec: ").partition(": ")
    assert named_path == path
    assert len(reason) > 15


@pytest.mark.parametrize(
    "changes",
    [
        {"spec__parallelism": 1, "spec__completions": 1, "spec__completionMode": "NonIndexed"},
        {"spec__backoffLimit": 0, "spec__suspend": True},
        {"spec__template__spec__containers__0__livenessProbe": {"httpGet": {"port": "http"}}},
        {"spec__template__metadata": None},
    ],
)
def test_fields_that_are_overwritten_or_harmless_are_accepted(changes: dict[str, Any]) -> None:
    specs.check(custom(**changes), source="job_spec")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({f"{CONTAINERS}__1__imge": "x"}, "spec.template.spec.containers[1].imge: unknown field"),
        ({f"{CONTAINERS}__1__imge": "x"}, "did you mean image?"),
        ({"spec__backofLimit": 1}, "spec.backofLimit: unknown field"),
        ({"extra": 1}, "extra: unknown field"),
        ({"metadata__labels__n": 1}, "metadata.labels.n: must be a string (quote it), got 1"),
        ({"spec__backoffLimit": "6"}, "spec.backoffLimit: must be an integer, got '6'"),
        ({"spec__suspend": "yes"}, "spec.suspend: must be true or false, got 'yes'"),
        ({CONTAINERS: {"name": "x"}}, "spec.template.spec.containers: needs a container"),
        ({f"{CONTAINERS}__0__env": {"A": "1"}}, "spec.template.spec.containers[0].env: must be a list"),
        ({f"{CONTAINERS}__0__env": [3]}, "spec.template.spec.containers[0].env[0]: must be a mapping, got 3"),
        (
            {f"{CONTAINERS}__0__env": [{"name": "A", "value": True}]},
            "spec.template.spec.containers[0].env[0].value: must be a string (quote it), got True",
        ),
        ({f"{CONTAINERS}__0__args": ("1",)}, "spec.template.spec.containers[0].args: must be a list"),
        ({"spec__template__spec__nodeSelector": {1: "x"}}, "spec.template.spec.nodeSelector: keys must be strings"),
    ],
)
def test_an_unknown_or_wrong_field_is_named_by_its_path(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        KubernetesJobEnvironment(job_spec=custom(**changes))
    assert message in str(raised.value)


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(InvalidInput) as raised:
        KubernetesJobEnvironment(job_spec=custom(spec__parallelism=2, spec__nope=1, metadata__generateName="x"))
    assert all(path in str(raised.value) for path in ("spec.parallelism", "spec.nope", "metadata.generateName"))


def test_unknown_fields_can_be_allowed_for_newer_servers() -> None:
    spec = custom(spec__brandNew={"a": [1]})
    assert KubernetesJobEnvironment(job_spec=spec, allow_unknown_fields=True).job_spec == spec
    with pytest.raises(InvalidInput, match=r"spec\.parallelism"):
        KubernetesJobEnvironment(job_spec=custom(spec__parallelism=2), allow_unknown_fields=True)
    with pytest.raises(InvalidInput, match="must hold JSON values only"):
        KubernetesJobEnvironment(job_spec=custom(spec__brandNew={1, 2}), allow_unknown_fields=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: [", "isn't one YAML document"),
        ("kind: Job\n---\nkind: Job\n", "isn't one YAML document: another document begins in line 3"),
        ("kind: Job\n---\n''\n", "isn't one YAML document"),
        ("---\n# nothing\n---\n", "must hold a Job"),
        ("- kind: Job\n", "must hold a Job"),
        ("", "must hold a Job"),
        ("\x00", "isn't one YAML document"),
        (
            "apiVersion: batch/v1\nkind: Job\nspec: {template: {spec: {containers: [{name: a}]}}, parallelism: 4}",
            "spec.p",
        ),
    ],
)
def test_a_file_that_holds_no_job_is_an_error_that_names_it(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(text)
    with pytest.raises(InvalidInput) as raised:
        KubernetesJobEnvironment(job_spec_file=file)
    assert message in str(raised.value)
    assert str(file) in str(raised.value)


def test_json_that_is_indented_by_tabs_is_read(tmp_path: Path) -> None:
    """YAML allows no tabs; JSON does."""
    file = tmp_path / "job.json"
    file.write_text(json.dumps(custom(), indent="\t"))
    assert KubernetesJobEnvironment(job_spec_file=file).job_spec == custom()
    file.write_text('{\n\t"kind": "Job",\n\t"kind": "Pod"\n}')
    with pytest.raises(InvalidInput, match=r"the key 'kind' appears twice \(line 3\)"):
        KubernetesJobEnvironment(job_spec_file=file)
    file.write_text("{apiVersion: batch/v1, kind: Job, spec: {template: {spec: {containers: [{name: flow}]}}}}")
    assert KubernetesJobEnvironment(job_spec_file=file).job_spec, "YAML in braces"


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    for path, kind in ((tmp_path, "a directory"), (Path("/dev/zero"), "a device or socket")):
        with pytest.raises(InvalidInput, match=f"must be a file with a Job, and {path} is {kind}"):
            KubernetesJobEnvironment(job_spec_file=path)


def test_a_directive_of_kubectl_is_no_misspelt_field() -> None:
    with pytest.raises(InvalidInput) as raised:
        KubernetesJobEnvironment(job_spec=custom(**{"spec__template__spec__$setElementOrder/containers": []}))
    assert "$setElementOrder/containers: unknown field" in str(raised.value)
    assert "did you mean" not in str(raised.value)


@pytest.mark.parametrize(
    "text", ["{}---\n", "---\n{}---\n", "# first\n---\n---\n{}...\n---\n# nothing\n", "{}--- \n---\n"]
)
def test_empty_documents_beside_the_job_are_ignored(tmp_path: Path, text: str) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(text.format(yaml.safe_dump(CUSTOM)))
    assert KubernetesJobEnvironment(job_spec_file=file).job_spec == CUSTOM


def test_the_page_names_the_version_of_the_table() -> None:
    minor = job_fields.table()["sdk"].split(".")[0]
    assert f"The fields of Kubernetes\n1.{minor} and their types are known" in PAGE.read_text(encoding="utf-8")


def test_the_table_is_what_the_sdk_says() -> None:
    client = pytest.importorskip("kubernetes")
    from tools import kubernetes_fields

    table = kubernetes_fields.PAGE.read_text(encoding="utf-8")
    if client.__version__.startswith(f"{job_fields.table()['sdk']}."):
        assert kubernetes_fields.text() == table
    assert len(table) < 25_000
