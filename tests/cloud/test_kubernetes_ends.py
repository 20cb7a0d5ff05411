"""Cancels of what waits, SIGTERM while it starts, policies, registries, admission: issue 5, "Real parts and tests"."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from dispatcher import Cause, DockerStorage, Retry, Run, State
from tests.cloud import flows, k8s
from tests.cloud.sandbox import Estate
from tests.integration.docker_engine import docker

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]

TWO = {"a": 1, "b": 2}
HUGE = {"requests": {"cpu": "1000"}}
NOWHERE = "nowhere.invalid/flows:1"

REGISTRY = "DISPATCHER_TEST_REGISTRY"


#: Stands before the package of that name, and takes its time; its runner imports it.
SLOW = "import sys, time; print('importing', file=sys.stderr, flush=True); time.sleep(300)"
PREPARE = f"import pathlib; pathlib.Path('/slow/redis.py').write_text({SLOW!r})"


def slow_to_import(image: str) -> dict[str, Any]:
    """A pod whose runner hangs in an import."""
    slow = [{"name": "slow", "mountPath": "/slow"}]
    first = {"name": "first", "image": image, "command": ["python3", "-c", PREPARE], "volumeMounts": slow}
    flow = {"name": "flow", "env": [{"name": "PYTHONPATH", "value": "/slow"}], "volumeMounts": slow}
    pod = {"volumes": [{"name": "slow", "emptyDir": {}}], "initContainers": [first], "containers": [flow]}
    return {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": {"spec": pod}}}


@pytest.fixture(scope="module")
def private(image: str, cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The runner's image in a registry with a password, by an address that the nodes pull from."""
    address = os.environ.get(REGISTRY)
    if not address:
        pytest.skip(f"{REGISTRY} names no registry with a password")
    user, password = (os.environ.get(f"{REGISTRY}_{one}", "") for one in ("USER", "PASSWORD"))
    config = str(tmp_path_factory.mktemp("docker"))  # not the user's: a kubelet of this machine may read that
    docker("--config", config, "login", "-u", user, "-p", password, address)
    name = f"{address}/flows/runner:tests"
    docker("tag", image, name)
    docker("--config", config, "push", "-q", name)
    try:
        yield {"image": name, "user": user, "password": password, "address": address, "config": config}
    finally:
        docker("rmi", name, check=False)


@pytest.fixture(scope="module")
def began(estate: Estate) -> None:
    """A worker serves."""
    policy = "admissionregistration.k8s.io/v1"
    refused = f"{estate.name}-refused"
    estate.namespace(refused, labels={"refuses": "flows"})
    rule = {"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "false", "message": "no flows on Fridays"}],
    }
    where = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": refused}}}
    k8s.apply(
        {"apiVersion": policy, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": refused}, "spec": spec},
        {
            "apiVersion": policy,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": refused},
            "spec": {"policyName": refused, "validationActions": ["Deny"], "matchResources": where},
        },
    )
    estate.worker()


@pytest.fixture(scope="module", autouse=True)
def no_policies_left(estate: Estate) -> Iterator[None]:
    """They belong to no namespace."""
    yield
    for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
        k8s.kubectl("delete", kind, f"{estate.name}-refused", "--ignore-not-found", check=False)


@pytest.fixture(scope="module")
def runs(estate: Estate, began: None, image: str) -> dict[str, Run[Any]]:
    """All of those that need nothing more, at once."""
    hold = {"seconds": 300}
    killed = Retry(1, on={"killed"})
    importing = {"job_spec": slow_to_import(image)}
    return {
        "importing": estate.submit(flows.add, TWO, environment=importing),
        "importing, cancelled": estate.submit(flows.add, TWO, environment=importing),
        "at once": estate.submit(flows.hold, hold),
        "no room": estate.submit(flows.add, TWO, environment={"resources": HUGE}),
        "no image": estate.submit(flows.add, TWO, environment={"image": NOWHERE}),
        "retried": estate.submit(flows.at_the_second_try, hold, retries=killed),
        "timed out": estate.submit(flows.at_the_second_try, hold, retries=Retry(1, on={"deadline"}), timeout=12),
        "refused": estate.submit(flows.add, TWO, environment={"namespace": f"{estate.name}-refused"}),
    }


def test_a_cancel_right_after_the_submit(estate: Estate, runs: dict[str, Run[Any]]) -> None:
    run = estate.submit(flows.hold, {"seconds": 300})
    assert run.cancel()
    assert run.wait(timeout=60)
    assert run.state is State.CANCELLED
    estate.nothing_left(run)
    assert runs["at once"].cancel()
    estate.ended(runs["at once"], State.CANCELLED)


@pytest.mark.parametrize(("which", "cause"), [("no room", "unschedulable"), ("no image", "image_pull")])
def test_a_cancel_of_what_waits(estate: Estate, runs: dict[str, Run[Any]], which: str, cause: str) -> None:
    run = runs[which]

    def explained() -> str:
        return "\n".join(estate.client.explain(run))

    estate.until(lambda: cause in explained(), f"{cause} in what explain says")
    assert {"no room": "Insufficient cpu", "no image": "nowhere.invalid"}[which] in explained()
    assert run.cancel()
    estate.ended(run, State.CANCELLED)


def imports(estate: Estate, run: Run[Any]) -> str:
    """The name of its pod, once its runner is in the middle of its imports."""
    estate.until(lambda: estate.pods(run), "its pod")
    name = str(estate.pods(run)[0]["metadata"]["name"])

    def log() -> str:
        return k8s.kubectl("logs", name, "-n", estate.name, "-c", "flow", check=False)

    estate.until(lambda: "importing" in log(), "the runner's imports")
    return name


def test_sigterm_during_imports(estate: Estate, runs: dict[str, Run[Any]]) -> None:
    """PID 1 hears it before anything of ours is imported: 143 is what SIGTERM makes, 137 would be the grace's end."""
    run = runs["importing"]
    k8s.kubectl("delete", "pod", imports(estate, run), "-n", estate.name, "--wait=false")
    error = estate.ended(run, State.CRASHED, Cause.KILLED)
    assert getattr(error, "exit_code", None) == 143
    assert estate.server.noted(run, "ran") == 0


def test_a_cancel_during_imports(estate: Estate, runs: dict[str, Run[Any]]) -> None:
    run = runs["importing, cancelled"]
    imports(estate, run)
    assert run.cancel()
    estate.ended(run, State.CANCELLED)
    assert estate.server.noted(run, "ran") == 0


def test_a_deleted_pod_is_repeated_where_the_policy_says_so(estate: Estate, runs: dict[str, Run[Any]]) -> None:
    run = runs["retried"]
    estate.begun(run, what="attempt 1")
    k8s.kubectl("delete", "pod", "-n", estate.name, "-l", f"flow_run_id={run.id}", "--wait=false")
    assert run.result(timeout=90) == 2
    assert [str(event.kind) for event in run.events()].count("exited") == 2
    assert (estate.server.noted(run, "attempt 1"), estate.server.noted(run, "attempt 2")) == (1, 1)
    estate.nothing_left(run)


def test_a_timeout_is_repeated_where_the_policy_says_so(estate: Estate, runs: dict[str, Run[Any]]) -> None:
    assert runs["timed out"].result(timeout=90) == 2
    estate.nothing_left(runs["timed out"])


def test_admission_that_refuses(estate: Estate, runs: dict[str, Run[Any]]) -> None:
    error = estate.ended(runs["refused"], State.CRASHED, Cause.CONFIG_ERROR, namespace=f"{estate.name}-refused")
    assert "no flows on Fridays" in str(error)


def test_a_private_registry_with_and_without_its_secret(estate: Estate, began: None, private: dict[str, str]) -> None:
    given = {"image": private["image"], "image_pull_policy": "Always"}
    without = estate.submit(flows.add, TWO, environment=given, start_within=15)
    login = [f"--docker-{name}={private[key]}" for name, key in (
        ("server", "address"), ("username", "user"), ("password", "password"))]  # fmt: skip
    k8s.kubectl("create", "secret", "docker-registry", "registry", "-n", estate.name, *login)
    allowed = estate.submit(flows.add, TWO, environment={**given, "image_pull_secrets": ["registry"]})
    stored, images = docker_stored(estate, private)
    estate.ended(allowed, State.SUCCEEDED)
    estate.ended(stored, State.SUCCEEDED)
    assert stored.result() == {"greeting": "from the image", "image": True}
    docker("rmi", "-f", *images)
    error = estate.ended(without, State.CRASHED, Cause.IMAGE_PULL)
    assert private["address"] in str(error)


def docker_stored(estate: Estate, private: dict[str, str]) -> tuple[Run[Any], list[str]]:
    """A run of a flow that lies in an image of its own, built and pushed here, and that image's names."""
    pytest.importorskip("docker", reason="the extra 'docker' isn't installed")
    storage = DockerStorage(
        registry_url=f"{private['address']}/flows",
        base_image=private["image"],
        local_image=True,
        env_vars={"GREETING": "from the image"},
    )
    storage.add_flow(flows.where_it_lies)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_CONFIG", private["config"])
        storage.build()
    assert "@sha256:" in str(storage.image)
    environment = estate.environment(image_pull_secrets=["registry"])
    run = estate.client.submit(flows.where_it_lies, storage=storage, environment=environment)
    return run, [storage.name, str(storage.image)]
