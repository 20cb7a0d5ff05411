"""Every failpoint x kind of end x backend, many cases at once on one server and one crew of workers.

First a rehearsal: each scenario on each backend, unarmed; it shows which failpoints stand on whose path, and in which
process. Then one run per case, with an arm of its own. Cases disturb each other, which is meant: whatever one case
kills or freezes, the runs of the others must get through as well.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
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
SCENARIOS = ("plain", "raises", "dies", "cancelled", "unrung", "lost", "brief")

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
    run_id: str = ""
    fired: bool = False
    wrong: list[str] = field(default_factory=list)

    @property
    def file(self) -> str:
        """The arm's name: of a run, or of all processes where no run is at hand."""
        return f"{self.name}+{self.run_id}" if self.run_id else self.name


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

    def __init__(self, url: str, folder: Path, *, workers: int = 3) -> None:
        self.folder = folder
        self.arms = folder / "arms"
        self.service = folder / "service"
        for one in (self.arms / "fired", self.service):
            one.mkdir(parents=True)
        self.bench = Bench(url, timing=TIMING)
        self.unrung = open_redis(url)  # its submits ring no doorbell
        self.url = url
        self.crew = Crew(
            url,
            folder,
            count=workers,
            backends=list(BACKENDS),
            environ={"DISPATCHER__FAILPOINT": str(self.arms)},
        )
        self.runs: list[str] = []
        self._cancel: set[str] = set()

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
        if scenario != "brief":
            self.runs.append(record.id)
        return record.id

    def _before(self, run_id: str, arm: tuple[str, str] | None, *, lost: bool) -> None:
        """Before the run can be seen by any worker."""
        if lost:  # the worker dies while it still answers for the run
            (self.arms / f"provision.intended+{run_id}").write_text("worker137")
        if arm is not None:
            (self.arms / f"{arm[0]}+{run_id}").write_text(arm[1])

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
        found = self.records.runs.get_many(self.runs)
        return [run_id for run_id, one in zip(self.runs, found, strict=True) if one is None or not one.terminal]

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

    def rehearse(self, *, timeout: float = 60.0) -> None:
        """Every scenario on every backend, unarmed."""
        self._rehearsed = {
            self.submit(backend, scenario): (backend, scenario) for backend in BACKENDS for scenario in SCENARIOS
        }
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

    def play(self, cases: Iterable[Case], *, timeout: float) -> None:
        """Run all cases, and judge each."""
        cases = list(cases)
        for case in cases:
            if case.backend:
                case.run_id = self.submit(case.backend, case.scenario, arm=(case.name, case.arm))
        self._play_without_runs([case for case in cases if not case.backend], timeout=timeout)
        left = self.drained(timeout=timeout)
        self.judge(cases, left)

    def _play_without_runs(self, cases: list[Case], *, timeout: float) -> None:
        """Arms that any process may fire, one at a time per name; what passes them is provoked where it is rare."""
        end = time.monotonic() + timeout
        waiting = list(cases)
        laid: dict[str, Case] = {}
        provoked = 0.0
        while (waiting or laid) and time.monotonic() < end:
            for name in [name for name in laid if not (self.arms / name).exists()]:
                del laid[name]
            for case in [case for case in waiting if case.name not in laid]:
                (self.arms / case.name).write_text(case.arm)
                laid[case.name] = case
                waiting.remove(case)
            if time.monotonic() - provoked > 2.0:
                provoked = time.monotonic()
                self.submit("local", "brief")
                if "lease.removed" in laid:
                    self.submit("local", "lost")
            self.look()
            time.sleep(0.2)
        for name in laid:
            (self.arms / name).unlink(missing_ok=True)

    def judge(self, cases: list[Case], left: list[str]) -> None:
        """Note what is wrong with each case."""
        wrong = checker.check(self.records, self.bench.keys, self.runs, read_marks(self.folder))
        for case in cases:
            fired = self._fired(case)
            case.fired = bool(fired)
            if not fired:
                case.wrong.append("its failpoint was not reached")
            case.wrong += wrong.pop(case.run_id, [])
            if case.run_id in left:
                case.wrong.append("its run was still open at the end")
        self.others = wrong

    def _fired(self, case: Case) -> list[Path]:
        """Files that moved as the arm fired: of its run, or any of its name with this arm."""
        files = (self.arms / "fired").glob(f"{case.file}.*")
        return [file for file in files if file.read_text() == case.arm]

    def close(self) -> None:
        """Close the connection."""
        self.unrung.close()
        self.bench.close()
