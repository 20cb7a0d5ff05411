"""Flows that run on Dask clusters in pods. Events are counted in a database of the tests, apart from the records."""

from __future__ import annotations

from typing import Any

from dispatcher import context, flow, gather, task
from tests.cloud.flows import count


def _count_task(ledger: str, key: str) -> int:
    """Count an event of a task; return how often it has been counted."""
    import redis

    with redis.Redis.from_url(ledger) as server:
        return int(server.incr(key))


def _worker() -> str:
    from distributed import get_worker

    return str(get_worker().name)


def _ledger() -> str:
    import os

    return os.environ["LEDGER"]


@flow
def array_sum(size: int) -> dict[str, Any]:
    """Sum an array in chunks on the workers; return the sum, and the workers' names."""
    import dask.array as da
    from distributed import default_client

    count("ran")
    array = da.arange(size, chunks=size // 40)
    workers = [str(worker["name"]) for worker in default_client().scheduler_info(n_workers=-1)["workers"].values()]
    return {"sum": int((array * array).sum().compute()), "workers": sorted(workers)}


@task
def pause(number: int, seconds: float, ledger: str, key: str) -> tuple[int, str]:
    """Sleep; return the number and the worker's name. Every execution is counted."""
    import time

    _count_task(ledger, f"{key}:{number}")
    time.sleep(seconds)
    return number, _worker()


@flow
def pauses(tasks: int, seconds: float, hold: float = 0.0) -> dict[str, int]:
    """Run tasks that sleep, then hold; return how many ran on each worker."""
    import time
    from collections import Counter

    count("ran")
    futures = pause.map(range(tasks), seconds=seconds, ledger=_ledger(), key=f"{context.run_id}:task")
    workers = Counter(worker for _, worker in gather(futures))
    del futures  # a worker with a result that is still needed stays
    count("computed")
    time.sleep(hold)
    return dict(workers)


@task
def kill_worker_once(number: int, ledger: str, key: str) -> int:
    """End the worker's process in the first execution, as a failure of its node would."""
    import os
    import time

    first = _count_task(ledger, f"{key}:{number}") == 1
    time.sleep(0.3)
    if number == 7 and first:
        os._exit(3)
    return number


@flow
def lose_worker(tasks: int) -> int:
    """Lose a worker in the middle of some tasks; return their sum."""
    count("ran")
    futures = kill_worker_once.map(range(tasks), ledger=_ledger(), key=f"{context.run_id}:task")
    return sum(gather(futures))


@task
def exhaust(megabytes: int) -> int:
    """Allocate so much memory."""
    blocks = [bytearray(b"x" * 2**20) for _ in range(megabytes)]
    return len(blocks)


@flow
def exhaust_worker(megabytes: int) -> int:
    """Run a task that takes more memory than a worker has."""
    count("ran")
    return int(exhaust.submit(megabytes).result())


@flow
def hold(seconds: float) -> str:
    """Hold a cluster."""
    import time

    count("ran")
    time.sleep(seconds)
    count("held")
    return "held"


@flow
def hold_with_tasks(tasks: int, seconds: float) -> int:
    """Hold a cluster whose workers compute."""
    count("ran")
    futures = pause.map(range(tasks), seconds=seconds, ledger=_ledger(), key=f"{context.run_id}:task")
    return len(gather(futures))


@flow
def prefer_one_worker(tasks: int) -> int:
    """Run tasks that prefer one of two workers; return how many ran there."""
    import time

    from distributed import default_client

    def place(number: int) -> str:
        time.sleep(0.1)
        return _worker()

    client = default_client()
    client.wait_for_workers(2, timeout=60)
    addresses = sorted(client.scheduler_info(n_workers=-1)["workers"])
    (first,) = client.run(lambda dask_worker: str(dask_worker.name), workers=addresses[:1]).values()
    futures = client.map(place, range(tasks), workers=addresses[:1], allow_other_workers=True, pure=False)
    return sum(worker == first for worker in client.gather(futures))


@task
def say(number: int) -> int:
    """Log and print on the worker."""
    import logging

    from distributed import print as dask_print

    logging.getLogger("lines").warning("task %s logs", number)
    dask_print(f"task {number} prints")
    return number


@flow
def talk() -> int:
    """Run a task that logs and prints."""
    count("ran")
    return int(say.submit(4).result())


@flow
def whoami() -> dict[str, Any]:
    """Return what flow and worker can see of their pods."""
    return {"flow": _look(), "worker": look.submit().result()}


@task
def look() -> dict[str, Any]:
    """Return what a worker can see of its pod."""
    return _look()


def _look() -> dict[str, Any]:
    import os
    from pathlib import Path

    words = ("KEY", "SEAL", "TOKEN", "URL", "PASSWORD")
    own = {name for name in os.environ if name.startswith("DISPATCHER__")}
    paths = {"DISPATCHER__RUN__TLS_KEY"}
    try:
        Path("/written").write_text("")
        writable = True
    except OSError:
        writable = False
    return {
        "uid": os.getuid(),
        "token": Path("/var/run/secrets/kubernetes.io").exists(),
        "secrets": sorted(name for name in own - paths if any(word in name for word in words)),
        "ours": sorted(own),
        "root is writable": writable,
        "greeting": os.environ.get("GREETING"),
    }
