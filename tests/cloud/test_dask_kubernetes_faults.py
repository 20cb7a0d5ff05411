"""Dask clusters whose dispatcher's worker is killed, on a real cluster: between any two objects, and for good."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from dispatcher import Run, State
from dispatcher.runs.record import Record
from dispatcher.runs.states import Cause
from tests.chaos.cases import Arms
from tests.cloud import dask_flows, k8s
from tests.cloud.dask_sandbox import WORKER, DaskSandbox, dask_sandbox
from tests.cloud.sandbox import PodServer
from tests.integration.workers import Bench, Worker

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]

WORKERS = 3

#: Failpoints in a pool process, which takes its worker with it.
OF_POOL = (
    "provision.intended", "cluster.job_made", "cluster.secret_made", "cluster.certificate_made", "provision.submitted",
)  # fmt: skip

#: Failpoints in a worker.
OF_WORKER = ("cluster.worker_made", "scale.created", "cluster.worker_deleted", "teardown.asked")

#: Seconds for which a run holds its cluster, so that a worker without a task is deleted.
HOLDS = {"cluster.worker_deleted": 15.0}

ARMS = {**dict.fromkeys(OF_POOL, "worker137"), **dict.fromkeys(OF_WORKER, "exit137")}


@pytest.fixture(scope="module")
def sandbox(
    cluster: str, worker_image: str, pod_server: PodServer, cluster_lock: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DaskSandbox]:
    with dask_sandbox(pod_server, worker_image, tmp_path_factory.mktemp("sandbox")) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def records(sandbox: DaskSandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Record]]:
    """Records of runs, each of which has killed a worker; dead workers are replaced.

    Those that kill a pool process come first: a run whose worker died before is provisioned by a worker itself.
    """
    arms = Arms(tmp_path_factory.mktemp("armed") / "arms")
    bench = Bench(sandbox.server.url)
    run_ids: dict[str, str] = {}
    workers = [start_worker(sandbox, arms) for _ in range(WORKERS)]

    def replace_dead_workers() -> None:
        for worker in [worker for worker in workers if worker.process.poll() is not None]:
            workers.remove(worker)
            workers.append(start_worker(sandbox, arms))

    def missing() -> set[str]:
        return {f"{name}+{run_id}" for name, run_id in run_ids.items()} - set(arms.fired())

    def all_fired() -> bool:
        replace_dead_workers()
        return not missing()

    def all_ended() -> bool:
        replace_dead_workers()
        records = bench.records.runs.get_many(list(run_ids.values()))
        return all(record is not None and record.terminal and not record.leftovers for record in records)

    try:
        for names in (OF_POOL, OF_WORKER):
            for name in names:
                environment = sandbox.environment(min_workers=1, max_workers=2)
                parameters = {"tasks": 8, "seconds": 1.0, "hold": HOLDS.get(name, 0.0)}
                record = bench.prepare(dask_flows.pauses, parameters, environment=environment)
                arms.lay(name, ARMS[name], record.id)
                bench.records.runs.create([record])
                run_ids[name] = record.id
            sandbox.wait_until(all_fired, f"the deaths of workers at {names}", timeout=120)
        sandbox.wait_until(all_ended, "the end of all runs, and nothing left of them", timeout=240)
        yield {name: bench.record(run_id) for name, run_id in run_ids.items()}
    finally:
        print("not fired:", missing())  # noqa: T201 - pytest shows it where a test failed
        bench.close()
        for worker in workers:
            worker.end()


def start_worker(sandbox: DaskSandbox, arms: Arms) -> Worker:
    return sandbox.start_worker(
        variables={"DISPATCHER__FAILPOINT": str(arms.folder), "DISPATCHER__WORKER__CONCURRENCY": "1"}
    )


@pytest.mark.parametrize("name", ARMS)
def test_a_worker_that_dies_costs_no_attempt_and_leaves_nothing(
    name: str, sandbox: DaskSandbox, records: dict[str, Record]
) -> None:
    record = records[name]
    assert (record.state, record.attempt) == (State.SUCCEEDED, 1), record.outcome
    assert sandbox.server.count(f"{record.id}:ran") == 1
    assert [sandbox.server.count(f"{record.id}:task:{number}") for number in range(8)] == [1] * 8
    leftovers = k8s.items(sandbox.kinds, sandbox.name, f"flow_run_id={record.id}")
    assert [item["metadata"]["name"] for item in leftovers] == []


def names_by_uid(sandbox: DaskSandbox, run: Run[Any]) -> dict[str, str]:
    """Return the names of the Dask workers whose pods exist, by the pods' UIDs."""
    return {pod["metadata"]["uid"]: name for name, pod in sandbox.dask_workers(run).items()}


def test_the_next_worker_goes_on_with_the_same_dask_workers(sandbox: DaskSandbox, records: dict[str, Record]) -> None:
    first = sandbox.start_worker()
    parameters = {"tasks": 60, "seconds": 1.0}
    run = sandbox.submit(dask_flows.pauses, parameters, environment={"min_workers": 1, "max_workers": 3})
    sandbox.wait_until(lambda: len(sandbox.live_dask_workers(run)) == 3, "three workers", timeout=120)
    before = names_by_uid(sandbox, run)
    first.kill()
    second = sandbox.start_worker()
    pods: dict[str, str] = {}

    def ended() -> bool:
        pods.update(names_by_uid(sandbox, run))
        return run.done()

    sandbox.wait_until(ended, "the run's end", timeout=120)
    sandbox.expect_end(run, State.SUCCEEDED)
    assert len(run.result()) == 3
    assert before.items() <= pods.items(), "none was made again"
    assert max(Counter(pods.values()).values()) == 1, "no name had two pods"
    second.end()


def phases(sandbox: DaskSandbox, run: Run[Any]) -> set[str]:
    return {pod["status"]["phase"] for pod in k8s.items("pods", sandbox.name, f"flow_run_id={run.id},{WORKER}")}


def _have_ended(sandbox: DaskSandbox, run: Run[Any]) -> bool:
    return phases(sandbox, run) <= {"Succeeded", "Failed"}


def test_dask_workers_end_by_themselves_when_nobody_supervises(
    sandbox: DaskSandbox, records: dict[str, Record]
) -> None:
    """One run's flow ends, the pod of another's is deleted; a later worker then finds both ends."""
    worker = sandbox.start_worker()
    two = {"min_workers": 2, "max_workers": 2}
    ending = sandbox.submit(dask_flows.hold, {"seconds": 15.0}, environment=two)
    deleted = sandbox.submit(dask_flows.hold, {"seconds": 600.0}, environment=two)
    for run in (ending, deleted):
        sandbox.wait_until_started(run)
    worker.kill()
    flow_pod = sandbox.flow_pod(deleted)["metadata"]["name"]
    k8s.kubectl("delete", "pod", flow_pod, "-n", sandbox.name, "--wait=false")
    sandbox.wait_until_started(ending, event="held")
    begin = time.monotonic()
    for run in (ending, deleted):
        have_ended = partial(_have_ended, sandbox, run)
        sandbox.wait_until(have_ended, "the end of its Dask workers", timeout=60)
    print(f"ended by themselves within {time.monotonic() - begin:.1f} s")  # noqa: T201
    sandbox.start_worker()
    sandbox.expect_end(ending, State.SUCCEEDED)
    sandbox.expect_end(deleted, State.CRASHED, Cause.KILLED)
