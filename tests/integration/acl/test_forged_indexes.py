"""Row 34 of the fault matrix: entries of the indexes that workers read, forged with the clients' Redis user and no key.

On a server with exactly the users of ``docs/security.md``, with real workers. What disagrees with its record is removed
from the index, counted, and logged once in a while; the worker's heartbeat and other runs go on.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backends.fake import FakeEnvironment
from dispatcher import LocalEnvironment
from dispatcher.records.rejections import Rejected
from dispatcher.runs import indexes, transitions
from dispatcher.runs.attempt import shard_of
from dispatcher.runs.states import State
from tests.integration.attacker import Attacker
from tests.integration.intruder import one, waits
from tests.integration.workers import QUICK, Bench, Worker
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.row(34), pytest.mark.timeout(300)]

StartWorker = Callable[..., Worker]

#: Megabytes by which a worker's memory may grow, whatever is stored.
GROWTH = 250


class Forger:
    """Forges many records under one index."""

    def __init__(self, attacker: Attacker, bench: Bench) -> None:
        self.attacker = attacker
        self.bench = bench

    def template(self) -> dict[bytes, bytes]:
        """Return the fields of a run that has ended."""
        run_id = self.bench.submit(one)
        self.bench.ended(run_id)
        return self.attacker.stored(run_id)

    def fill(self, index: str, count: int, template: dict[bytes, bytes], **fields: Any) -> list[str]:
        """Store records as the template, and add them to an index. Return their ids."""
        keys, ids = self.attacker.keys, [f"forged{number}" for number in range(count)]
        changed = {name.encode(): value for name, value in fields.items()}
        with self.attacker.server.pipeline(transaction=False) as pipe:
            for number, run_id in enumerate(ids, 1):
                record = {**template, b"holder": b"vm:99999:x", **changed, b"id": run_id.encode()}
                pipe.hset(keys.run(run_id), mapping=record)
                pipe.zadd(keys.index(index), {run_id: 1})
                if number % 500 == 0:
                    pipe.execute()
            pipe.execute()
        return ids

    def left(self, index: str) -> int:
        """Return the number of an index's entries."""
        return int(self.attacker.server.zcard(self.attacker.keys.index(index)))

    def beats(self, worker: str) -> int:
        """Return the number of a worker's heartbeats so far."""
        return int(self.attacker.server.hget(self.attacker.keys.beats, worker) or 0)


@pytest.fixture
def forger(attacker: Attacker, bench: Bench) -> Forger:
    return Forger(attacker, bench)


def only_worker(bench: Bench) -> str:
    """Return the id of the worker that is there."""
    [worker] = bench.records.workers.beats()
    return worker


def growth_of(worker: Worker) -> Callable[[], int]:
    """Return a function that returns by how many megabytes the peak of a worker's memory has grown since this call."""

    def peak() -> int:
        status = Path(f"/proc/{worker.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+)", status)
        assert found
        return int(found[1]) // 1024

    before = peak()
    return lambda: peak() - before


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.RUNNING])
def test_a_worker_survives_a_flood_of_owned_runs(
    bench: Bench, forger: Forger, start: StartWorker, tmp_path: Path, state: State
) -> None:
    """Its heartbeat goes on, its running flow is cancelled, and its log stays readable."""
    worker, count = start(concurrency=1), 20_000 if state is State.SUCCEEDED else 500
    name, template = only_worker(bench), forger.template()
    run_id = bench.submit(waits, {"path": str(tmp_path / "go")})
    bench.until(run_id, lambda record: record.state is State.RUNNING, "the flow's start")
    growth, lines = growth_of(worker), worker.output.count("\n")
    forger.fill(indexes.owned(name), count, template, owner=name, state=str(state))

    beats, begun = forger.beats(name), time.monotonic()
    bench.records.runs.update(run_id, transitions.request_cancel)
    assert bench.ended(run_id, timeout=20).state is State.CANCELLED
    wait_until(lambda: forger.left(indexes.owned(name)) == 0, "an empty index", timeout=120)
    seconds = time.monotonic() - begun
    assert forger.beats(name) - beats >= seconds / QUICK["renew"] / 4
    assert "declared dead" not in worker.output
    assert worker.output.count("\n") - lines < 30
    kind = Rejected.ENTRY if state is State.SUCCEEDED else Rejected.RUN
    assert bench.records.rejections.tallies()[kind].count >= count
    assert growth() < GROWTH


def test_an_honest_run_whose_record_says_that_it_has_ended(
    bench: Bench, attacker: Attacker, start: StartWorker, forger: Forger, tmp_path: Path
) -> None:
    worker = start(concurrency=1)
    run_id = bench.submit(waits, {"path": str(tmp_path / "go")})
    record = bench.until(run_id, lambda record: record.state is State.RUNNING, "the flow's start")
    attacker.server.hset(attacker.keys.run(run_id), "state", "SUCCEEDED")
    wait_until(lambda: forger.left(indexes.owned(record.owner)) == 0, "an empty index")
    beats = forger.beats(record.owner)
    wait_until(lambda: forger.beats(record.owner) >= beats + 4, "some more seconds")
    assert worker.output.count(run_id) <= 5
    assert bench.ended(bench.submit(one)).state is State.SUCCEEDED


def test_large_records_are_read_few_at_once(bench: Bench, forger: Forger, start: StartWorker) -> None:
    worker = start(concurrency=1, backends=["local", "fake"])
    name, template = only_worker(bench), forger.template()
    growth = growth_of(worker)
    large = {"spec_bytes": b'{"x": "' + b"A" * 4 * 2**20 + b'"}', "state": "SUCCEEDED"}
    forger.fill(indexes.owned(name), 60, template, owner=name, **large)
    forger.fill(indexes.owned("fake/1"), 60, template, owner="fake/1", **large)
    for index in (indexes.owned(name), indexes.owned("fake/1")):
        wait_until(lambda index=index: forger.left(index) == 0, "an empty index", timeout=60)  # type: ignore[misc]
    assert growth() < GROWTH


@pytest.mark.parametrize("left", ["cleanly", "killed"])
def test_a_dead_worker_s_forged_runs_don_t_keep_it(bench: Bench, forger: Forger, start: StartWorker, left: str) -> None:
    dead, template = start(concurrency=1), forger.template()
    name = only_worker(bench)
    if left == "killed":
        dead.kill()
    forger.fill(indexes.owned(name), 3000, template, owner=name)
    if left == "cleanly":
        dead.end()
        forger.fill(indexes.owned(name), 3000, template, owner=name)
    observer = start(concurrency=1)
    wait_until(lambda: name not in bench.records.workers.beats(), "the worker's removal", timeout=60)
    assert observer.output.count("is dead; now SUCCEEDED") == 0
    assert observer.output.count("\n") < 60


@pytest.mark.parametrize("state", ["SUCCEEDED", "RUNNING", "PAUSED"])
def test_a_supervisor_reads_a_forged_run_once(
    bench: Bench, forger: Forger, start: StartWorker, service: Path, state: str
) -> None:
    """Drop it from the index, end it, or leave it as a state of another release: nothing is done twice."""
    worker = start(backends=["local", "fake"], concurrency=1)
    template = forger.template()
    template.pop(b"ended_at", None)
    lines = worker.output.count("\n")
    ids = [f"forged{number}" for number in range(300)]
    for run_id in ids:
        forger.attacker.write(run_id, {**template, b"id": run_id.encode(), b"owner": shard_of("fake", run_id).encode(),
                                       b"state": state.encode(), b"version": b"7"})  # fmt: skip
        index = indexes.owned(shard_of("fake", run_id))
        forger.attacker.server.zadd(forger.attacker.keys.index(index), {run_id: 7})

    def tally() -> int:
        return sum(tally.count for tally in bench.records.rejections.tallies().values())

    wait_until(lambda: tally() >= len(ids), "each of them counted", timeout=60)
    counted = tally()
    for _ in range(3):
        run_id = bench.submit(one, environment=FakeEnvironment(service))
        assert bench.ended(run_id).state is State.SUCCEEDED
    assert tally() == counted
    assert worker.output.count("\n") - lines < 60
    if state != "PAUSED":
        for run_id in ids:
            assert not forger.left(indexes.owned(shard_of("fake", run_id)))


def test_a_due_run_that_has_ended_leaves_that_index(bench: Bench, forger: Forger, start: StartWorker) -> None:
    start(concurrency=1)
    template = forger.template()
    forger.fill(indexes.DUE, 2000, template)
    late = bench.submit(one, environment=LocalEnvironment(labels=["nobody"]), start_within=0.5)
    assert bench.ended(late).state is State.TIMED_OUT
    wait_until(lambda: not forger.left(indexes.DUE), "an empty index", timeout=60)
    assert bench.records.rejections.tallies()[Rejected.ENTRY].count >= 2000
