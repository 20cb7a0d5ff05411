"""Workers killed at failpoints on a real cluster, whose webhook changes their Jobs. All failpoints of the path are in
tests/chaos/test_kubernetes_failpoints.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher.runs.record import Record
from dispatcher.runs.states import State
from tests.chaos.cases import Arms
from tests.cloud import flows, k8s
from tests.cloud.sandbox import Sandbox
from tests.cloud.webhook import Json, Webhook
from tests.integration.workers import Bench, Worker

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]

WORKERS = 3

#: Failpoints and the processes that die there: a pool process with its worker, or a worker.
ARMS = {
    "provision.intended": "worker137",
    "provision.submitted": "worker137",
    "provision.stored": "worker137",
    "inbox.acted": "exit137",
    "teardown.asked": "exit137",
}


def change(item: Json) -> list[Json]:
    """Return patches as of webhooks and defaults: the stored Job differs from the sent one."""
    if item["kind"] != "Job":
        return []
    variable = {"name": "INJECTED", "value": "1"}
    return [
        {"op": "add", "path": "/spec/template/spec/containers/0/env/-", "value": variable},
        {"op": "add", "path": "/metadata/labels/injected", "value": "true"},
        {"op": "replace", "path": "/spec/ttlSecondsAfterFinished", "value": 7200},
    ]


@pytest.fixture(scope="module")
def records(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Record]]:
    """Records of runs, each of which has killed a worker; dead workers are replaced."""
    arms = Arms(tmp_path_factory.mktemp("armed") / "arms")
    bench = Bench(sandbox.server.url)
    run_ids: dict[str, str] = {}
    with Webhook(sandbox.name, tmp_path_factory.mktemp("webhook"), change):
        workers = [start_worker(sandbox, arms.folder) for _ in range(WORKERS)]
        for name, kind in ARMS.items():
            record = bench.prepare(flows.add, {"a": 1, "b": 2}, environment=sandbox.environment())
            arms.lay(name, kind, record.id)
            bench.records.runs.create([record])
            run_ids[name] = record.id

        def all_ended() -> bool:
            for worker in [worker for worker in workers if worker.process.poll() is not None]:
                workers.remove(worker)
                workers.append(start_worker(sandbox, arms.folder))
            records = bench.records.runs.get_many(list(run_ids.values()))
            return all(record is not None and record.terminal and not record.leftovers for record in records)

        try:
            sandbox.wait_until(all_ended, "the end of all runs, and nothing left of them", timeout=240)
            assert set(arms.fired()) == {f"{name}+{run_id}" for name, run_id in run_ids.items()}
            yield {name: bench.record(run_id) for name, run_id in run_ids.items()}
        finally:
            bench.close()


def start_worker(sandbox: Sandbox, arms: Path) -> Worker:
    return sandbox.start_worker(variables={"DISPATCHER__FAILPOINT": str(arms)})


@pytest.mark.row(3)
@pytest.mark.row(4)
@pytest.mark.parametrize("name", ARMS)
def test_a_worker_that_dies_costs_no_attempt(name: str, sandbox: Sandbox, records: dict[str, Record]) -> None:
    record = records[name]
    assert (record.state, record.attempt) == (State.SUCCEEDED, 1), record.outcome
    assert sandbox.server.count(f"{record.id}:ran") == 1
    leftovers = k8s.items("jobs,pods,secrets", sandbox.name, f"flow_run_id={record.id}")
    assert [item["metadata"]["name"] for item in leftovers] == []
