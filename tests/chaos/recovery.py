"""Recovery times at the default timings: seconds from a fault until work continues.

Each scenario has a server and workers of its own, so that all can wait at the same time.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backends.fake import FakeEnvironment
from dispatcher import LocalEnvironment
from dispatcher.records.redis import open_redis
from dispatcher.runs.record import Record
from dispatcher.runs.states import State
from tests.chaos.conftest import ChaosServer
from tests.chaos.flows import marked
from tests.chaos.workload import AGAIN
from tests.integration.workers import Bench, Worker
from tests.waiting import wait_until

#: Longer than any of these scenarios needs on a machine that is busy otherwise.
AMPLE = 150.0


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """The samples of a scenario, in seconds, and its runs."""

    samples: list[float]
    runs: list[Record] = field(default_factory=list)


class Place:
    """A server, its workers and runs."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.service = folder / "service"
        self.service.mkdir(parents=True)
        self.server = ChaosServer(folder)
        self._stack = stack
        stack.callback(self.server.kill)
        self.server.start()
        self.bench = Bench(self.server.url)
        stack.callback(self.bench.close)
        stack.callback(self._end_containers)

    def workers(self, count: int, **options: Any) -> list[Worker]:
        """So many more, ready."""
        workers = [Worker(self.server.url, self.folder, **options) for _ in range(count)]
        for worker in workers:
            self._stack.callback(worker.end)
        for worker in workers:
            worker.says("is ready", timeout=AMPLE)
        return workers

    def submit(self, way: str = "plain", *, seconds: float = 0.0, label: str = "", backend: str = "local") -> str:
        """Accept a run."""
        labels = [label] if label else []
        environment = FakeEnvironment(self.service) if backend == "fake" else LocalEnvironment(labels=labels)
        parameters = {"folder": str(self.folder), "way": way, "seconds": seconds}
        return self.bench.submit(marked, parameters, environment=environment, retries=AGAIN)

    def until_state(self, runs: Sequence[str], *states: State) -> list[Record]:
        """Wait until all of them are in one of some states; their records."""

        def there() -> list[Record]:
            records = [record for record in self.bench.records.runs.get_many(runs) if record is not None]
            wrong = [
                f"{record.id} is {record.state}: {record.outcome}"
                for record in records
                if record.terminal and record.state not in states
            ]
            assert not wrong, f"{wrong}\n{self._told()}"
            return records if all(record.state in states for record in records) else []

        try:
            return wait_until(there, f"{states} of {len(runs)} runs", timeout=AMPLE, every=0.1)
        except AssertionError as error:
            records = self.bench.records.runs.get_many(runs)
            shown = [f"{record.id} is {record.state}, {record.owner}" for record in records if record]
            raise AssertionError(f"{error}\nin {self.folder.name}: {shown}\n{self._told()}") from error

    def _told(self) -> str:
        """Return the workers' output."""
        return "\n".join(f"--- {log.name}\n{log.read_text()[-6000:]}" for log in self.folder.glob("worker-*.log"))

    def outage(self, seconds: float) -> float:
        """The server is away for so long; when it was back."""
        self.server.kill()
        threading.Event().wait(seconds)
        self.server.start()
        return time.time()

    def release(self) -> None:
        """Let flows that hold on go to their end."""
        (self.folder / "released").touch()

    def _end_containers(self) -> None:
        for file in self.service.glob("*.json"):
            file.with_suffix(".deleted").touch()


@contextmanager
def place(folder: Path, name: str) -> Iterator[Place]:
    """A place of its own."""
    with ExitStack() as stack:
        yield Place(folder / name, stack)


def takeovers(folder: Path, *, victims: int, each: int) -> Recovered:
    """Workers that hold runs are killed at different moments of their beat; until each run was started elsewhere."""
    with place(folder, "t") as here:
        lost = here.workers(victims, concurrency=each)
        runs = [here.submit("waits") for _ in range(victims * each)]
        here.until_state(runs, State.RUNNING)
        here.workers(1, concurrency=each)
        killed: dict[int, float] = {}
        for worker in lost:
            worker.send(signal.SIGKILL)
            killed[worker.process.pid] = time.time()
            threading.Event().wait(10 / victims)
        records = here.until_state(runs, State.SUCCEEDED)
        samples = []
        for run_id in runs:
            started = [event for event in here.bench.events(run_id) if event.kind == "started"]
            holder = int(str(started[0].data["owner"]).split("-")[-2])
            samples.append(started[1].time - killed[holder])
        return Recovered(samples=samples, runs=records)


def adoptions(folder: Path, *, count: int) -> Recovered:
    """The worker that watches containers is killed; until another one has noticed that they ended."""
    with place(folder, "a") as here:
        [lost] = here.workers(1, backends=["fake"])
        runs = [here.submit("holds", backend="fake") for _ in range(count)]
        here.until_state(runs, State.RUNNING)
        here.workers(1, backends=["fake"])
        lost.send(signal.SIGKILL)
        killed = time.time()
        here.release()
        records = here.until_state(runs, State.SUCCEEDED)
        return Recovered(samples=[(record.ended_at or 0.0) - killed for record in records], runs=records)


def rings(folder: Path, *, count: int) -> Recovered:
    """Runs whose doorbell never came to the broker; until it was rung again."""
    rng = random.Random(1)
    with place(folder, "r") as here:
        here.workers(1)
        silent = open_redis(here.server.url)
        runs = []
        try:
            for _ in range(count):
                record = here.bench.prepare(marked, {"folder": str(here.folder)}, retries=AGAIN)
                silent.runs.create([record])
                runs.append(record.id)
                threading.Event().wait(rng.uniform(0.3, 1.7))
        finally:
            silent.close()
        records = here.until_state(runs, State.SUCCEEDED)
        return Recovered(samples=[record.rung_at - record.created_at for record in records], runs=records)


def short_outages(folder: Path, *, outages: Sequence[float]) -> Recovered:
    """Outages of up to five seconds; until each worker has started a run that was submitted as the server was back."""
    with place(folder, "s") as here:
        here.workers(1, labels=["a"], concurrency=1)
        here.workers(1, labels=["b"], concurrency=1)
        samples, restarted = [], []
        for seconds in outages:
            back = here.outage(seconds)
            runs = [here.submit(label=label) for label in ("a", "b")]
            records = here.until_state(runs, State.SUCCEEDED)
            samples += [(record.started_at or 0.0) - back for record in records]
            restarted += records
        return Recovered(samples=samples, runs=restarted)


def long_outage(folder: Path, *, seconds: float) -> Recovered:
    """A longer outage, while flows run in a worker and in a container; the same, and the first three runs held on."""
    with place(folder, f"l{seconds:g}") as here:
        for label in ("a", "b"):
            here.workers(1, labels=[label], concurrency=2, backends=["local"])
        here.workers(1, backends=["fake"], concurrency=1)
        held = [here.submit("holds", label=label) for label in ("a", "b")] + [here.submit("holds", backend="fake")]
        here.until_state(held, State.RUNNING)
        back = here.outage(seconds)
        runs = [here.submit(label=label) for label in ("a", "b")]
        records = here.until_state(runs, State.SUCCEEDED)
        here.release()
        healthy = here.until_state(held, State.SUCCEEDED)
        return Recovered(samples=[(record.started_at or 0.0) - back for record in records], runs=healthy)
