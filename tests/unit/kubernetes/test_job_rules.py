"""Values and names in a Job that the API server would refuse are refused where the Job is written, by their path.

``tests/cloud/test_kubernetes_validation.py`` compares all rules with a server's own answers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from backends.kubernetes import job_spec as specs
from dispatcher import InvalidInput, KubernetesJobEnvironment
from tests.unit.kubernetes.job_variants import RICH, changed

POD = "spec.template.spec"
FLOW = f"{POD}.containers.0"
SIDE = f"{POD}.containers.1"


def test_a_job_that_uses_much_is_accepted() -> None:
    specs.check(RICH, source="job_spec")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (f"{SIDE}.name", "flow-container", f"{POD}.containers[1].name: there is another container 'flow-container'"),
        (f"{SIDE}.name", "Side_Car", f"{POD}.containers[1].name: must be a DNS label"),
        (f"{SIDE}.name", None, f"{POD}.containers[1].name: is required"),
        (f"{SIDE}.image", None, f"{POD}.containers[1].image: is required"),
        (f"{POD}.initContainers.0.image", "", f"{POD}.initContainers[0].image: is required"),
        (f"{POD}.volumes.0.name", "a.b", f"{POD}.volumes[0].name: must be a DNS label"),
        ("metadata.labels.team", "é", "metadata.labels.team: must be a label's value"),
        ("metadata.labels", {"é": "x"}, "metadata.labels.é: must be a name like example.org/name"),
        ("spec.activeDeadlineSeconds", -1, "spec.activeDeadlineSeconds: must be at least 0, got -1"),
        ("spec.activeDeadlineSeconds", 10**10, "spec.activeDeadlineSeconds: must be at most 9223372036"),
        ("spec.ttlSecondsAfterFinished", 10**12, "spec.ttlSecondsAfterFinished: must be at most 2147483647"),
        (f"{FLOW}.resources.limits.cpu", "2 cores", f"{POD}.containers[0].resources.limits.cpu: must be an amount"),
        (
            f"{FLOW}.resources.requests.cpu", "3",
            f"{POD}.containers[0].resources.requests.cpu: is more than the limit of '2'",
        ),
        (
            f"{FLOW}.env", [{"name": "A", "value": "1", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            f"{POD}.containers[0].env[0]: can't have both value and valueFrom",
        ),
        (
            f"{FLOW}.env", [{"name": "A", "valueFrom": {}}],
            f"{POD}.containers[0].env[0].valueFrom: must have exactly one of configMapKeyRef, fieldRef",
        ),
        (
            f"{FLOW}.volumeMounts", [{"name": "dta", "mountPath": "/a"}],
            f"{POD}.containers[0].volumeMounts[0].name: the pod has no volume 'dta'",
        ),
        (
            f"{FLOW}.volumeMounts", [{"name": "data", "mountPath": "/a"}, {"name": "files", "mountPath": "/a"}],
            f"{POD}.containers[0].volumeMounts[1].mountPath: there is another mount path '/a'",
        ),
        (
            f"{SIDE}.ports", [{"containerPort": 70000}],
            f"{POD}.containers[1].ports[0].containerPort: must be at most 65535, got 70000",
        ),
        (f"{POD}.ephemeralContainers", [{"name": "d", "image": "d"}], f"{POD}.ephemeralContainers: can't be given"),
    ],
)  # fmt: skip
def test_the_error_names_the_path(path: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        KubernetesJobEnvironment(job_spec=changed(path, value))
    assert message in str(raised.value)


@pytest.mark.parametrize("limit", [0, "0", "1", "1717986918400m", "1e3", "2Gi", ".5", "5."])
def test_amounts_of_every_form_are_accepted(limit: Any) -> None:
    resources = {"limits": {"memory": limit}}
    assert KubernetesJobEnvironment(resources=resources).resources == resources


def test_the_argument_resources_has_the_same_rules() -> None:
    with pytest.raises(InvalidInput, match=r"resources\.limits\.cpu: must be an amount like 2, 500m or 2Gi"):
        KubernetesJobEnvironment(resources={"limits": {"cpu": "2 cores"}})


def test_a_size_in_thousandths_of_a_byte_is_a_mistake() -> None:
    message = r"resources\.limits\.memory: '512m' is in thousandths of a byte; did you mean 512Mi\?"
    with pytest.raises(InvalidInput, match=message):
        KubernetesJobEnvironment(resources={"limits": {"memory": "512m", "cpu": "512m"}})
    with pytest.raises(InvalidInput, match=r"emptyDir\.sizeLimit: '1m' is in thousandths"):
        KubernetesJobEnvironment(job_spec=changed(f"{POD}.volumes.0.emptyDir", {"sizeLimit": "1m"}))


def test_what_a_cluster_exports_is_named_with_the_remedy(tmp_path: Path) -> None:
    """``kubectl get job -o yaml`` adds these fields, and none of them can be created again."""
    exported = changed("metadata.uid", "11111111-1111-1111-1111-111111111111")
    exported["metadata"] |= {"resourceVersion": "7", "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 1}
    exported["spec"]["template"]["metadata"]["labels"]["batch.kubernetes.io/controller-uid"] = "1"
    exported["metadata"]["labels"]["job-name"] = "draft"  # which the server takes
    exported["spec"]["selector"] = {"matchLabels": {"controller-uid": "1"}}
    exported["status"] = {"ready": 0}
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(exported))
    with pytest.raises(InvalidInput) as raised:
        KubernetesJobEnvironment(job_spec_file=file)
    message = str(raised.value)
    assert (
        "metadata.uid, metadata.resourceVersion, metadata.creationTimestamp, metadata.generation, status, "
        "spec.template.metadata.labels.batch.kubernetes.io/controller-uid: set by the cluster from which this Job was "
        "exported; remove them"
    ) in message
    assert "spec.selector: the Job controller sets it" in message
    assert "job-name" not in message


def test_what_kubectl_drafts_is_accepted(tmp_path: Path) -> None:
    """``kubectl create job --dry-run=client -o yaml`` writes empty fields that nobody has to remove."""
    draft = changed("metadata.creationTimestamp", "") | {"status": {}}
    draft["metadata"]["creationTimestamp"] = None
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(draft) + "---\n")
    assert KubernetesJobEnvironment(job_spec_file=file).job_spec == draft


def test_retries_are_the_runs() -> None:
    specs.check(changed("spec.backoffLimit", 0), source="job_spec")
    with pytest.raises(InvalidInput, match=r"spec\.backoffLimit: must be 0: use the run's retries="):
        specs.check(changed("spec.backoffLimit", 4), source="job_spec")


def test_a_newer_servers_values_can_be_allowed() -> None:
    job = changed(f"{FLOW}.imagePullPolicy", "Sometimes")
    with pytest.raises(InvalidInput, match="imagePullPolicy: must be one of Always, IfNotPresent, Never"):
        KubernetesJobEnvironment(job_spec=job)
    assert KubernetesJobEnvironment(job_spec=job, allow_unknown_fields=True).job_spec == job
