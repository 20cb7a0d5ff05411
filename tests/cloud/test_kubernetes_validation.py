"""Our rules for Jobs beside the API server's own answers to hundreds of them, by a dry run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backends.kubernetes import job_spec as specs
from backends.kubernetes import manifest
from dispatcher import InvalidInput, KubernetesJobEnvironment, Settings
from tests.cloud import k8s
from tests.cloud.sandbox import Sandbox
from tests.unit.kubernetes.job_variants import Json, variants
from tests.unit.kubernetes.jobs import attempt

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]

#: Places where we are stricter: the server refuses not the Job but each pod of it, or the field is set in every Job.
STRICTER = ("spec.template.spec.containers.1.image=' a'", "spec.template.spec.containers.1.image='a '")


@pytest.fixture(scope="module")
def admin(sandbox: Sandbox) -> k8s.NamespaceAdmin:
    return k8s.NamespaceAdmin(sandbox.name)


def test_what_the_server_refuses_is_refused_and_nothing_else(sandbox: Sandbox, admin: k8s.NamespaceAdmin) -> None:
    differences = []
    for name, job in variants():
        ours = _our_problem(job)
        theirs = _server_problem(admin, sandbox.name, job)
        if bool(ours) != bool(theirs) and name not in STRICTER:
            differences.append(f"{name}: we say {ours or 'nothing'}; the server says {theirs or 'nothing'}")
    assert not differences


def _our_problem(job: Json) -> str:
    try:
        specs.check(job, source="job_spec")
    except InvalidInput as error:
        return str(error)
    return ""


def _server_problem(admin: k8s.NamespaceAdmin, namespace: str, job: Json) -> str:
    """Return why a server refuses a Job as a worker would send it."""
    settings = Settings.load(kubernetes={"namespaces": [namespace]})
    environment = {**KubernetesJobEnvironment(image="a:1").to_json(), "job_spec": job}
    sent = manifest.draft(replace(attempt(), environment=environment), settings)["job"]
    try:
        admin.request("POST", "jobs?dryRun=All&fieldValidation=Strict", sent)
    except LookupError as error:
        return str(error)
    return ""
