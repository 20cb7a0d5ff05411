"""The pool of a worker: what Celery's would trip over, and what it does at once."""

from __future__ import annotations

import os
import pickle
from collections import Counter, deque
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from billiard.pool import TASK
from celery.concurrency.asynpool import SCHED_STRATEGY_FAIR, AsynPool
from kombu.asynchronous import Hub

from workers.pool.celery_pool import ProcessPool


def taken_for_dead(sentinel: int) -> Any:
    """A living process that is watched no more."""
    return SimpleNamespace(_sentinel_poll=None, _popen=SimpleNamespace(sentinel=sentinel))


def test_a_living_process_that_was_taken_for_dead_is_watched_again() -> None:
    reading, writing = os.pipe()
    hub = Hub()
    process = taken_for_dead(reading)
    try:
        ProcessPool.__new__(ProcessPool)._track_child_process(process, hub)
        assert process._sentinel_poll in hub.readers
        os.close(process._sentinel_poll)
        with pytest.raises(ValueError, match="file descriptor is None"):  # until Celery gets over it by itself
            AsynPool.__new__(AsynPool)._track_child_process(taken_for_dead(reading), hub)
    finally:
        hub.close()
        os.close(reading)
        os.close(writing)


def test_a_process_is_watched_by_one_descriptor() -> None:
    reading, writing = os.pipe()
    hub = Hub()
    process: Any = SimpleNamespace(_popen=SimpleNamespace(sentinel=reading))
    pool = ProcessPool.__new__(ProcessPool)
    try:
        pool._track_child_process(process, hub)
        watched = process._sentinel_poll
        pool._track_child_process(process, hub)
        assert process._sentinel_poll == watched
        os.close(watched)
    finally:
        hub.close()
        os.close(reading)
        os.close(writing)


class Job:
    """As the pool keeps one that waits for a process."""

    _accepted, _terminated = False, None
    _writer: Any = None


class Process:
    """A pool process, as far as it is written to."""

    index = 0

    def __init__(self) -> None:
        self.got = b""

    def send_job_offset(self, data: memoryview, offset: int) -> int:
        self.got += bytes(data[offset:])
        return len(data) - offset


@pytest.fixture
def pool() -> Iterator[Any]:
    """A pool of two idle processes."""
    made: Any = ProcessPool.__new__(ProcessPool)
    pipes = [os.pipe(), os.pipe()]
    made._fileno_to_inq, made._fileno_to_synq = {writing: Process() for _, writing in pipes}, {}
    made.outbound_buffer, made._all_inqueues = deque(), set(made._fileno_to_inq)
    made._active_writes, made._active_writers, made._busy_workers = set(), set(), set()
    made._cache, made.write_stats = {n: Job() for n in range(1, 4)}, Counter()
    made.sched_strategy = SCHED_STRATEGY_FAIR
    made.hub = Hub()
    made._create_write_handlers(made.hub)
    yield made
    made.hub.close()
    for one in (end for pipe in pipes for end in pipe):
        os.close(one)


def test_a_job_is_written_to_an_idle_process_at_once(pool: Any) -> None:
    processes = pool._fileno_to_inq
    for number in (1, 2, 3):
        pool._quick_put((TASK, (number, None, "f", (), {})))
    assert [pickle.loads(one.got[4:])[1][0] for one in processes.values()] == [1, 2]
    assert list(pool.outbound_buffer) == [pool._cache[3]], "all are busy: it waits"
    assert pool._busy_workers == set(processes)
    assert not pool._active_writes


def test_jobs_that_wait_go_first(pool: Any) -> None:
    first, second = pool._fileno_to_inq
    pool._busy_workers |= {first, second}
    pool._quick_put((TASK, (1, None, "f", (), {})))
    pool._busy_workers.discard(second)
    pool._quick_put((TASK, (2, None, "f", (), {})))
    assert pickle.loads(pool._fileno_to_inq[second].got[4:])[1][0] == 1
    assert list(pool.outbound_buffer) == [pool._cache[2]]


def test_the_loop_writes_what_waits_once_a_process_is_idle(pool: Any) -> None:
    hub, (first, second) = pool.hub, pool._fileno_to_inq
    hub.on_tick.add(pool.on_poll_start)
    hub.call_later(0.0, lambda: None)  # so that no look takes long
    hub.run_once()
    assert not hub.writers, "nothing waits"
    pool._busy_workers |= {first, second}
    pool._quick_put((TASK, (1, None, "f", (), {})))
    pool._busy_workers.discard(first)
    for _ in range(3):
        hub.call_later(0.0, lambda: None)
        hub.run_once()
    assert pickle.loads(pool._fileno_to_inq[first].got[4:])[1][0] == 1
    assert not hub.writers, "and it looks no more for who can be written to"
    assert not hub.consolidate
