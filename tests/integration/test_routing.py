"""Labels match exactly, and workers add and drop queues without a restart."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from dispatcher import LocalEnvironment, flow
from dispatcher.records.base import Records
from dispatcher.records.redis import open_redis
from dispatcher.runs.states import State
from tests.integration.workers import Bench, Worker
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

StartWorker = Callable[..., Worker]


@flow
def answer() -> int:
    return 42


def labelled(*labels: str) -> LocalEnvironment:
    return LocalEnvironment(labels=labels)


def consumed(records: Records) -> set[str]:
    """Return the queues that the only live worker consumes."""
    return {queue for info in records.workers.live() for queue in info.queues}


def test_a_worker_takes_the_subsets_of_its_labels_alone(bench: Bench, start_worker: StartWorker) -> None:
    start_worker(labels=["gpu", "eu"])
    taken = [bench.submit(answer, environment=labelled(*labels)) for labels in (["gpu"], ["eu"], ["gpu", "eu"])]
    left = [bench.submit(answer, environment=labelled(*labels)) for labels in ([], ["us"], ["gpu", "us"])]
    for run_id in taken:
        assert bench.ended(run_id).state is State.SUCCEEDED
    # Longer than it takes to learn of a queue, and to look for lost doorbells.
    later = bench.submit(answer, environment=labelled("eu"))
    bench.ended(later)
    assert {bench.record(run_id).state for run_id in left} == {State.QUEUED}
    start_worker()
    assert bench.ended(left[0]).state is State.SUCCEEDED
    assert {bench.record(run_id).state for run_id in left[1:]} == {State.QUEUED}


def test_the_first_run_of_a_new_label_set_starts_within_two_seconds(bench: Bench, start_worker: StartWorker) -> None:
    start_worker(every_label=True, timing={"queue_tick": 0.5})
    bench.ended(bench.submit(answer))
    for label in ("one", "two", "tab and ünïcode:+@"):
        record = bench.ended(bench.submit(answer, environment=labelled(label)))
        assert record.state is State.SUCCEEDED
        assert record.started_at is not None
        assert record.started_at - record.created_at <= 2.0


def test_an_unused_queue_leaves_and_comes_back(bench: Bench, start_worker: StartWorker, server_url: str) -> None:
    start_worker(labels=["gpu", "eu"], timing={"queue_tick": 0.1, "orphan_tick": 3600.0})
    queue = "local:gpu"
    bench.ended(bench.submit(answer, environment=labelled("gpu")))
    wait_until(lambda: queue in consumed(bench.records), "the queue to be joined")
    tomorrow = open_redis(server_url, clock_offset=86401.0)
    try:
        assert queue in tomorrow.queues.retire(unused_for=86400.0)
    finally:
        tomorrow.close()
    wait_until(lambda: queue not in consumed(bench.records), "the queue to be left")
    assert "local:eu+gpu" in consumed(bench.records)  # its own stays
    assert bench.ended(bench.submit(answer, environment=labelled("gpu"))).state is State.SUCCEEDED
    wait_until(lambda: queue in consumed(bench.records), "the queue to come back")


def test_a_thousand_queues(bench: Bench, start_worker: StartWorker) -> None:
    runs = [bench.submit(answer, environment=labelled(f"team{number}")) for number in range(1000)]
    start_worker(every_label=True)
    wait_until(lambda: len(consumed(bench.records)) >= 1000, "a thousand queues", timeout=60)
    for run_id in runs[:: len(runs) // 20]:
        assert bench.ended(run_id, timeout=120).state is State.SUCCEEDED
    began = time.monotonic()
    record = bench.ended(bench.submit(answer, environment=labelled("late")), timeout=120)
    assert record.state is State.SUCCEEDED, time.monotonic() - began


def test_scopes_are_apart(bench: Bench, start_worker: StartWorker) -> None:
    start_worker(scope="1a2b", every_label=True)
    inside = bench.submit(answer, environment=labelled("any"), scope="1a2b")
    outside = bench.submit(answer, environment=labelled("any"), scope="3c4d")
    assert bench.ended(inside).state is State.SUCCEEDED
    assert bench.record(outside).state is State.QUEUED
