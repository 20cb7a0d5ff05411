"""Pod Security's level ``restricted``: our Jobs comply, and what a Job of one's own lacks is told with its path."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from backends.kubernetes import manifest
from backends.kubernetes.pod_security import BARE_JOB, restricted_violations
from dispatcher import KubernetesJobEnvironment, Settings
from tests.cloud.k8s import PAGE
from tests.unit.kubernetes.jobs import CUSTOM, attempt

_OWN: dict[str, Any] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
_POD: dict[str, Any] = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def violations(own: dict[str, Any], pod: dict[str, Any] = _POD, field: str = "containers") -> list[str]:
    """Return the last parts of the paths that are refused."""
    spec = {"securityContext": pod, field: [{"name": "flow", "securityContext": own}]}
    prefix = f"spec.template.spec.{field}[0].securityContext."
    return [problem.removeprefix(prefix).partition(":")[0] for problem in restricted_violations(spec)]


def test_the_default_job_and_that_of_the_page_comply() -> None:
    text = PAGE.read_text(encoding="utf-8").partition("cat > job.yaml <<'EOF'\n")[2].partition("\nEOF\n")[0]
    page = yaml.safe_load(text)
    settings = Settings.load(kubernetes={"image": "flows:1"})
    for environment in (KubernetesJobEnvironment(), KubernetesJobEnvironment(job_spec=page)):
        job = manifest.draft(attempt(environment), settings)["job"]
        assert restricted_violations(job["spec"]["template"]["spec"]) == []


@pytest.mark.parametrize("field", ["containers", "initContainers"])
@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"allowPrivilegeEscalation": None}, "allowPrivilegeEscalation"),
        ({"allowPrivilegeEscalation": True}, "allowPrivilegeEscalation"),
        ({"capabilities": None}, "capabilities.drop"),
        ({"capabilities": {"drop": ["ALL"], "add": ["SYS_TIME"]}}, "capabilities.add"),
        ({"runAsNonRoot": False}, "runAsNonRoot"),
        ({"runAsUser": 0}, "runAsUser"),
        ({"seccompProfile": {"type": "Unconfined"}}, "seccompProfile.type"),
    ],
)
def test_each_thing_that_a_container_lacks(field: str, changes: dict[str, Any], path: str) -> None:
    assert violations(_OWN, field=field) == []
    assert violations({**_OWN, **changes}, field=field) == [path]


def test_a_container_may_have_what_its_pod_lacks() -> None:
    assert violations({**_OWN, **_POD}, {}) == []
    assert violations(_OWN, {}) == ["runAsNonRoot", "seccompProfile.type"]
    assert restricted_violations({"securityContext": {"runAsUser": 0}}) == [
        "spec.template.spec.securityContext.runAsUser: can't be 0"
    ]


def test_the_job_by_which_the_doctor_asks_lacks_everything() -> None:
    assert len(restricted_violations(BARE_JOB["spec"]["template"]["spec"])) == 4
    assert restricted_violations(CUSTOM["spec"]["template"]["spec"])
