"""How long it takes until things go on again, at the timings that everybody gets: nothing is made quicker here.

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
    """What a scenario measured, in seconds, and the runs by which it did."""

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

    def workers(self, count: int, **given: Any) -> list[Worker]:
        """So many more, ready."""
        found = [Worker(self.server.url, self.folder, **given) for _ in range(count)]
        for one in found:
            self._stack.callback(one.end)
        for one in found:
            one.says("is ready", timeout=AMPLE)
        return found

    def submit(self, way: str = "plain", *, seconds: float = 0.0, label: str = "", backend: str = "local") -> str:
        """Accept a run."""
        labels = [label] if label else []
        environment = FakeEnvironment(self.service) if backend == "fake" else LocalEnvironment(labels=labels)
        parameters = {"folder": str(self.folder), "way": way, "seconds": seconds}
        return self.bench.submit(marked, parameters, environment=environment, retries=AGAIN)

    def until_state(self, runs: Sequence[str], *states: State) -> list[Record]:
        """Wait until all of them are in one of some states; their records."""

        def there() -> list[Record]:
            found = [one for one in self.bench.records.runs.get_many(runs) if one is not None]
            wrong = [
                f"{one.id} is {one.state}: {one.outcome}" for one in found if one.terminal and one.state not in states
            ]
            assert not wrong, f"{wrong}\n{self._told()}"
            return found if all(one.state in states for one in found) else []

        try:
            return wait_until(there, f"{states} of {len(runs)} runs", timeout=AMPLE, every=0.1)
        except AssertionError as error:
            shown = [f"{one.id} is {one.state}, {one.owner}" for one in self.bench.records.runs.get_many(runs) if one]
            raise AssertionError(f"{error}\nin {self.folder.name}: {shown}\n{self._told()}") from error

    def _told(self) -> str:
        """What the workers printed."""
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
        for one in lost:
            one.send(signal.SIGKILL)
            killed[one.process.pid] = time.time()
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
        return Recovered(samples=[(one.ended_at or 0.0) - killed for one in records], runs=records)


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
        return Recovered(samples=[one.rung_at - one.created_at for one in records], runs=records)


def short_outages(folder: Path, *, outages: Sequence[float]) -> Recovered:
    """Outages of up to five seconds; until each worker has started a run that was submitted as the server was back."""
    with place(folder, "s") as here:
        here.workers(1, labels=["a"], concurrency=1)
        here.workers(1, labels=["b"], concurrency=1)
        samples, found = [], []
        for seconds in outages:
            back = here.outage(seconds)
            runs = [here.submit(label=label) for label in ("a", "b")]
            records = here.until_state(runs, State.SUCCEEDED)
            samples += [(one.started_at or 0.0) - back for one in records]
            found += records
        return Recovered(samples=samples, runs=found)


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
        return Recovered(samples=[(one.started_at or 0.0) - back for one in records], runs=healthy)
