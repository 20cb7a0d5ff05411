"""Every failpoint x kind of end x backend, many cases at once on one server and one crew of workers.

First a rehearsal: each scenario on each backend, unarmed; it shows which failpoints stand on whose path, and in which
process. Then one run per case, with an arm of its own. Cases disturb each other, which is meant: whatever one case
kills or freezes, the runs of the others must get through as well.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backends.fake import FakeEnvironment
from dispatcher import LocalEnvironment, RemoteEnvironment
from dispatcher.environment import Environment
from dispatcher.records.base import Records
from dispatcher.records.redis import open_redis
from dispatcher.runs import indexes, transitions
from dispatcher.runs.retry import Retry
from dispatcher.runs.states import Cause
from tests.chaos import checker
from tests.chaos.crew import TIMING, Crew
from tests.chaos.flows import callbacks, marked, read_marks
from tests.integration.workers import Bench
from tests.waiting import wait_until

BACKENDS = ("local", "remote", "fake")

#: Ways a run may go, cheapest first; a failpoint's cases use the first that passes it.
SCENARIOS = ("plain", "raises", "dies", "cancelled", "unrung", "brief", "lost")

#: Cases under way at once: enough to disturb each other, and not so many that no worker lives for a lease's length.
ABREAST = 12
ABREAST_CONTAINERS = 5

#: How often a case is played again if another one's fault kept its run from its failpoint.
ROUNDS = 4

KINDS = ("kill", "raise", "freeze", "reply_lost")

#: Longer than a lease and a look for ended ones.
FROZEN = TIMING["lease"] + 4 * TIMING["lease_tick"]

#: Repeats whatever may hit an attempt here, so that each run comes to its failpoint and then to its end.
AGAIN = Retry(60, delay=0.1, backoff=1, on=set(Cause) - {Cause.CANCELLED, Cause.DEADLINE, Cause.CONFIG_ERROR})


@dataclass(frozen=True)
class Passing:
    """A failpoint on the path of a scenario; ``where`` is pool, worker or container."""

    name: str
    where: str
    backend: str
    scenario: str


@dataclass
class Case:
    """One arm, the run that it is for, and what was wrong afterwards."""

    name: str
    kind: str
    arm: str
    backend: str
    scenario: str
    runs: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def lay(file: Path, arm: str) -> None:
    """Lay an arm, so that nobody sees half of it."""
    draft = file.parent / f".{file.name}"
    draft.write_text(arm)
    draft.rename(file)


def arms(kind: str, where: str) -> tuple[str, ...]:
    """What a kind of end means in a process; a pool process dies alone, or with its worker."""
    match kind, where:
        case "kill", "pool":
            return ("exit137", "worker137")
        case "kill", _:
            return ("exit137",)
        case "freeze", "pool":
            return (f"worker_freeze:{FROZEN:.2f}",)
        case "freeze", _:
            return (f"freeze:{FROZEN:.2f}",)
    return (kind,)


class Matrix:
    """A server, a crew and a folder of arms."""

    def __init__(self, url: str, folder: Path, *, workers: int = 3, broker_url: str | None = None) -> None:
        self.folder = folder
        self.arms = folder / "arms"
        self.service = folder / "service"
        for one in (self.arms / "fired", self.service):
            one.mkdir(parents=True)
        self.bench = Bench(url, timing=TIMING, broker_url=broker_url)
        self.unrung = open_redis(url)  # its submits ring no doorbell
        environ = {"DISPATCHER__FAILPOINT": str(self.arms)}
        if broker_url is not None:
            environ["DISPATCHER__BROKER_URL"] = broker_url
        self.crew = Crew(url, folder, count=workers, backends=list(BACKENDS), environ=environ)
        self.runs: list[str] = []
        self.brief: list[str] = []  #: runs past their retention as soon as they end
        self.wrong: list[str] = []  #: of the service, and of runs that belong to no case
        self._rehearsed: dict[str, tuple[str, str]] = {}
        self._cancel: set[str] = set()
        self._over: set[str] = set()

    @property
    def records(self) -> Records:
        """Where the runs are kept."""
        return self.bench.records

    def submit(self, backend: str, scenario: str, *, arm: tuple[str, str] | None = None) -> str:
        """Submit a run that goes a scenario's way, its arm laid beforehand."""
        way = {"cancelled": "waits", "unrung": "plain", "brief": "plain"}.get(scenario, scenario)
        if way == "lost" and backend == "fake":  # a container's parent is its node, not a worker
            way = "plain"
        options: dict[str, Any] = {"result_ttl": 0.1} if scenario == "brief" else {}
        record = self.bench.prepare(
            marked,
            {"folder": str(self.folder), "way": way},
            environment=self._environment(backend),
            retries=AGAIN,
            **options,
        )
        self._before(record.id, arm, lost=scenario == "lost" and backend == "fake")
        records = self.unrung if scenario == "unrung" else self.records
        records.runs.create([record])
        if scenario == "cancelled":
            self._cancel.add(record.id)
        (self.brief if scenario == "brief" else self.runs).append(record.id)
        return record.id

    def _before(self, run_id: str, arm: tuple[str, str] | None, *, lost: bool) -> None:
        """Before the run can be seen by any worker."""
        if lost:  # the worker dies while it still answers for the run
            lay(self.arms / f"provision.intended+{run_id}", "worker137")
        if arm is not None:
            lay(self.arms / f"{arm[0]}+{run_id}", arm[1])

    def _environment(self, backend: str) -> Environment:
        given: dict[str, Any] = callbacks(self.folder)
        match backend:
            case "local":
                return LocalEnvironment(**given)
            case "remote":
                return RemoteEnvironment(**given)
        return FakeEnvironment(self.service, **given)

    def look(self) -> list[str]:
        """One look at all runs, cancelling what is to be cancelled; those that are open."""
        started = {mark.run for mark in read_marks(self.folder) if mark.what == "flow"} & self._cancel
        for run_id in started:
            self.records.runs.update(run_id, transitions.request_cancel)
            self._cancel.discard(run_id)
        asked = [run_id for run_id in self.runs if run_id not in self._over]
        found = self.records.runs.get_many(asked)
        left = [run_id for run_id, one in zip(asked, found, strict=True) if one is None or not one.terminal]
        self._over |= set(asked) - set(left)
        return left

    def drained(self, *, timeout: float) -> list[str]:
        """Wait until all runs ended and all infrastructure is gone; those that are still open then."""
        end = time.monotonic() + timeout
        while (left := self.look()) and time.monotonic() < end:
            time.sleep(0.3)
        if not left:
            wait_until(
                lambda: not self.records.runs.count(indexes.teardown("fake")) and not list(self.service.glob("*.json")),
                "an empty service",
                timeout=60,
            )
        return left

    def passings(self) -> Iterator[Passing]:
        """What the rehearsal came by, for each failpoint and backend in its cheapest scenario."""
        best: dict[tuple[str, str, str], tuple[int, Passing]] = {}
        for line in (self.arms / "passed.jsonl").read_text().splitlines():
            one = json.loads(line)
            where = self._where(one)
            backend, scenario = self._rehearsed.get(one["run"], ("", "any"))
            rank = SCENARIOS.index(scenario) if backend else 0
            key = (one["name"], where, backend)
            if key not in best or rank < best[key][0]:
                best[key] = rank, Passing(one["name"], where, backend, scenario)
        return (passing for _, passing in best.values())

    def _where(self, line: dict[str, Any]) -> str:
        if line["pid"] in self.crew.pids:
            return "worker"
        return "pool" if line["parent"] in self.crew.pids or not line["name"].startswith("container") else "container"

    def rehearse(self, backends: Sequence[str] = BACKENDS, *, timeout: float = 60.0) -> None:
        """Every scenario on every backend, unarmed; the one that kills workers last, not to disturb the others."""
        for scenarios in (SCENARIOS[:-1], SCENARIOS[-1:]):
            for backend in backends:
                self._rehearsed |= {self.submit(backend, scenario): (backend, scenario) for scenario in scenarios}
            left = self.drained(timeout=timeout)
            assert not left, f"a run of the rehearsal does not end: {[self._rehearsed[run_id] for run_id in left]}"

    def cases(self, passings: Iterable[Passing], *, long: bool) -> list[Case]:
        """The cases of what was passed. The remote backend shares the local one's path: one kind stands for it."""
        found = []
        for passing in sorted(passings, key=lambda one: (one.name, one.backend)):
            for kind in KINDS:
                if passing.backend == "remote" and kind != "kill" and not long:
                    continue
                for arm in arms(kind, passing.where):
                    found.append(Case(passing.name, kind, arm, passing.backend, passing.scenario))
        return found

    def play(self, cases: Sequence[Case], *, timeout: float) -> None:
        """Run all cases, those again whose failpoint was not reached, and judge each."""
        end = time.monotonic() + timeout
        todo = list(cases)
        for _ in range(ROUNDS):
            self._play_with_runs([case for case in todo if case.backend], end=end)
            self._play_without_runs([case for case in todo if not case.backend], end=end)
            left = self.drained(timeout=max(end - time.monotonic(), 1.0))
            todo = [case for case in todo if not self._fired(case)]
            if not todo or left:
                break
        self._judge(cases, left)

    def _play_with_runs(self, cases: list[Case], *, end: float) -> None:
        """A run per case, a few of them abreast, mixed but in the same order each time."""
        waiting = random.Random(1).sample(cases, len(cases))
        while waiting and time.monotonic() < end:
            under_way = set(self.look())
            containers = sum(case.backend == "fake" and bool(under_way & set(case.runs[-1:])) for case in cases)
            for case in list(waiting):
                if len(under_way) >= ABREAST:
                    break
                if case.backend == "fake":
                    if containers >= ABREAST_CONTAINERS:
                        continue
                    containers += 1
                case.runs.append(self.submit(case.backend, case.scenario, arm=(case.name, case.arm)))
                under_way.add(case.runs[-1])
                waiting.remove(case)
            time.sleep(0.1)

    def _play_without_runs(self, cases: list[Case], *, end: float) -> None:
        """Arms that any process may fire, one at a time per name; what passes them is provoked where it is rare."""
        waiting = list(cases)
        laid: dict[str, Case] = {}
        provoked = 0.0
        while (waiting or laid) and time.monotonic() < end:
            laid = {name: case for name, case in laid.items() if (self.arms / name).exists()}
            for case in list(waiting):
                if case.name not in laid:
                    lay(self.arms / case.name, case.arm)
                    laid[case.name] = case
                    waiting.remove(case)
            if time.monotonic() - provoked > 2.0:
                provoked = time.monotonic()
                self.submit("local", "brief")
                if "inbox.dropped" in laid:
                    self.submit("fake", "plain")
                if "lease.removed" in laid:
                    self.submit("local", "lost")
            self.look()
            time.sleep(0.2)
        for name in laid:
            (self.arms / name).unlink(missing_ok=True)

    def _judge(self, cases: Sequence[Case], left: list[str]) -> None:
        """Note what is wrong with each case, and what is wrong beside them."""
        wrong = checker.check(self.records, self.bench.keys, self.runs, read_marks(self.folder))
        for case in cases:
            if not self._fired(case):
                case.wrong.append("its failpoint was not reached")
            for run_id in case.runs:
                case.wrong += wrong.pop(run_id, [])
                case.wrong += ["its run was still open at the end"] if run_id in left else []
        self.wrong = [f"run {run_id}: {one}" for run_id, found in wrong.items() for one in found]
        self.wrong += checker.wrong_in_service(self.service, self.records, self.runs, ignored=self.brief)

    def _fired(self, case: Case) -> bool:
        """Whether its arm moved as it fired: of one of its runs, or any of its name with this arm."""
        names = [f"{case.name}+{run_id}.*" for run_id in case.runs] or [f"{case.name}.*"]
        files = [file for name in names for file in (self.arms / "fired").glob(name)]
        return any(file.read_text() == case.arm for file in files)

    def close(self) -> None:
        """Close the connections; what is left in the service ends by itself."""
        for file in self.service.glob("*.json"):
            file.with_suffix(".deleted").touch()
        self.unrung.close()
        self.bench.close()
