"""A worker runs waiting runs to their end."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dispatcher import LocalEnvironment, context, flow
from dispatcher.broker.doorbell import envelope
from dispatcher.runs.change import ring_for
from dispatcher.runs.record import Record
from dispatcher.runs.retry import Retry
from dispatcher.runs.states import Cause, State
from dispatcher.serialization import from_value
from tests.conftest import PYTHON, Server
from tests.integration.workers import ROOT, Bench, Worker
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

StartWorker = Callable[..., Worker]


def result_of(bench: Bench, run_id: str, *, timeout: float = 30.0) -> Any:
    """Return the result of a finished run."""
    record = bench.ended(run_id, timeout=timeout)
    assert record.state is State.SUCCEEDED, (record.outcome, bench.lines(run_id))
    assert record.outcome is not None
    assert record.outcome.result is not None
    return from_value(record.outcome.result, get=bench.records.blobs.get, seal=bench.keys.seal(record))


def cause_of(record: Record) -> Cause | None:
    """Return the cause of a run's end."""
    assert record.outcome is not None
    return record.outcome.cause


@flow
def add(a: int, b: int = 1) -> int:
    context.logger.info("adding %d", a)
    return a + b


@flow
def fail() -> None:
    raise ZeroDivisionError("no")


@flow
def pid() -> int:
    return os.getpid()


@flow
def left_alone() -> int:
    """Return the number of objects of this process that the garbage collector ignores."""
    return gc.get_freeze_count()


@flow
def note(path: str, seconds: float = 0.0) -> int:
    with Path(path).open("a") as file:
        file.write(f"{context.attempt}\n")
    time.sleep(seconds)
    return len(Path(path).read_text().splitlines())


@flow
def meet(directory: str, others: int) -> int:
    """End once a number of runs are running at the same time."""
    (Path(directory) / f"met-{context.run_id}").touch()
    while len(list(Path(directory).glob("met-*"))) < others:
        time.sleep(0.01)
    return os.getppid()


@flow
def third_time_lucky(path: str) -> int:
    with Path(path).open("a") as file:
        file.write("x")
    tries = len(Path(path).read_text())
    if tries < 3:
        raise RuntimeError(f"try {tries}")
    return tries


@flow
def with_processes() -> list[int]:
    with multiprocessing.Pool(2) as pool:
        return pool.starmap(pow, [(number, 2) for number in range(5)])


@flow
def with_dask() -> int:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", security=True) as cluster,
        Client(cluster) as client,
    ):
        return int(client.submit(pow, 2, 10).result(timeout=60))


@flow
def leave_by_exit() -> None:
    raise SystemExit(3)


def test_runs_end_as_their_flows_do(bench: Bench, start_worker: StartWorker, tmp_path: Path) -> None:
    worker = start_worker()
    added = bench.submit(add, {"a": 2})
    failed = bench.submit(fail)
    left = bench.submit(leave_by_exit)
    retried = bench.submit(third_time_lucky, {"path": str(tmp_path / "tries")}, retries=Retry(2, delay=0.3, backoff=1))
    assert result_of(bench, added) == 3
    assert "adding 2" in bench.lines(added)
    assert [str(event.kind) for event in bench.events(added)] == [
        "queued", "claimed", "provisioning", "pending", "started", "exited",
    ]  # fmt: skip
    assert bench.record(added).holder.split(":")[1] in map(str, worker.children)
    record = bench.ended(failed)
    assert (record.state, cause_of(record)) == (State.FAILED, Cause.USER_ERROR)
    assert bench.ended(left).state is State.FAILED
    assert result_of(bench, retried) == 3
    record = bench.record(retried)
    assert (record.attempt, record.retries_used) == (3, 2)
    queued = [event.time for event in bench.events(retried) if event.kind == "queued"]
    assert min(later - sooner for sooner, later in itertools.pairwise(queued)) >= 0.3
    assert len(worker.children) == 2
    assert result_of(bench, bench.submit(left_alone)) > 10_000


def test_a_doorbell_is_only_a_hint(bench: Bench, start_worker: StartWorker, tmp_path: Path, server_url: str) -> None:
    import redis

    run_id = bench.submit(note, {"path": str(tmp_path / "tries"), "seconds": 0.5})
    record = bench.record(run_id)
    with redis.Redis.from_url(server_url) as client:
        key = f"{bench.records.instance}:local"
        unknown = envelope(ring_for(record)).replace(run_id.encode(), b"r-unknown")
        for message in (envelope(ring_for(record)), unknown, b"nonsense"):
            client.lpush(key, message)
        start_worker()
        assert result_of(bench, run_id) == 1
        client.lpush(key, envelope(ring_for(record)))
        wait_until(lambda: not client.llen(key), "the second ring to be taken")
    after = bench.submit(add, {"a": 1})
    assert result_of(bench, after) == 2
    assert (tmp_path / "tries").read_text() == "1\n"


def test_flows_may_have_processes_of_their_own(bench: Bench, start_worker: StartWorker) -> None:
    start_worker(concurrency=1)
    squares, cluster = bench.submit(with_processes), bench.submit(with_dask)
    assert result_of(bench, squares) == [0, 1, 4, 9, 16]
    assert result_of(bench, cluster, timeout=90) == 1024


def test_start_within_passes_while_no_worker_has_time(bench: Bench, start_worker: StartWorker, tmp_path: Path) -> None:
    start_worker(concurrency=1)
    busy = bench.submit(note, {"path": str(tmp_path / "tries"), "seconds": 3.0})
    bench.until(busy, lambda record: record.state is State.RUNNING, "the start")
    late = bench.submit(add, {"a": 1}, start_within=0.5)
    record = bench.ended(late)
    assert (record.state, cause_of(record)) == (State.TIMED_OUT, Cause.DEADLINE)
    assert bench.record(busy).state is State.RUNNING
    assert result_of(bench, busy) == 1


def test_any_number_of_workers_serve_one_queue(bench: Bench, start_worker: StartWorker, tmp_path: Path) -> None:
    workers = [start_worker(concurrency=1, ready=False) for _ in range(3)]
    for worker in workers:
        worker.says("is ready")
    runs = [bench.submit(meet, {"directory": str(tmp_path), "others": 3}) for _ in range(3)]
    assert len({result_of(bench, run_id) for run_id in runs}) == 3
    more = [bench.submit(add, {"a": number}) for number in range(30)]
    assert [result_of(bench, run_id) for run_id in more] == [number + 1 for number in range(30)]
    assert {bench.record(run_id).attempt for run_id in more} == {1}


def test_celery_commands_work(bench: Bench, start_worker: StartWorker, server_url: str) -> None:
    celery = ("-m", "celery", "-A", "workers.app")
    worker = start_worker(command=(*celery, "worker", "-Q", "local:blue", "--loglevel=INFO"))
    environ = {**os.environ, "DISPATCHER__URL": server_url, "PYTHONPATH": str(ROOT)}
    ping = subprocess.run(
        [PYTHON, *celery, "inspect", "ping"], env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert "pong" in ping.stdout, ping.stdout + ping.stderr
    blue = bench.submit(add, {"a": 1}, environment=LocalEnvironment(labels=["blue"]))
    other = bench.submit(add, {"a": 1})
    assert result_of(bench, blue) == 2
    assert bench.record(other).state is State.QUEUED
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0


def test_remote_control_changes_queues(bench: Bench, start_worker: StartWorker) -> None:
    from dispatcher.broker.celery_app import make_app

    start_worker()
    control = make_app(bench.settings, bench.records.instance).control
    answers = control.add_consumer("local:blue", reply=True)
    assert [list(answer.values()) for answer in answers] == [[{"ok": "add consumer local:blue"}]]
    assert result_of(bench, bench.submit(add, {"a": 1}, environment=LocalEnvironment(labels=["blue"]))) == 2
    [queues] = control.inspect().active_queues().values()
    assert {queue["name"] for queue in queues} == {"local", "local:blue", "remote"}
    control.cancel_consumer("local:blue", reply=True)
    left = bench.submit(add, {"a": 1}, environment=LocalEnvironment(labels=["blue"]))
    assert result_of(bench, bench.submit(add, {"a": 2})) == 3
    assert bench.record(left).state is State.QUEUED


def test_a_server_that_dies_and_returns_loses_no_run(
    bench: Bench, start_worker: StartWorker, server: Server, tmp_path: Path
) -> None:
    worker = start_worker()
    running = [bench.submit(note, {"path": str(tmp_path / name), "seconds": 2.0}) for name in "ab"]
    waiting = bench.submit(add, {"a": 1})
    for run_id in running:
        bench.until(run_id, lambda record: record.state is State.RUNNING, "the start")
    server.kill()
    time.sleep(3.0)  # longer than the flows still run
    server.start()
    assert [result_of(bench, run_id, timeout=60) for run_id in running] == [1, 1]
    assert result_of(bench, waiting, timeout=60) == 2
    assert worker.process.poll() is None
    assert [bench.record(run_id).attempt for run_id in running] == [1, 1]


def test_output_is_readable(bench: Bench, start_worker: StartWorker) -> None:
    worker = start_worker(labels=["gpu"])
    result_of(bench, bench.submit(add, {"a": 1}, environment=LocalEnvironment(labels=["gpu"])))
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert "Traceback" not in worker.output
    assert "secret" not in worker.output
    assert "adding 1" not in worker.output
    assert all(line.split()[2] in {"INFO", "WARNING"} for line in worker.output.splitlines())


def test_a_key_file_that_others_may_write_is_refused_at_once(server_url: str, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text('{"a": "a secret of sixteen bytes"}')
    path.chmod(0o666)
    ours = {"DISPATCHER__URL": server_url, "DISPATCHER__SIGNING_KEYS_FILE": str(path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [PYTHON, "-m", "workers"], cwd=tmp_path, env={**os.environ, **ours}, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"{path} (mode 0666" in done.stderr
    assert f"chmod 600 {path}" in done.stderr


def test_a_missing_key_is_said_at_once(server_url: str, tmp_path: Path) -> None:
    worker = Worker(server_url, tmp_path, environ={"DISPATCHER__SIGNING_KEYS": ""})
    try:
        assert worker.wait() == 2
        assert "keygen" in worker.output or "SIGNING_KEYS" in worker.output
    finally:
        worker.end()
