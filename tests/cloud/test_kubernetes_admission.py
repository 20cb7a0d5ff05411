"""Clusters that change what we create, and a quota queue that takes places back: issue 5, "Real parts and tests"."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from dispatcher import Cause, Retry, Run, State
from tests.cloud import flows, k8s
from tests.cloud.quota_queue import LABEL, QuotaQueue
from tests.cloud.sandbox import SMALL, Estate
from tests.cloud.webhook import Json, Webhook

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]

#: Seconds that what is held by a queue for longer may take to start.
PATIENT = 10.0

QUEUED: Json = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"labels": {LABEL: "research"}},
    "spec": {"template": {"spec": {"containers": [{"name": "flow"}]}}},
}


def meshed(image: str) -> Any:
    """A mesh's webhook: its side-car comes first and never ends; Jobs are changed as well."""
    sidecar = {"name": "mesh", "image": image, "command": ["sleep", "3600"], "resources": SMALL}
    greeting = {"name": "GREETING", "value": "from the mesh"}
    annotation = {"op": "add", "path": "/metadata/annotations/mesh.example~1injected", "value": "true"}

    def change(thing: Json) -> list[Json]:
        if thing["kind"] == "Pod":
            return [{"op": "add", "path": "/spec/containers/0", "value": sidecar}]
        variables = "/spec/template/spec/containers/0/env/-"
        return [annotation, {"op": "add", "path": variables, "value": greeting}]

    return change


@pytest.fixture(scope="module")
def queue(estate: Estate, image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuotaQueue]:
    """A namespace with a mesh, one with a quota queue, and a worker for both."""
    mesh, queued = f"{estate.name}-meshed", f"{estate.name}-queued"
    estate.namespace(mesh)
    estate.namespace(queued)
    folders = [tmp_path_factory.mktemp(name) for name in ("mesh", "queue")]
    with Webhook(mesh, folders[0], meshed(image)), QuotaQueue(queued, folders[1], k8s.Driver(queued)) as found:
        estate.worker()
        yield found


@pytest.fixture(scope="module")
def runs(estate: Estate, queue: QuotaQueue) -> dict[str, Run[Any]]:
    """All at once."""
    mesh = {"namespace": f"{estate.name}-meshed"}
    queued = {"namespace": f"{estate.name}-queued", "job_spec": QUEUED}
    return {
        "first": estate.submit(
            flows.at_the_second_try, {"seconds": 300}, environment=queued, retries=Retry(1, on={"preempted"})
        ),
        "meshed": estate.submit(flows.whoami, environment=mesh),
        "leaves": estate.submit(flows.leave, {"code": 3}, environment=mesh),
        "fails": estate.submit(flows.fail, environment=mesh),
    }


def test_a_side_car_at_the_first_place_that_never_ends(estate: Estate, runs: dict[str, Run[Any]]) -> None:
    """Success, a failure and a death are ours, by the name of our container; and what a webhook changed is kept."""
    mesh = f"{estate.name}-meshed"
    estate.ended(runs["meshed"], State.SUCCEEDED, namespace=mesh)
    assert runs["meshed"].result()["greeting"] == "from the mesh"
    error = estate.ended(runs["leaves"], State.CRASHED, Cause.RESULT_MISSING, namespace=mesh)
    assert getattr(error, "exit_code", None) == 3
    estate.ended(runs["fails"], State.FAILED, namespace=mesh)


def test_a_quota_queue_admits_and_preempts(estate: Estate, queue: QuotaQueue, runs: dict[str, Run[Any]]) -> None:
    """Suspended is no failure and no clock runs; suspended again, the attempt ends and the next one queues anew."""
    namespace, first = f"{estate.name}-queued", runs["first"]
    environment = {"namespace": namespace, "job_spec": QUEUED}
    estate.until(lambda: "quota queue" in "\n".join(estate.client.explain(first)), "what explain says of the queue")
    second = estate.submit(flows.add, {"a": 1, "b": 2}, environment=environment, start_within=PATIENT)
    began = time.monotonic()
    queue.open()
    estate.begun(first, what="attempt 1")
    estate.until(lambda: time.monotonic() - began > PATIENT + 2, "more time than it has to start")
    assert second.state is State.PENDING
    queue.preempt(first.id)
    estate.ended(second, State.SUCCEEDED, namespace=namespace)
    assert first.result(timeout=90) == 2
    estate.nothing_left(first, namespace=namespace)
    exits = [event.data.get("cause") for event in first.events() if event.kind == "exited"]
    assert exits == [Cause.PREEMPTED, None]
    assert [estate.server.noted(first, f"attempt {n}") for n in (1, 2)] == [1, 1]
    assert queue.admitted == [first.id, second.id, first.id]
