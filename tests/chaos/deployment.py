"""Deployment for the fault matrix: a server behind a proxy, a group of workers, and a check of the invariants."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from backends.fake import SERVICES
from dispatcher.environments.base import Environment
from dispatcher.records.redis import open_redis
from dispatcher.runs import indexes, transitions
from dispatcher.runs.record import Record
from dispatcher.runs.retry import Retry
from dispatcher.runs.states import Cause
from tests.chaos import checker
from tests.chaos.environments import environment_of
from tests.chaos.flows import marked, read_marks
from tests.chaos.proxy import Proxy
from tests.chaos.worker_group import TIMING, WorkerGroup
from tests.integration.workers import Bench
from tests.waiting import wait_until

#: Repeats what a fault may do to an attempt, and nothing that the flow does.
AGAIN = Retry(20, delay=0.1, backoff=1, on={Cause.WORKER_LOST, Cause.KILLED, Cause.PREEMPTED, Cause.RESULT_MISSING})


class Deployment:
    """Submits runs to a server that it reaches directly, for workers that reach it by a proxy.

    Args:
        url: the server's Unix socket.
        port: its loopback port.
        folder: for all that is written.
        workers: how many; 0 for none.
        group: their settings.
    """

    def __init__(self, url: str, port: int, folder: Path, *, workers: int = 2, **group: Any) -> None:
        self.folder = folder
        self.service = folder / "service"
        self.service.mkdir()
        self.arms = folder / "arms"
        (self.arms / "fired").mkdir(parents=True)
        self.url = url
        self.proxy = Proxy("127.0.0.1", port)
        self.bench = Bench(url, timing=TIMING)
        self.runs: list[str] = []
        self.others: list[str] = []  #: of flows that give something else back than their attempt's number
        self.group: WorkerGroup | None = None
        self._workers = workers
        environ = {"DISPATCHER__FAILPOINT": str(self.arms), SERVICES: str(self.service), **group.pop("environ", {})}
        self._given = {"environ": environ, **group}

    def __enter__(self) -> Deployment:
        self.proxy.__enter__()
        if self._workers:
            self.group = WorkerGroup(self.proxy.url(), self.folder, count=self._workers, **self._given)
            self.group.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.group is not None:
            self.proxy.heal()
            self.group.__exit__(None, None, None)
            print(self.group.output[-20000:])  # noqa: T201 - pytest shows it where a test failed
        for file in self.service.glob("*.json"):
            file.with_suffix(".deleted").touch()
        self.bench.close()
        self.proxy.__exit__(None, None, None)

    def submit(self, count: int = 1, *, seconds: float = 0.0, backend: str = "local", **more: Any) -> list[str]:
        """Accept so many runs; their ids."""
        way = more.pop("way", "plain")
        runs = []
        for _ in range(count):
            parameters = {"folder": str(self.folder), "way": way, "seconds": seconds}
            options = {"retries": AGAIN, **more}
            runs.append(self.bench.submit(marked, parameters, environment=self.environment(backend), **options))
        self.runs += runs
        return runs

    def armed(self, name: str, kind: str, *, backend: str = "local", way: str = "plain", **more: Any) -> str:
        """Accept a run for which a failpoint is armed (:mod:`dispatcher.support.failpoints`); its id."""
        parameters = {"folder": str(self.folder), "way": way}
        options = {"retries": AGAIN, **more}
        record = self.bench.prepare(marked, parameters, environment=self.environment(backend), **options)
        (self.arms / f".{record.id}").write_text(kind)
        (self.arms / f".{record.id}").rename(self.arms / f"{name}+{record.id}")
        self.runs.append(record.id)
        self.bench.records.runs.create([record])
        return record.id

    def fired(self, run_id: str) -> bool:
        """Return True if a failpoint armed for a run was reached."""
        return any((self.arms / "fired").glob(f"*+{run_id}.*"))

    def unrung(self, backend: str = "local", *, seconds: float = 0.0) -> Record:
        """Accept a run whose doorbell nobody rings."""
        records = open_redis(self.url)
        try:
            parameters = {"folder": str(self.folder), "seconds": seconds}
            record = self.bench.prepare(marked, parameters, environment=self.environment(backend), retries=AGAIN)
            self.runs.append(record.id)
            return records.runs.create([record])[0]
        finally:
            records.close()

    def claimed(self, backend: str) -> str:
        """Accept a run and claim it for a worker that no longer lives: as one of another kind would leave it."""
        run_id = self.unrung(backend).id
        self.bench.records.runs.update(run_id, partial(transitions.claim, owner="a-worker-that-died"))
        return run_id

    def environment(self, backend: str) -> Environment:
        """Return an environment whose callbacks write marks."""
        return environment_of(backend, self.folder, self.service)

    def started(self, runs: Sequence[str], *, timeout: float = 60.0) -> None:
        """Wait until user code of all of them was started."""

        def begun() -> bool:
            return {mark.run for mark in read_marks(self.folder) if mark.step == "flow"} >= set(runs)

        wait_until(begun, "the flows' start", timeout=timeout)

    def settle(self, *, timeout: float = 60.0) -> list[Record]:
        """Wait for the end of all runs so far, and check the invariants; the records."""
        begun = time.monotonic()
        records = self.bench.records.runs

        def ended() -> bool:
            return all(record is not None and record.terminal for record in records.get_many(self.runs))

        wait_until(ended, "the end of all runs", timeout=timeout, every=0.05)
        self.took = time.monotonic() - begun
        marks = read_marks(self.folder)
        wrong = checker.check(self.bench.records, self.bench.keys, self.runs, marks)
        assert not wrong, wrong
        return [record for record in records.get_many(self.runs) if record is not None]

    def starts(self, run_id: str) -> int:
        """Return how often user code of a run was started."""
        return sum(mark.step == "flow" and mark.run == run_id for mark in read_marks(self.folder))

    def torn_down(self, *, timeout: float = 60.0) -> None:
        """Wait until nothing is left in the service, and compare its own account with the records."""
        records = self.bench.records

        def empty() -> bool:
            return not records.runs.count(indexes.teardown("fake")) and not list(self.service.glob("*.json"))

        wait_until(empty, "an empty service", timeout=timeout, every=0.1)
        wrong = checker.wrong_in_service(self.service, records, self.runs, ignored=self.others)
        assert not wrong, wrong


def passes(seconds: float) -> None:
    """Let a fault last."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > end, "the fault's time", timeout=seconds + 5)
