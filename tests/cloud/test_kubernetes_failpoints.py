"""Workers killed around what they do on a real cluster, which changes the Jobs they create: issue 5, "Real parts and
tests". All failpoints of the path are in tests/chaos/test_kubernetes_failpoints.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher.runs.record import Record
from dispatcher.runs.states import State
from tests.chaos.cases import Arms
from tests.cloud import flows, k8s
from tests.cloud.sandbox import Estate
from tests.cloud.webhook import Json, Webhook
from tests.integration.workers import Bench, Worker

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]

WORKERS = 3

#: Failpoints and who dies there: a pool process with its worker, or a worker.
ARMS = {
    "provision.intended": "worker137",
    "provision.submitted": "worker137",
    "provision.stored": "worker137",
    "inbox.acted": "exit137",
    "teardown.asked": "exit137",
}


def change(thing: Json) -> list[Json]:
    """As webhooks and defaults do: the Job that is found isn't the one that was sent."""
    if thing["kind"] != "Job":
        return []
    variable = {"name": "INJECTED", "value": "1"}
    return [
        {"op": "add", "path": "/spec/template/spec/containers/0/env/-", "value": variable},
        {"op": "add", "path": "/metadata/labels/injected", "value": "true"},
        {"op": "replace", "path": "/spec/ttlSecondsAfterFinished", "value": 7200},
    ]


@pytest.fixture(scope="module")
def played(estate: Estate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Record]]:
    """The records of runs, each of which has killed a worker; those that died were replaced."""
    arms = Arms(tmp_path_factory.mktemp("armed") / "arms")
    bench = Bench(estate.server.url)
    found: dict[str, str] = {}
    with Webhook(estate.name, tmp_path_factory.mktemp("webhook"), change):
        workers = [begin(estate, arms.folder) for _ in range(WORKERS)]
        for name, kind in ARMS.items():
            record = bench.prepare(flows.add, {"a": 1, "b": 2}, environment=estate.environment())
            arms.lay(name, kind, record.id)
            bench.records.runs.create([record])
            found[name] = record.id

        def over() -> bool:
            for worker in [one for one in workers if one.process.poll() is not None]:
                workers.remove(worker)
                workers.append(begin(estate, arms.folder))
            records = bench.records.runs.get_many(list(found.values()))
            return all(one is not None and one.terminal and not one.leftovers for one in records)

        try:
            estate.until(over, "the end of all runs, and nothing left of them", timeout=240)
            assert set(arms.fired()) == {f"{name}+{run_id}" for name, run_id in found.items()}
            yield {name: bench.record(run_id) for name, run_id in found.items()}
        finally:
            bench.close()


def begin(estate: Estate, arms: Path) -> Worker:
    return estate.worker(variables={"DISPATCHER__FAILPOINT": str(arms)})


@pytest.mark.row(3)
@pytest.mark.row(4)
@pytest.mark.parametrize("name", ARMS)
def test_a_worker_that_dies_costs_no_attempt(name: str, estate: Estate, played: dict[str, Record]) -> None:
    record = played[name]
    assert (record.state, record.attempt) == (State.SUCCEEDED, 1), record.outcome
    assert estate.server.count(f"{record.id}:ran") == 1
    left = k8s.items("jobs,pods,secrets", estate.name, f"flow_run_id={record.id}")
    assert [one["metadata"]["name"] for one in left] == []
