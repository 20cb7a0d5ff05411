"""A supervisor with records in this process, and a backend whose observations a test sets."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from backends.base import Backend, Changed, Found, Handle, Observation, Phase, Request, WorkerState
from backends.fake_workers import FakeWorkers, play
from dispatcher.records.base import Records
from dispatcher.records.memory import open_memory
from dispatcher.runner.container.report import Report, ReportKind
from dispatcher.runs import transitions
from dispatcher.runs.attempt import Attempt, shard_of
from dispatcher.runs.cluster import WorkerReport
from dispatcher.runs.outcome import ExitCall, Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.routing import Route
from dispatcher.serialization import KeyRing
from dispatcher.settings import Settings
from tests.unit.making import make_record, sign
from tests.waiting import wait_until
from workers.execution.provisioning import Provisioner
from workers.supervisor.supervisor import Supervisor


class ScriptedBackend(Backend):
    """Gives the observations that a test sets, and counts its calls."""

    name: ClassVar[str] = "scripted"

    def __init__(self, settings: Settings | None = None) -> None:
        self.observations: dict[str, Observation] = {}
        self.polled = 0
        self.submits: list[str] = []
        self.errors: list[Exception] = []
        self.cancelled: set[str] = set()
        self.discarded: list[tuple[str, bool]] = []
        self.listed: list[Found] = []
        self.restored: list[tuple[str, list[str]]] = []
        self.block: threading.Event | None = None
        self.drop = False  #: poll leaves out what it has no observation of
        self.changed: Changed = lambda key, run_id: None

    def prepare(self, attempt: Attempt) -> Request:
        return {"name": attempt.name, "filler": "x" * 4000}

    def submit(self, request: Request, secrets: Mapping[str, str]) -> Handle:
        if self.block is not None:
            self.block.wait(30)
        self.submits.append(str(request["name"]))
        if self.errors:
            raise self.errors.pop()
        return {"name": request["name"]}

    def poll(self, handles: Sequence[Handle]) -> list[Observation]:
        self.polled += len(handles)
        answers = [self.observations.get(str(handle["name"]), Observation(phase=Phase.RUNNING)) for handle in handles]
        return [item for item in answers if item is not None] if self.drop else answers

    def restore(self, handle: Handle, secrets: Mapping[str, str]) -> None:
        self.restored.append((str(handle["name"]), sorted(secrets)))

    def cancel(self, handle: Handle | None, request: Request | None) -> bool:
        self.cancelled.add(str((handle or request or {})["name"]))
        return True

    def discard(self, handle: Handle | None, request: Request | None, *, claimed: bool) -> bool:
        self.discarded.append((str((handle or request or {})["name"]), claimed))
        return self.cancel(handle, request)

    def watch(self, changed: Changed, instance: str) -> None:
        self.changed = changed

    def key(self, handle: Handle) -> str:
        return str(handle["name"])

    def orphans(self, instance: str) -> list[Found]:
        return self.listed


class ScaledBackend(FakeWorkers, ScriptedBackend):
    """Has workers in a folder, whose states a test sets; see :mod:`backends.fake_workers`.

    Args:
        directory: the folder.
        least: workers with which an attempt starts.
        most: workers that may live at a time; 0: none.
        play: the state in which each is created.
    """

    def __init__(self, directory: Path, least: int = 1, most: int = 2, play: str = "run") -> None:
        super().__init__()
        self.directory = directory
        self.bounds = {"min": least, "max": most, "play": play}
        self.most_alive = 0

    def prepare(self, attempt: Attempt) -> Request:
        return {**super().prepare(attempt), "workers": self.bounds}

    def submit(self, request: Request, secrets: Mapping[str, str]) -> Handle:
        handle = super().submit(request, secrets)
        (self.directory / f"{handle['name']}.json").touch()
        return {**handle, "directory": str(self.directory), "uid": f"uid of {handle['name']}"}

    def create_workers(self, handle: Handle, request: Request, names: Sequence[str]) -> None:
        super().create_workers(handle, request, names)
        self.most_alive = max(self.most_alive, sum(alive(state) for state in self.workers(handle)))

    def play(self, name: str, state: str, *, log: Sequence[str] = (), container: str = "") -> None:
        """Let a worker of the only attempt be in another state; then the watch reports a change."""
        containers = [container] if container else [file.stem for file in self.directory.glob("*.json")]
        play(self.directory, containers[-1], name, state, log=log)
        self.changed(containers[-1], "")


def alive(state: WorkerState) -> bool:
    """Return True if a worker hasn't ended."""
    return state.observation.phase not in {Phase.ENDED, Phase.GONE}


class CountingRuns:
    """Counts the records that are read; passes everything on."""

    def __init__(self, runs: Any) -> None:
        self._runs = runs
        self.read = 0
        self.largest = 0  #: the most records read at once
        self.after_reading: Callable[[], object] = lambda: None

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._runs, name)
        if not callable(attribute):
            return attribute

        def call(*arguments: Any, **keywords: Any) -> Any:
            if name == "get_many":
                self.read += len(arguments[0])
                self.largest = max(self.largest, len(arguments[0]))
            try:
                return attribute(*arguments, **keywords)
            finally:
                if name == "get_many":
                    self.after_reading()

        return call


class Scene:
    """A supervisor with its backend.

    Args:
        backend: a backend with more powers than the plain one.
        clock: the server's.
        timing: settings.
    """

    def __init__(
        self, backend: ScriptedBackend | None = None, *, clock: Callable[[], float] = time.time, **timing: float
    ) -> None:
        settings = Settings.load(
            url="redis://nowhere", signing_keys=json.dumps({"k": "a secret of these tests"}), timing=timing
        )
        records = open_memory(clock=clock)
        self.counting = CountingRuns(records.runs)
        self.records: Records = replace(records, runs=self.counting)  # type: ignore[arg-type]
        self.backend = backend or ScriptedBackend()
        self.keys = KeyRing.from_settings(settings)
        self._runs = records.runs
        self.verify_with(self.keys)
        self.woken = threading.Event()
        self.provisioner = Provisioner(
            records=self.records, keys=self.keys, settings=settings, backend=lambda name: self.backend, owner="w1"
        )
        self.supervisor = Supervisor(self.provisioner, self.backend, self.woken.set)

    def verify_with(self, keys: KeyRing) -> None:
        """Have signatures checked with these keys."""
        self._runs.check, self._runs.knows = keys.check, keys.knows

    def submit(self, run_id: str, *, key_id: str = "k", keys: KeyRing | None = None, **options: Any) -> Record:
        record = sign(make_record(run_id, key_id=key_id, route=Route("scripted"), **options), keys or self.keys)
        (stored,) = self.records.runs.create([record])
        return stored

    def provisioned(self, run_id: str, **options: Any) -> Record:
        self.submit(run_id, **options)
        return self.provisioner.provision(run_id)

    def running(self, run_id: str, **options: Any) -> Record:
        self.provisioned(run_id, **options)
        return self.update(run_id, partial(transitions.claim_attempt, attempt=1, holder="pod"))

    def update(self, run_id: str, step: Any) -> Record:
        return self.records.runs.update(run_id, step)

    def record(self, run_id: str) -> Record:
        return self.records.runs.get(run_id)[0]

    def round(self) -> None:
        self.supervisor.round(["w1"], ())

    def until(self, check: Callable[[], object], awaited: str) -> None:
        """Run rounds until ``check`` returns something true."""

        def ticked() -> object:
            self.round()
            return check()

        wait_until(ticked, awaited)

    def report(
        self,
        record: Record,
        about: ReportKind,
        outcome: Outcome | None = None,
        exit_call: ExitCall | None = None,
        workers: WorkerReport | None = None,
    ) -> None:
        assert record.request is not None
        token = self.keys.token(record.id, 1, record.request["epoch"])
        report = Report(
            run_id=record.id,
            attempt=record.attempt,
            kind=about,
            outcome=outcome or Outcome(),
            exit_call=exit_call,
            holder="pod" if about is ReportKind.CLAIMED else "",
            workers=workers,
        )
        self.records.inbox.report(shard_of("scripted", record.id), report.to_entry(token))
