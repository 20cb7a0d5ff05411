"""Cancels of waiting runs, SIGTERM during imports, retry policies, registries and admission, on a real cluster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dispatcher import Cause, DockerStorage, Retry, Run, State
from tests.cloud import flows, k8s
from tests.cloud.conftest import PrivateImage, pushed
from tests.cloud.sandbox import Sandbox
from tests.integration.docker_engine import docker

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]

TWO = {"a": 1, "b": 2}
HUGE = {"requests": {"cpu": "1000"}}
NOWHERE = "nowhere.invalid/flows:1"

#: A module that hides the package of its name. The runner imports it, and hangs.
SLOW = "import sys, time; print('importing', file=sys.stderr, flush=True); time.sleep(300)"
PREPARE = f"import pathlib; pathlib.Path('/slow/redis.py').write_text({SLOW!r})"


def slow_to_import(image: str) -> dict[str, Any]:
    """Return a Job whose runner hangs in an import."""
    slow = [{"name": "slow", "mountPath": "/slow"}]
    first = {"name": "first", "image": image, "command": ["python3", "-c", PREPARE], "volumeMounts": slow}
    flow = {"name": "flow", "env": [{"name": "PYTHONPATH", "value": "/slow"}], "volumeMounts": slow}
    pod = {"volumes": [{"name": "slow", "emptyDir": {}}], "initContainers": [first], "containers": [flow]}
    return {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": {"spec": pod}}}


@pytest.fixture(scope="module")
def private(image: str, cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateImage]:
    with pushed(image, "runner", tmp_path_factory.mktemp("docker")) as private:
        yield private


@pytest.fixture(scope="module")
def worker(sandbox: Sandbox) -> None:
    """Start a worker, and an admission policy that denies Jobs in one namespace."""
    policy = "admissionregistration.k8s.io/v1"
    denied = f"{sandbox.name}-denied"
    sandbox.add_namespace(denied)
    rule = {"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "false", "message": "no flows on Fridays"}],
    }
    resources = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": denied}}}
    k8s.apply(
        {"apiVersion": policy, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": denied}, "spec": spec},
        {
            "apiVersion": policy,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": denied},
            "spec": {"policyName": denied, "validationActions": ["Deny"], "matchResources": resources},
        },
    )
    sandbox.start_worker()


@pytest.fixture(scope="module", autouse=True)
def no_policies_left(sandbox: Sandbox) -> Iterator[None]:
    """Delete the policies, which belong to no namespace."""
    yield
    for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
        k8s.kubectl("delete", kind, f"{sandbox.name}-denied", "--ignore-not-found", check=False)


@pytest.fixture(scope="module")
def runs(sandbox: Sandbox, worker: None, image: str) -> dict[str, Run[Any]]:
    """Runs that need no more setup, submitted at once."""
    hold = {"seconds": 300}
    killed = Retry(1, on={"killed"})
    importing = {"job_spec": slow_to_import(image)}
    return {
        "importing": sandbox.submit(flows.add, TWO, environment=importing),
        "importing, cancelled": sandbox.submit(flows.add, TWO, environment=importing),
        "at once": sandbox.submit(flows.sleep, hold),
        "no room": sandbox.submit(flows.add, TWO, environment={"resources": HUGE}),
        "no image": sandbox.submit(flows.add, TWO, environment={"image": NOWHERE}),
        "retried": sandbox.submit(flows.succeed_on_retry, hold, retries=killed),
        "timed out": sandbox.submit(flows.succeed_on_retry, hold, retries=Retry(1, on={"deadline"}), timeout=12),
        "denied": sandbox.submit(flows.add, TWO, environment={"namespace": f"{sandbox.name}-denied"}),
    }


def test_a_cancel_right_after_the_submit(sandbox: Sandbox, runs: dict[str, Run[Any]]) -> None:
    run = sandbox.submit(flows.sleep, {"seconds": 300})
    assert run.cancel()
    assert run.wait(timeout=60)
    assert run.state is State.CANCELLED
    sandbox.expect_nothing_left(run)
    assert runs["at once"].cancel()
    sandbox.expect_end(runs["at once"], State.CANCELLED)


@pytest.mark.parametrize(("name", "cause"), [("no room", "unschedulable"), ("no image", "image_pull")])
def test_a_cancel_of_what_waits(sandbox: Sandbox, runs: dict[str, Run[Any]], name: str, cause: str) -> None:
    run = runs[name]

    def explanation() -> str:
        return "\n".join(sandbox.client.explain(run))

    sandbox.wait_until(lambda: cause in explanation(), f"{cause} in the output of explain")
    assert {"no room": "Insufficient cpu", "no image": "nowhere.invalid"}[name] in explanation()
    assert run.cancel()
    sandbox.expect_end(run, State.CANCELLED)


def importing_pod(sandbox: Sandbox, run: Run[Any]) -> str:
    """Return the name of a run's pod, once its runner imports modules."""
    sandbox.wait_until(lambda: sandbox.pods(run), "its pod")
    name = str(sandbox.pods(run)[0]["metadata"]["name"])

    def log() -> str:
        return k8s.kubectl("logs", name, "-n", sandbox.name, "-c", "flow", check=False)

    sandbox.wait_until(lambda: "importing" in log(), "the runner's imports")
    return name


def test_sigterm_during_imports(sandbox: Sandbox, runs: dict[str, Run[Any]]) -> None:
    """PID 1 handles it before the imports: SIGTERM leads to 143, the end of the grace period would to 137."""
    run = runs["importing"]
    k8s.kubectl("delete", "pod", importing_pod(sandbox, run), "-n", sandbox.name, "--wait=false")
    error = sandbox.expect_end(run, State.CRASHED, Cause.KILLED)
    assert getattr(error, "exit_code", None) == 143
    assert sandbox.server.count_of(run, "ran") == 0


def test_a_cancel_during_imports(sandbox: Sandbox, runs: dict[str, Run[Any]]) -> None:
    run = runs["importing, cancelled"]
    importing_pod(sandbox, run)
    assert run.cancel()
    sandbox.expect_end(run, State.CANCELLED)
    assert sandbox.server.count_of(run, "ran") == 0


def test_a_deleted_pod_is_repeated_where_the_policy_says_so(sandbox: Sandbox, runs: dict[str, Run[Any]]) -> None:
    run = runs["retried"]
    sandbox.wait_until_started(run, event="attempt 1")
    k8s.kubectl("delete", "pod", "-n", sandbox.name, "-l", f"flow_run_id={run.id}", "--wait=false")
    assert run.result(timeout=90) == 2
    assert [str(event.kind) for event in run.events()].count("exited") == 2
    assert (sandbox.server.count_of(run, "attempt 1"), sandbox.server.count_of(run, "attempt 2")) == (1, 1)
    sandbox.expect_nothing_left(run)


def test_a_timeout_is_repeated_where_the_policy_says_so(sandbox: Sandbox, runs: dict[str, Run[Any]]) -> None:
    assert runs["timed out"].result(timeout=90) == 2
    sandbox.expect_nothing_left(runs["timed out"])


def test_admission_that_refuses(sandbox: Sandbox, runs: dict[str, Run[Any]]) -> None:
    error = sandbox.expect_end(runs["denied"], State.CRASHED, Cause.CONFIG_ERROR, namespace=f"{sandbox.name}-denied")
    assert "no flows on Fridays" in str(error)


def test_a_private_registry_with_and_without_its_secret(sandbox: Sandbox, worker: None, private: PrivateImage) -> None:
    arguments = {"image": private.image, "image_pull_policy": "Always"}
    without = sandbox.submit(flows.add, TWO, environment=arguments, start_within=30)
    login = [f"--docker-{name}={getattr(private, key)}" for name, key in (
        ("server", "address"), ("username", "user"), ("password", "password"))]  # fmt: skip
    k8s.kubectl("create", "secret", "docker-registry", "registry", "-n", sandbox.name, *login)
    allowed = sandbox.submit(flows.add, TWO, environment={**arguments, "image_pull_secrets": ["registry"]})
    stored, images = submit_from_image(sandbox, private)
    sandbox.expect_end(allowed, State.SUCCEEDED)
    sandbox.expect_end(stored, State.SUCCEEDED)
    assert stored.result() == {"greeting": "from the image", "image": True}
    docker("rmi", "-f", *images)
    error = sandbox.expect_end(without, State.CRASHED, Cause.IMAGE_PULL)
    assert private.address in str(error)


def submit_from_image(sandbox: Sandbox, private: PrivateImage) -> tuple[Run[Any], list[str]]:
    """Build and push an image with a flow, and submit it; return the run and the image's names."""
    pytest.importorskip("docker", reason="the extra 'docker' isn't installed")
    storage = DockerStorage(
        registry_url=f"{private.address}/flows",
        base_image=private.image,
        local_image=True,
        env_vars={"GREETING": "from the image"},
    )
    storage.add_flow(flows.code_location)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_CONFIG", private.config)
        storage.build()
    assert "@sha256:" in str(storage.image)
    environment = sandbox.environment(image_pull_secrets=["registry"])
    run = sandbox.client.submit(flows.code_location, storage=storage, environment=environment)
    return run, [storage.name, str(storage.image)]
