"""Admission webhooks that change Jobs and pods, and a quota queue that preempts, on a real cluster."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from dispatcher import Cause, Retry, Run, State
from tests.cloud import flows, k8s
from tests.cloud.quota_queue import LABEL, QuotaQueue
from tests.cloud.sandbox import SMALL, Sandbox
from tests.cloud.webhook import Json, Webhook

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]

#: ``start_within`` of a run that a quota queue holds for longer, in seconds.
START_WITHIN = 20.0

QUEUED: Json = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"labels": {LABEL: "research"}},
    "spec": {"template": {"spec": {"containers": [{"name": "flow"}]}}},
}


def mesh_patches(image: str) -> Any:
    """Return the patches of a mesh's webhook: a side-car as first container that never ends; Jobs change as well."""
    sidecar = {"name": "mesh", "image": image, "command": ["sleep", "3600"], "resources": SMALL}
    greeting = {"name": "GREETING", "value": "from the mesh"}
    annotation = {"op": "add", "path": "/metadata/annotations/mesh.example~1injected", "value": "true"}

    def change(item: Json) -> list[Json]:
        if item["kind"] == "Pod":
            return [{"op": "add", "path": "/spec/containers/0", "value": sidecar}]
        variables = "/spec/template/spec/containers/0/env/-"
        return [annotation, {"op": "add", "path": variables, "value": greeting}]

    return change


@pytest.fixture(scope="module")
def queue(sandbox: Sandbox, image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuotaQueue]:
    """Quota queue of one namespace, beside another with a mesh, and a worker for both."""
    mesh, queued = f"{sandbox.name}-meshed", f"{sandbox.name}-queued"
    sandbox.add_namespace(mesh)
    sandbox.add_namespace(queued)
    folders = [tmp_path_factory.mktemp(name) for name in ("mesh", "queue")]
    with (
        Webhook(mesh, folders[0], mesh_patches(image)),
        QuotaQueue(queued, folders[1], k8s.NamespaceAdmin(queued)) as quota_queue,
    ):
        sandbox.start_worker()
        yield quota_queue


@pytest.fixture(scope="module")
def runs(sandbox: Sandbox, queue: QuotaQueue) -> dict[str, Run[Any]]:
    """Runs of all tests, submitted at once."""
    mesh = {"namespace": f"{sandbox.name}-meshed"}
    queued = {"namespace": f"{sandbox.name}-queued", "job_spec": QUEUED}
    return {
        "first": sandbox.submit(
            flows.succeed_on_retry, {"seconds": 300}, environment=queued, retries=Retry(1, on={"preempted"})
        ),
        "meshed": sandbox.submit(flows.whoami, environment=mesh),
        "exits": sandbox.submit(flows.exit_process, {"code": 3}, environment=mesh),
        "fails": sandbox.submit(flows.fail, environment=mesh),
    }


def test_a_side_car_at_the_first_place_that_never_ends(sandbox: Sandbox, runs: dict[str, Run[Any]]) -> None:
    """Success, failure and crash are those of the flow's container, by its name; a webhook's changes are kept."""
    mesh = f"{sandbox.name}-meshed"
    sandbox.expect_end(runs["meshed"], State.SUCCEEDED, namespace=mesh)
    assert runs["meshed"].result()["greeting"] == "from the mesh"
    error = sandbox.expect_end(runs["exits"], State.CRASHED, Cause.RESULT_MISSING, namespace=mesh)
    assert getattr(error, "exit_code", None) == 3
    sandbox.expect_end(runs["fails"], State.FAILED, namespace=mesh)


def test_a_quota_queue_admits_and_preempts(sandbox: Sandbox, queue: QuotaQueue, runs: dict[str, Run[Any]]) -> None:
    """A suspended Job doesn't fail, and no clock runs. Suspended again, the attempt ends and the next one queues."""
    namespace, first = f"{sandbox.name}-queued", runs["first"]
    environment = {"namespace": namespace, "job_spec": QUEUED}
    sandbox.wait_until(
        lambda: "quota queue" in "\n".join(sandbox.client.explain(first)), "the queue in the output of explain"
    )
    second = sandbox.submit(flows.add, {"a": 1, "b": 2}, environment=environment, start_within=START_WITHIN)
    started = time.monotonic()
    queue.open()
    sandbox.wait_until_started(first, event="attempt 1")
    sandbox.wait_until(lambda: time.monotonic() - started > START_WITHIN + 2, "more time than it has to start")
    assert second.state is State.PENDING
    queue.preempt(first.id)
    sandbox.expect_end(second, State.SUCCEEDED, namespace=namespace)
    assert first.result(timeout=90) == 2
    sandbox.expect_nothing_left(first, namespace=namespace)
    exits = [event.data.get("cause") for event in first.events() if event.kind == "exited"]
    assert exits == [Cause.PREEMPTED, None]
    assert [sandbox.server.count_of(first, f"attempt {n}") for n in (1, 2)] == [1, 1]
    assert queue.admitted == [first.id, second.id, first.id]
