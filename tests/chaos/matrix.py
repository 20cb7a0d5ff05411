"""Every failpoint x kind of end x backend, many cases at once on one server and one group of workers.

First a rehearsal: each scenario on each backend, unarmed; it shows which failpoints stand on whose path, and in which
process. Then one run per case, with an arm of its own. Cases disturb each other, which is meant: whatever one case
kills or freezes, the runs of the others must get through as well. A case whose run was kept from its failpoint by
another one's fault is played again.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import TracebackType

from dispatcher.client.subscription import Subscription
from dispatcher.records.base import Records
from dispatcher.records.redis import open_redis
from dispatcher.runs import indexes, transitions
from dispatcher.runs.retry import Retry
from dispatcher.runs.states import Cause
from tests.chaos import cases, checker
from tests.chaos.cases import BACKENDS, LEFT_OUT, SCENARIOS, Arms, Case
from tests.chaos.environments import environment_of
from tests.chaos.flows import large, marked, read_marks
from tests.chaos.worker_group import TIMING, WorkerGroup
from tests.integration.workers import Bench
from tests.waiting import wait_until

#: Workers, cases under way at once, and those of them that may stop a worker: enough to disturb each other, and not so
#: many that no worker lives for a lease's length to find the others dead.
WORKERS = 8
ABREAST = 16
HARMING = 5
CONTAINERS = 6

#: How often a case is played at most, where another one's fault keeps its run from its failpoint.
TRIES = 20

#: Seconds between two provocations of what is rare.
PROVOKED = 2.0

#: Repeats whatever may hit an attempt here, so that each run comes to its failpoint and then to its end.
AGAIN = Retry(60, delay=0.1, backoff=1, on=set(Cause) - {Cause.CANCELLED, Cause.DEADLINE, Cause.CONFIG_ERROR})

#: What a scenario lets the flow do; others are plain.
WAYS = {"raises": "raises", "dies": "dies", "vanishes": "lost", "cancelled": "lasts", "stubborn": "stubborn"}

#: The parent of a container's flow is its runner, not a worker: there, who asks for it dies, with its worker or alone.
OF_CONTAINERS = {"lost": ("provision.intended", "worker137"), "orphaned": ("provision.intended", "exit137")}


class Matrix:
    """A server, a group and a folder of arms."""

    def __init__(
        self,
        url: str,
        folder: Path,
        *,
        workers: int = WORKERS,
        broker_url: str | None = None,
        backends: Sequence[str] = BACKENDS,
    ) -> None:
        self.folder = folder
        self.arms = Arms(folder / "arms")
        self.service = folder / "service"
        self.service.mkdir()
        self.bench = Bench(url, timing=TIMING, broker_url=broker_url)
        self.unrung = open_redis(url)  # its submits ring no doorbell
        environ = {} if broker_url is None else {"DISPATCHER__BROKER_URL": broker_url}
        armed = {"DISPATCHER__FAILPOINT": str(self.arms.folder), **environ}
        self.group = WorkerGroup(url, folder, count=workers, backends=list(BACKENDS), environ=armed)
        self.runs: list[str] = []
        self.brief: list[str] = []  #: runs past their retention as soon as they end
        self.wrong: list[str] = []  #: of the service, and of runs that belong to no case
        self.recoveries: list[float] = []  #: seconds from a case's fault to the end of its run
        self._backends = backends
        self._rehearsed: dict[str, tuple[str, str]] = {}
        self._cancel: set[str] = set()
        self._over: dict[str, float] = {}  # when each run was first seen ended
        self._provoked = 0.0
        Subscription(self.records, "ledger").close()  # from here on

    def __enter__(self) -> Matrix:
        self.group.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.group.__exit__(kind, error, trace)
        for file in self.service.glob("*.json"):  # what a failed play has left ends by itself
            file.with_suffix(".deleted").touch()

    @property
    def records(self) -> Records:
        """The records of the runs."""
        return self.bench.records

    def submit(self, backend: str, scenario: str, *, arm: tuple[str, str] | None = None) -> str:
        """Submit a run that goes a scenario's way, its arm laid before any worker can see it."""
        way = "lost" if scenario == "lost" and backend != "fake" else WAYS.get(scenario, "plain")
        record = self.bench.prepare(
            large if scenario == "large" else marked,
            {"folder": str(self.folder), **({} if scenario == "large" else {"way": way})},
            environment=environment_of(backend, self.folder, self.service),
            retries=AGAIN,
            result_ttl=0.1 if scenario == "brief" else None,
        )
        if backend == "fake" and scenario in OF_CONTAINERS:
            self.arms.lay(*OF_CONTAINERS[scenario], record.id)
        if arm is not None:
            self.arms.lay(*arm, record.id)
        (self.unrung if scenario == "unrung" else self.records).runs.create([record])
        if scenario in {"cancelled", "stubborn"}:
            self._cancel.add(record.id)
        (self.brief if scenario == "brief" else self.runs).append(record.id)
        return record.id

    def look(self) -> set[str]:
        """One look at all runs, cancelling what is to be cancelled; those that are open, or not yet torn down."""
        if self._cancel:
            started = {mark.run for mark in read_marks(self.folder) if mark.step == "flow"} & self._cancel
            for run_id in started:
                self.records.runs.update(run_id, transitions.request_cancel)
                self._cancel.discard(run_id)
        asked = [run_id for run_id in self.runs if run_id not in self._over]
        records = self.records.runs.get_many(asked)
        left = {
            run_id
            for run_id, record in zip(asked, records, strict=True)
            if record is None or not record.terminal or record.leftovers
        }
        self._over |= dict.fromkeys(set(asked) - left, time.time())
        return left

    def drained(self, *, timeout: float) -> set[str]:
        """Wait until all runs ended and all infrastructure is gone; those that are still open then."""
        end = time.monotonic() + timeout
        while (left := self.look()) and time.monotonic() < end:
            time.sleep(0.1)
        if not left:
            wait_until(
                lambda: not self.records.runs.count(indexes.teardown("fake")) and not list(self.service.glob("*.json")),
                "an empty service",
                timeout=180,
            )
        return left

    def rehearse(self, names: Collection[str], *, timeout: float = 180.0) -> None:
        """Every scenario on every backend, unarmed; those that kill workers last, not to disturb the others.

        Args:
            names: failpoints that must be passed; what is rare is provoked.
            timeout: seconds for each part.
        """
        for scenarios in (SCENARIOS[:-2], SCENARIOS[-2:]):
            for backend in self._backends:
                wanted = [scenario for scenario in scenarios if (backend, scenario) not in LEFT_OUT]
                self._rehearsed |= {self.submit(backend, scenario): (backend, scenario) for scenario in wanted}
            left = self.drained(timeout=timeout)
            assert not left, f"a run of the rehearsal does not end: {[self._rehearsed[run_id] for run_id in left]}"

        def passed() -> bool:
            missing = set(names) - {line["name"] for line in self.arms.passed()}
            self._provoke(missing)
            return not missing

        wait_until(passed, f"passings of all of {sorted(names)}", timeout=timeout, every=0.2)

    def cases(self, *, long: bool = False, wanted: Callable[[str], bool] = lambda name: True) -> list[Case]:
        """The cases of what was rehearsed."""
        passings = cases.passings(self.arms.passed(), self._rehearsed, self.group.pids)
        return cases.cases_of(passings, long=long, wanted=wanted)

    def play(self, played: Sequence[Case], *, timeout: float) -> None:
        """Play all cases, those again whose failpoint was not reached, and judge each."""
        end = time.monotonic() + timeout
        waiting = random.Random(1).sample(played, len(played))  # mixed, but in the same order each time
        waiting.sort(key=lambda case: not case.harming)  # they take longest
        under_way: list[Case] = []
        while (waiting or under_way) and time.monotonic() < end:
            open_, fired = self.look(), self.arms.fired()
            for case in list(under_way):
                if self._is_over(case, open_, fired):
                    under_way.remove(case)
                    if not case.fired and len(case.runs) < TRIES:
                        waiting.append(case)
            self._begin(waiting, under_way)
            self._provoke({case.name for case in under_way if not case.backend})
            time.sleep(0.05)
        for case in under_way:
            self.arms.remove(case.name)
        left = self.drained(timeout=max(end - time.monotonic(), 30.0))
        self._judge(played, left)

    def _is_over(self, case: Case, open_: set[str], fired: dict[str, set[str]]) -> bool:
        """Return True if its run has ended, or somebody has fired its arm."""
        name = f"{case.name}+{case.runs[-1]}" if case.runs else case.name
        case.fired = case.arm in fired.get(name, ())
        return case.runs[-1] not in open_ if case.runs else case.fired

    def _begin(self, waiting: list[Case], under_way: list[Case]) -> None:
        """As many of those that wait as may be under way beside the others."""
        now = Counter(bound for case in under_way for bound in _bounds(case))
        most = {"harming": HARMING, "fake": CONTAINERS}
        for case in list(waiting):
            bounds = _bounds(case)
            if len(under_way) >= ABREAST:
                return
            if any(now[bound] >= most.get(bound, 1) for bound in bounds):
                continue
            if case.backend:
                case.runs.append(self.submit(case.backend, case.scenario, arm=(case.name, case.arm)))
            else:
                self.arms.lay(case.name, case.arm)
            now.update(bounds)
            under_way.append(case)
            waiting.remove(case)

    def _provoke(self, names: Collection[str]) -> None:
        """Let what is rare happen: it passes failpoints that stand on no run's path."""
        if not names or time.monotonic() - self._provoked < PROVOKED:
            return
        self._provoked = time.monotonic()
        self.submit("local", "brief")
        if "inbox.dropped" in names:
            self.submit("fake", "plain")
        if "lease.removed" in names:
            self.submit("local", "lost")
        if any(name.startswith(("worker.", "shard.")) for name in names):
            self.group.workers[0].send(signal.SIGTERM)

    def _judge(self, played: Sequence[Case], left: Collection[str]) -> None:
        """Note what is wrong with each case, and what is wrong beside them."""
        wrong = self.violations(self.runs)
        for case in played:
            if not case.fired:
                case.wrong.append(f"its failpoint was not reached in {len(case.runs)} tries")
            for run_id in case.runs:
                case.wrong += wrong.pop(run_id, [])
                case.wrong += ["its run was still open at the end"] if run_id in left else []
        self.wrong = [f"run {run_id}: {violation}" for run_id, violations in wrong.items() for violation in violations]
        self.wrong += checker.wrong_in_service(self.service, self.records, self.runs, ignored=self.brief)
        self.recoveries = sorted(self._recoveries(played))

    def violations(self, runs: Sequence[str]) -> dict[str, list[str]]:
        """Return the violations of some runs, by run."""
        return checker.check(self.records, self.bench.keys, runs, read_marks(self.folder))

    def counts(self, played: Sequence[Case]) -> dict[str, int]:
        """Return how many cases were run, and how many had violations."""
        return {
            "failpoints": len({case.name for case in played}),
            "cases": len(played),
            "runs": len(self.runs),
            "again": sum(max(len(case.runs) - 1, 0) for case in played),
            "deaths": self.group.deaths,
            "wrong": sum(bool(case.wrong) for case in played) + len(self.wrong),
        }

    def summary(self, played: Sequence[Case]) -> str:
        """For people: the same, and how long recoveries took."""
        took, n = self.recoveries, self.counts(played)
        return (
            f"{n['failpoints']} failpoints, {n['cases']} cases, {n['runs']} runs, {n['again']} played again, "
            f"{n['deaths']} workers died; "
            f"from fault to end {took[len(took) // 2]:.1f} s (p50), {took[len(took) * 99 // 100]:.1f} s (p99)"
        )

    def _recoveries(self, played: Sequence[Case]) -> list[float]:
        """Seconds from each fault to the end of its run (a file's change time is when its arm was fired)."""
        fired = (self.arms.folder / "fired").iterdir()
        fired_at = {file.name.rpartition(".")[0]: file.stat().st_ctime for file in fired}
        names = {f"{case.name}+{run_id}": run_id for case in played for run_id in case.runs}
        return [self._over[run_id] - fired_at[name] for name, run_id in names.items() if name in fired_at]

    def close(self) -> None:
        """Close the connections."""
        self.unrung.close()
        self.bench.close()


def _bounds(case: Case) -> list[str]:
    """Return the key that limits concurrent cases: their kind, and their name if any process may fire one."""
    harming = ["harming"] if case.harming else []
    return [*harming, "fake"] if case.backend == "fake" else harming if case.backend else [*harming, case.name]
