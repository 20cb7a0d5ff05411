"""Rows 13 and 20 of the fault matrix: the last writes are gone, from the server's log or with the server itself.

What was created in the outside world on their behalf is found and removed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from dispatcher import Dispatcher, Run
from dispatcher.runs.attempt import object_name
from dispatcher.runs.states import State
from tests.chaos.checker import lines_of
from tests.chaos.conftest import ChaosServer
from tests.chaos.deployment import Deployment
from tests.chaos.flows import marked
from tests.chaos.worker_group import TIMING
from tests.integration.workers import Bench
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.fixture
def replica(chaos_server: ChaosServer) -> Iterator[ChaosServer]:
    """A second server, which follows the first."""
    with ChaosServer.temporary() as server:
        with redis.Redis.from_url(server.url) as client:
            client.replicaof("127.0.0.1", str(chaos_server.port))
        yield server


def follow(server: redis.Redis, replica: redis.Redis) -> None:
    """Wait until the replica has all that was written so far."""

    def has_all() -> bool:
        state, of = replica.info("replication"), server.info("replication")
        return bool(state["master_link_status"] == "up" and state["slave_repl_offset"] >= of["master_repl_offset"])

    wait_until(has_all, "the replica to follow", timeout=30)


def holding(deployment: Deployment, client: Dispatcher, key: str) -> Run[int]:
    """A run whose flow holds on, in a container."""
    parameters = {"folder": str(deployment.folder), "way": "holds"}
    return client.submit(marked, parameters, environment=deployment.environment("fake"), idempotency_key=key)


def removed(deployment: Deployment, run_id: str) -> None:
    """Wait until the container of a run that no record knows any more is deleted, by the service's own account."""
    name, begun = object_name(run_id, 1), time.monotonic()

    def deleted() -> bool:
        lines = map(json.loads, (deployment.service / "ledger.jsonl").read_text().splitlines())
        return any((line["name"], line["what"]) == (name, "deleted") for line in lines)

    wait_until(deleted, "the end of the container that nobody wants", timeout=90, every=0.1)
    print(f"removed {time.monotonic() - begun:.1f} s after the server was back")  # noqa: T201
    deployment.others.append(run_id)


@pytest.mark.row(13)
def test_row_13_infrastructure_whose_record_is_lost_is_removed(chaos_server: ChaosServer, tmp_path: Path) -> None:
    """A container was created within the second that is lost; who asks again with the key gets a run of its own."""
    with Deployment(
        chaos_server.url, chaos_server.port, tmp_path, backends=["fake"], drain=0.5, timing={"lease": 6.0}
    ) as deployment:
        with Dispatcher(settings=deployment.bench.settings) as client:
            deployment.submit(backend="fake")
            deployment.settle(timeout=90)
            lost = holding(deployment, client, "a lost container")
            deployment.started([lost.id])
            chaos_server.kill()
            chaos_server.forget(b"a lost container")
            chaos_server.start()
            [again] = {holding(deployment, client, "a lost container") for _ in range(2)}
            assert client.get_many([lost.id]) == [None]
        removed(deployment, lost.id)
        deployment.runs.append(again.id)
        (deployment.folder / "released").touch()
        records = deployment.settle(timeout=90)
        assert {record.state for record in records} == {State.SUCCEEDED}
        assert [deployment.starts(lost.id), deployment.starts(again.id)] == [1, 1]
        deployment.torn_down()


@pytest.mark.row(20)
def test_row_20_a_replica_without_the_last_writes_takes_over(
    chaos_server: ChaosServer, replica: ChaosServer, tmp_path: Path
) -> None:
    """Runs that the replica knows continue undisturbed. A run that it misses is submitted again with its key, and is
    one run. A container of a run that it misses is removed.
    """
    url, port = chaos_server.url, chaos_server.port
    with (
        Deployment(url, port, tmp_path, backends=["local", "fake"], drain=0.5, timing={"lease": 6.0}) as deployment,
        redis.Redis.from_url(url) as old,
        redis.Redis.from_url(replica.url) as new,
    ):
        ended = deployment.submit(4)
        deployment.settle()
        running = deployment.submit(2, way="holds")
        deployment.started(running)
        store = deployment.bench.records
        wait_until(lambda: all(lines_of(store, run_id) for run_id in running), "the first line of each", timeout=60)
        follow(old, new)
        new.replicaof("NO", "ONE")
        environment = deployment.environment("local")
        parameters = {"folder": str(deployment.folder)}
        with Dispatcher(settings=deployment.bench.settings) as client:
            lost = client.submit(marked, parameters, environment=environment, idempotency_key="the same")
            contained = holding(deployment, client, "another lost container")
        deployment.started([contained.id])
        chaos_server.kill()
        deployment.bench.close()
        deployment.proxy.redirect("127.0.0.1", replica.port)
        deployment.bench = Bench(replica.url, timing=TIMING)
        assert deployment.bench.records.runs.get_many([lost.id, contained.id]) == [None, None]
        with Dispatcher(settings=deployment.bench.settings) as client:
            runs = {
                client.submit(marked, parameters, environment=environment, idempotency_key="the same") for _ in range(2)
            }
        [again] = runs
        deployment.runs.append(again.id)
        (deployment.folder / "released").touch()
        records = {record.id: record for record in deployment.settle(timeout=90)}
        print(f"all runs ended {deployment.took:.1f} s after the fail-over")  # noqa: T201
        assert {record.state for record in records.values()} == {State.SUCCEEDED}
        assert {records[run_id].attempt for run_id in [*ended, *running]} == {1}
        assert deployment.starts(again.id) == records[again.id].attempt
        removed(deployment, contained.id)
        deployment.torn_down()
