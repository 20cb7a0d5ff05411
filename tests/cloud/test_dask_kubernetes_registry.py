"""An image of a registry with a password: ``setup`` makes the pull Secret, with which flow and workers get it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from dispatcher import Run, State
from dispatcher.runs.states import Cause
from tests.cloud import dask_flows, k8s
from tests.cloud.conftest import PrivateImage, pushed
from tests.cloud.dask_sandbox import DaskSandbox, dask_sandbox
from tests.cloud.sandbox import PodServer

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def private(worker_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateImage]:
    with pushed(worker_image, "dask", tmp_path_factory.mktemp("docker")) as private:
        yield private


@pytest.fixture(scope="module")
def sandbox(
    private: PrivateImage, pod_server: PodServer, cluster_lock: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DaskSandbox]:
    with dask_sandbox(pod_server, private.image, tmp_path_factory.mktemp("sandbox")) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def runs(sandbox: DaskSandbox, private: PrivateImage) -> dict[str, Run[Any]]:
    credentials = {
        "docker-server": private.address,
        "docker-username": private.user,
        "docker-password": private.password,
        "docker-email": "flows@example.com",
    }
    sandbox.start_worker(variables={"DOCKER_REGISTRY_CREDENTIALS": json.dumps(credentials)})
    own = {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": {"spec": {"containers": [{"name": "flow"}]}}}}
    pod = {"kind": "Pod", "spec": {"containers": [{"name": "worker"}]}}
    always: dict[str, Any] = {"private_registry": True, "image_pull_policy": "Always"}
    parameters = {"tasks": 2, "seconds": 0.1}
    return {
        "private": sandbox.submit(dask_flows.pauses, parameters, environment=always),
        "own specs": sandbox.submit(
            dask_flows.pauses, parameters, environment={**always, "scheduler_spec": own, "worker_spec": pod}
        ),
        "missing key": sandbox.submit(
            dask_flows.pauses, parameters, environment={**always, "docker_secret": "NO_SUCH_SECRET"}
        ),
    }


@pytest.mark.parametrize("name", ["private", "own specs"])
def test_flow_and_workers_get_an_image_of_a_registry_with_a_password(
    sandbox: DaskSandbox, runs: dict[str, Run[Any]], name: str
) -> None:
    sandbox.expect_end(runs[name], State.SUCCEEDED, timeout=240)
    assert sum(runs[name].result().values()) == 2


def test_the_pull_secret_carries_the_instance_and_no_record_the_password(
    sandbox: DaskSandbox, runs: dict[str, Run[Any]], private: PrivateImage
) -> None:
    sandbox.expect_end(runs["private"], State.SUCCEEDED, timeout=240)
    secrets = k8s.items("secrets", sandbox.name)
    (pull,) = [secret for secret in secrets if secret["type"] == "kubernetes.io/dockerconfigjson"]
    assert "instance" in pull["metadata"]["labels"]
    record, _ = sandbox.client.records.runs.get(runs["private"].id)
    login = base64.b64encode(f"{private.user}:{private.password}".encode()).decode()
    assert login in base64.b64decode(pull["data"][".dockerconfigjson"]).decode()
    assert login not in json.dumps(record.request)
    assert pull["data"][".dockerconfigjson"] not in json.dumps(record.request)


def test_a_missing_secret_is_named(sandbox: DaskSandbox, runs: dict[str, Run[Any]], private: PrivateImage) -> None:
    error = sandbox.expect_end(runs["missing key"], State.CRASHED, Cause.CONFIG_ERROR, timeout=120)
    assert "NO_SUCH_SECRET" in str(error)
