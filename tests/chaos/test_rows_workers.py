"""Rows 1 to 8 and 11 of the fault matrix: workers and their processes die, freeze and are poisoned.

Whoever dies is replaced, as by a service manager. One group serves all tests but that of row 6.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from dispatcher import flow
from dispatcher.broker.doorbell import envelope
from dispatcher.runs.change import ring_for
from dispatcher.runs.events import EventKind
from dispatcher.runs.retry import Retry
from dispatcher.runs.states import Cause, State
from tests.chaos.conftest import ChaosServer
from tests.chaos.deployment import Deployment, passes
from tests.chaos.flows import read_marks, write_mark
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

BACKENDS = ["local", "remote", "fake"]

#: Seconds; a look for ended leases comes every third of one.
LEASE = 2.5


@pytest.fixture(scope="module")
def everything(chaos_server: ChaosServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("deployment")
    timing = {"lease": LEASE}
    with Deployment(
        chaos_server.url, chaos_server.port, folder, backends=BACKENDS, drain=20.0, timing=timing, concurrency=2
    ) as deployment:
        yield deployment


@pytest.fixture
def deployment(everything: Deployment) -> Deployment:
    """The group, healthy before each test: all live, and a run gets through."""
    assert everything.group is not None
    group = everything.group
    wait_until(lambda: all("is ready" in worker.output for worker in group.workers), "ready workers", timeout=60)
    everything.submit()
    everything.settle()
    return everything


@pytest.fixture
def server(chaos_server: ChaosServer) -> Iterator[redis.Redis]:
    """A client of the server itself."""
    with redis.Redis.from_url(chaos_server.url) as client:
        yield client


def told(deployment: Deployment) -> None:
    """Recovery time, for whoever reads the output: of these timings, a second is 15 s of production's."""
    print(f"recovered after {deployment.took:.1f} s at a lease of {LEASE:g} s")  # noqa: T201


@pytest.mark.row(1)
def test_row_1_a_worker_dies_between_message_and_claim(deployment: Deployment) -> None:
    """Its doorbell is lost; it is rung again."""
    run_id = deployment.armed("attempt.waiting", "worker137")
    deployment.settle(timeout=90)
    told(deployment)
    record = deployment.bench.record(run_id)
    assert deployment.fired(run_id)
    assert (record.state, record.rings >= 2) == (State.SUCCEEDED, True)
    assert deployment.starts(run_id) == record.attempt


@pytest.mark.row(1)
def test_row_1_workers_die_with_a_message_that_they_have_not_read(deployment: Deployment, server: redis.Redis) -> None:
    """Stopped, they are given doorbells by the server, which takes them out of the list."""
    assert deployment.group is not None
    workers = list(deployment.group.workers)
    key = f"{deployment.bench.records.instance}:local"

    def popped() -> list[str]:
        """Runs whose doorbells were taken, at least one; none where no worker had just asked for one."""
        for worker in workers:
            worker.send(signal.SIGSTOP)
        runs = deployment.submit(3)
        with suppress(AssertionError):
            wait_until(lambda: server.llen(key) < 3, "doorbells to be popped", timeout=3)
            return runs
        for worker in workers:
            worker.send(signal.SIGCONT)
        deployment.settle(timeout=90)
        return []

    runs = wait_until(popped, "workers that were stopped while they asked", timeout=120)
    for worker in workers:
        worker.send(signal.SIGKILL)
    deployment.settle(timeout=90)
    told(deployment)
    assert {deployment.bench.record(run_id).state for run_id in runs} == {State.SUCCEEDED}


@pytest.mark.row(2)
def test_row_2_a_worker_dies_before_it_claims(deployment: Deployment) -> None:
    """Claim and intent are one step, so nothing lies between them: before it the run waits, and is rung for again."""
    run_id = deployment.armed("provision.prepared", "worker137", backend="fake")
    deployment.settle(timeout=90)
    told(deployment)
    record = deployment.bench.record(run_id)
    assert deployment.fired(run_id)
    assert (record.state, record.attempt) == (State.SUCCEEDED, 1)
    assert EventKind.RELEASED not in {event.kind for event in deployment.bench.events(run_id)}
    deployment.torn_down()


@pytest.mark.row(2)
def test_row_2_a_claim_without_an_intent_is_given_back(deployment: Deployment) -> None:
    """Under a higher epoch, once its owner's lease has ended."""
    run_id = deployment.claimed("fake")
    deployment.settle(timeout=90)
    told(deployment)
    record = deployment.bench.record(run_id)
    assert record.state is State.SUCCEEDED
    assert record.epoch >= 3  # claimed, given back, claimed
    assert EventKind.RELEASED in {event.kind for event in deployment.bench.events(run_id)}
    deployment.torn_down()


@pytest.mark.row(3)
@pytest.mark.row(4)
@pytest.mark.parametrize("where", ["provision.intended", "provision.submitted"])
def test_rows_3_and_4_a_worker_dies_around_the_creation(deployment: Deployment, where: str) -> None:
    """The next owner sends the stored request again: created, or adopted, once."""
    run_id = deployment.armed(where, "worker137", backend="fake")
    deployment.settle(timeout=90)
    told(deployment)
    assert deployment.fired(run_id)
    assert deployment.bench.record(run_id).state is State.SUCCEEDED
    deployment.torn_down()


@pytest.mark.row(2)
@pytest.mark.row(4)
@pytest.mark.parametrize("backend", ["local", "remote"])
def test_rows_2_and_4_where_the_claim_is_the_creation(deployment: Deployment, backend: str) -> None:
    """In a pool process nothing is created, and nothing can be adopted: the attempt ends, and its policy repeats it."""
    run_id = deployment.armed("attempt.claimed", "worker137", backend=backend)
    deployment.settle(timeout=90)
    told(deployment)
    record = deployment.bench.record(run_id)
    assert deployment.fired(run_id)
    assert record.state is State.SUCCEEDED
    assert record.attempt >= 2
    first = next(event for event in deployment.bench.events(run_id) if event.kind is EventKind.EXITED)
    assert first.data["cause"] == Cause.WORKER_LOST
    assert {mark.attempt for mark in read_marks(deployment.folder) if (mark.run, mark.step) == (run_id, "flow")} == set(
        range(2, record.attempt + 1)
    )


@pytest.mark.row(5)
def test_row_5_a_worker_dies_after_the_end_of_its_run(deployment: Deployment, server: redis.Redis) -> None:
    """The terminal state stands; the doorbell delivered again finds nothing to do."""
    assert deployment.group is not None
    deaths = deployment.group.deaths
    run_id = deployment.armed("task.done", "worker137")
    deployment.settle()
    before = deployment.bench.record(run_id)
    wait_until(lambda: deployment.group and deployment.group.deaths > deaths, "the worker's death", timeout=60)
    key = f"{deployment.bench.records.instance}:local"
    server.lpush(key, envelope(ring_for(before)))
    deployment.submit()
    deployment.settle(timeout=90)
    told(deployment)
    assert deployment.fired(run_id)
    assert deployment.bench.record(run_id).version == before.version
    assert deployment.starts(run_id) == before.attempt


@pytest.mark.row(6)
@pytest.mark.timeout(1500)  # ten minutes of kills in the long form, and what they leave
def test_row_6_workers_are_killed_all_the_time(
    chaos_server: ChaosServer, tmp_path: Path, long: bool, everything: Deployment
) -> None:
    """A random one every 1 to 3 s: work goes on, nothing is created or started twice."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # noqa: T201
    chance = random.Random(seed)
    everything.settle()
    with Deployment(
        chaos_server.url, chaos_server.port, tmp_path, workers=3, backends=["fake", "local"], concurrency=1
    ) as deployment:
        assert deployment.group is not None
        group = deployment.group
        begun, kills, done = time.monotonic(), 0, 0
        while time.monotonic() - begun < (600.0 if long else 10.0) or not done:
            deployment.submit(3, seconds=0.2)
            deployment.submit(backend="fake")
            passes(chance.uniform(1.0, 3.0))
            ready = [worker for worker in group.workers if "is ready" in worker.output]
            if ready:
                chance.choice(ready).send(signal.SIGKILL)
                kills += 1
            done = _ended(deployment)
        records = deployment.settle(timeout=120)
        print(f"{done} of {len(records)} runs ended beside {kills} kills; the others {deployment.took:.1f} s later")  # noqa: T201
        deployment.torn_down()
    assert kills
    assert {record.state for record in records} == {State.SUCCEEDED}


def _ended(deployment: Deployment) -> int:
    return sum(
        record is not None and record.terminal for record in deployment.bench.records.runs.get_many(deployment.runs)
    )


@pytest.mark.row(7)
def test_row_7_a_worker_is_killed_while_it_drains(deployment: Deployment, server: redis.Redis) -> None:
    """Its grace was too short: what it ran is repeated, what waits is taken by others, and no message is kept aside."""
    assert deployment.group is not None
    deployment.started(deployment.submit(4, seconds=3.0))
    waiting = deployment.submit(4)
    worker = deployment.group.workers[0]
    worker.send(signal.SIGTERM)
    worker.says("Shutting down")
    worker.send(signal.SIGKILL)
    records = deployment.settle(timeout=90)
    told(deployment)
    assert {record.state for record in records} == {State.SUCCEEDED}
    assert set(waiting) <= {record.id for record in records}
    assert not server.exists(f"{deployment.bench.records.instance}:unacked")


@pytest.mark.row(8)
def test_row_8_a_worker_is_frozen_for_longer_than_its_lease(deployment: Deployment) -> None:
    """It wakes up with a result that comes too late: its writes are refused, another's stand."""
    assert deployment.group is not None
    group = deployment.group
    noticed = group.output.count("was declared dead while disconnected")
    run_id = deployment.armed("attempt.ran", f"worker_freeze:{5 * LEASE}")
    deployment.settle(timeout=90)
    told(deployment)
    before = deployment.bench.record(run_id)
    wait_until(
        lambda: group.output.count("was declared dead while disconnected") > noticed,
        "the frozen worker's return",
        timeout=60,
    )
    deployment.submit(4)
    deployment.settle(timeout=90)
    assert deployment.fired(run_id)
    assert before.attempt >= 2
    assert deployment.bench.record(run_id).version == before.version


@flow
def poison(folder: str, whole_worker: bool = False) -> None:
    """Kills what runs it, each time."""
    write_mark(folder, "flow")
    if whole_worker:
        os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.row(11)
@pytest.mark.parametrize(("whole_worker", "cause"), [(False, Cause.KILLED), (True, Cause.WORKER_LOST)])
def test_row_11_poison(deployment: Deployment, whole_worker: bool, cause: Cause) -> None:
    """It ends as its policy says, each attempt with its ``on_exit``, and does not go round for ever."""
    parameters = {"folder": str(deployment.folder), "whole_worker": whole_worker}
    attempts = 2
    deployment.runs.append(
        run_id := deployment.bench.submit(
            poison,
            parameters,
            environment=deployment.environment("local"),
            retries=Retry(attempts - 1, delay=0.1, on={cause}),
        )
    )
    deployment.settle(timeout=90)
    told(deployment)
    record = deployment.bench.record(run_id)
    assert (record.state, record.attempt) == (State.CRASHED, attempts)
    assert record.outcome is not None
    assert record.outcome.cause is cause
    assert deployment.starts(run_id) == attempts
    called = [mark for mark in read_marks(deployment.folder) if (mark.run, mark.step) == (run_id, "on_exit")]
    assert [mark.attempt for mark in called] == [1, 2]
