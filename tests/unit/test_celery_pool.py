"""The pool of a worker: the defect of Celery's that it corrects, and the jobs that it writes at once."""

from __future__ import annotations

import os
import pickle
from collections import Counter, deque
from collections.abc import Iterator
from multiprocessing import connection
from types import SimpleNamespace
from typing import Any

import pytest
from billiard.pool import TASK
from celery.concurrency.asynpool import SCHED_STRATEGY_FAIR, AsynPool
from kombu.asynchronous import Hub

from workers.pool.celery_pool import ProcessPool


def unwatched_process(sentinel: int) -> Any:
    """Return a living process that isn't watched any more."""
    return SimpleNamespace(_sentinel_poll=None, _popen=SimpleNamespace(sentinel=sentinel), pid=os.getpid())


def test_a_living_process_that_was_considered_dead_is_watched_again() -> None:
    reading, writing = os.pipe()
    hub = Hub()
    process = unwatched_process(reading)
    try:
        ProcessPool.__new__(ProcessPool)._track_child_process(process, hub)
        assert process._sentinel_poll in hub.readers
        os.close(process._sentinel_poll)
        with pytest.raises(ValueError, match="file descriptor is None"):  # until Celery corrects it
            AsynPool.__new__(AsynPool)._track_child_process(unwatched_process(reading), hub)
    finally:
        hub.close()
        os.close(reading)
        os.close(writing)


def test_a_process_is_watched_by_one_descriptor() -> None:
    reading, writing = os.pipe()
    hub = Hub()
    process: Any = SimpleNamespace(_popen=SimpleNamespace(sentinel=reading), pid=os.getpid())
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


def test_the_end_of_a_process_is_seen_although_a_child_holds_its_pipe() -> None:
    reading, writing = os.pipe()  # nobody closes the end that the process would have held
    hub = Hub()
    child = os.posix_spawn("/bin/true", ["true"], {})
    process: Any = SimpleNamespace(_popen=SimpleNamespace(sentinel=reading), pid=child)
    try:
        ProcessPool.__new__(ProcessPool)._track_child_process(process, hub)
        assert connection.wait([process._sentinel_poll], timeout=30) == [process._sentinel_poll]
        assert os.waitpid(child, os.WNOHANG)[0] == child, "and it can be waited for then"
        os.close(process._sentinel_poll)
    finally:
        hub.close()
        os.close(reading)
        os.close(writing)


class Job:
    """Job that waits for a process, as the pool stores it."""

    _accepted, _terminated = False, None
    _writer: Any = None


class Process:
    """Pool process to which jobs are written."""

    index = 0

    def __init__(self) -> None:
        self.received = b""

    def send_job_offset(self, data: memoryview, offset: int) -> int:
        self.received += bytes(data[offset:])
        return len(data) - offset


@pytest.fixture
def pool() -> Iterator[Any]:
    """Return a pool of two idle processes."""
    pool: Any = ProcessPool.__new__(ProcessPool)
    pipes = [os.pipe(), os.pipe()]
    pool._fileno_to_inq, pool._fileno_to_synq = {writing: Process() for _, writing in pipes}, {}
    pool.outbound_buffer, pool._all_inqueues = deque(), set(pool._fileno_to_inq)
    pool._active_writes, pool._active_writers, pool._busy_workers = set(), set(), set()
    pool._cache, pool.write_stats = {n: Job() for n in range(1, 4)}, Counter()
    pool.sched_strategy = SCHED_STRATEGY_FAIR
    pool.hub = Hub()
    pool._create_write_handlers(pool.hub)
    yield pool
    pool.hub.close()
    for descriptor in (end for pipe in pipes for end in pipe):
        os.close(descriptor)


def test_a_job_is_written_to_an_idle_process_at_once(pool: Any) -> None:
    processes = pool._fileno_to_inq
    for number in (1, 2, 3):
        pool._quick_put((TASK, (number, None, "f", (), {})))
    assert [pickle.loads(process.received[4:])[1][0] for process in processes.values()] == [1, 2]
    assert list(pool.outbound_buffer) == [pool._cache[3]], "all are busy: it waits"
    assert pool._busy_workers == set(processes)
    assert not pool._active_writes


def test_jobs_that_wait_go_first(pool: Any) -> None:
    first, second = pool._fileno_to_inq
    pool._busy_workers |= {first, second}
    pool._quick_put((TASK, (1, None, "f", (), {})))
    pool._busy_workers.discard(second)
    pool._quick_put((TASK, (2, None, "f", (), {})))
    assert pickle.loads(pool._fileno_to_inq[second].received[4:])[1][0] == 1
    assert list(pool.outbound_buffer) == [pool._cache[2]]


def test_the_loop_writes_what_waits_once_a_process_is_idle(pool: Any) -> None:
    hub, (first, second) = pool.hub, pool._fileno_to_inq
    hub.on_tick.add(pool.on_poll_start)
    hub.call_later(0.0, lambda: None)  # so that the poll returns at once
    hub.run_once()
    assert not hub.writers, "nothing waits"
    pool._busy_workers |= {first, second}
    pool._quick_put((TASK, (1, None, "f", (), {})))
    pool._busy_workers.discard(first)
    for _ in range(3):
        hub.call_later(0.0, lambda: None)
        hub.run_once()
    assert pickle.loads(pool._fileno_to_inq[first].received[4:])[1][0] == 1
    assert not hub.writers, "and it doesn't poll any more for processes that can be written to"
    assert not hub.consolidate
