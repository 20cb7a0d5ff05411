"""A worker is killed at every failpoint on the path of a run in Kubernetes.

The API server is in this process and pods are processes with the real runner; a bounded set of the same on a real
cluster is in tests/cloud/test_kubernetes_failpoints.py. No attempt is lost by a worker's death, nothing is created or
started twice, nothing is left. ``CHAOS=long`` plays errors, stops and lost answers on the run's own path as well.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatcher import KubernetesJobEnvironment
from dispatcher.runs import transitions
from dispatcher.runs.attempt import object_name
from dispatcher.runs.states import Cause, State
from tests.chaos import checker
from tests.chaos.cases import Arms, Case, cases_of, passings
from tests.chaos.conftest import ChaosServer
from tests.chaos.flows import callbacks, marked, read_marks
from tests.chaos.worker_group import TIMING, WorkerGroup
from tests.integration.workers import Bench
from tests.kubernetes_api import FakeApiServer, kubeconfig
from tests.kubernetes_node import URL, Node
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

WORKERS = 4

#: Cases under way at once: those that die must find others who live.
ABREAST = 3

#: Ways of a run, cheapest first, and how each ends.
ENDS = {
    "plain": (State.SUCCEEDED, None),
    "dies": (State.CRASHED, Cause.KILLED),
    "vanishes": (State.CRASHED, Cause.KILLED),
    "cancelled": (State.CANCELLED, None),
}
WAYS = {"cancelled": "lasts", "vanishes": "lost"}

#: On the path of each such run; what is passed by chance alone has its cases in test_failpoints.py.
PATH = {
    *(f"provision.{done}" for done in ("prepared", "intended", "submitted", "stored")),
    *("bell.taken", "task.done", "watch.judged", "watch.cancelled", "inbox.acted", "inbox.dropped"),
    *("teardown.asked", "teardown.noted", "shard.taken", "worker.announced", "worker.beaten"),
}

#: How often a case is played at most, where another one's fault keeps its run from its failpoint.
TRIES = 6


class Stage:
    """A group before a cluster in this process, and the cases played on it."""

    def __init__(self, server: ChaosServer, serving: FakeApiServer, folder: Path) -> None:
        (folder / "node").mkdir()
        self.folder = folder
        self.cluster = serving.cluster
        self.node = Node(serving.cluster, server.url, folder / "node")
        self.bench = Bench(server.url, timing=TIMING)
        self.arms = Arms(folder / "arms")
        environ = {
            "DISPATCHER__FAILPOINT": str(self.arms.folder),
            "DISPATCHER__KUBERNETES__URL": URL,
            "KUBECONFIG": str(kubeconfig(folder, serving.port)),
            "KUBERNETES_SERVICE_HOST": "",
        }
        options: dict[str, Any] = {"backends": ["kubernetes"], "concurrency": 1}
        self.group = WorkerGroup(server.url, folder, count=WORKERS, environ=environ, **options)
        self.ways: dict[str, str] = {}
        self._cancel: set[str] = set()

    def submit(self, way: str, arm: tuple[str, str] | None = None) -> str:
        """A run without retries, its arm laid before any worker can see it."""
        parameters = {"folder": str(self.folder), "way": WAYS.get(way, way)}
        called: dict[str, Any] = {**callbacks(self.folder)}
        environment = KubernetesJobEnvironment(image="flows:1", **called)
        record = self.bench.prepare(marked, parameters, environment=environment)
        if arm is not None:
            self.arms.lay(*arm, record.id)
        self.bench.records.runs.create([record])
        self.ways[record.id] = way
        if way == "cancelled":
            self._cancel.add(record.id)
        return record.id

    def open(self) -> set[str]:
        """Runs that have not ended, or whose infrastructure isn't known to be gone; cancels those that have begun."""
        begun = {mark.run for mark in read_marks(self.folder) if mark.step == "flow"} & self._cancel
        for run_id in begun:
            self.bench.records.runs.update(run_id, transitions.request_cancel)
        self._cancel -= begun
        records = self.bench.records.runs.get_many(list(self.ways))
        return {record.id for record in records if record is not None and (not record.terminal or record.leftovers)}

    def rehearse(self) -> list[Case]:
        """Each way, unarmed: the cases that follow."""
        for way in ENDS:
            self.submit(way)
        wait_until(lambda: not self.open(), "the rehearsal's end", timeout=180, every=0.1)
        rehearsed = {run_id: ("kubernetes", way) for run_id, way in self.ways.items()}
        passed = passings(self.arms.passed(), rehearsed, self.group.pids, scenarios=tuple(ENDS))
        return cases_of(passed, long=True, wanted=PATH.__contains__)

    def play(self, cases: list[Case], *, timeout: float) -> None:
        """All of them, a few at a time."""
        waiting, under_way = list(cases), list[Case]()
        end = time.monotonic() + timeout
        while (waiting or under_way) and time.monotonic() < end:
            open_, fired = self.open(), self.arms.fired()
            over = [case for case in under_way if self._is_over(case, open_, fired)]
            under_way = [case for case in under_way if case not in over]
            waiting += [case for case in over if not case.fired and len(case.runs) < TRIES]
            while waiting and len(under_way) < ABREAST:
                case = waiting.pop(0)
                if case.backend:
                    case.runs.append(self.submit(case.scenario, (case.name, case.arm)))
                else:
                    self.arms.lay(case.name, case.arm)  # whoever comes by; a run of its own sees to that
                    self.submit("plain")
                under_way.append(case)
            time.sleep(0.05)
        left = [f"{case.name} {case.arm} {case.runs}" for case in waiting + under_way]
        assert not left, f"not over after {timeout:g} s: {left}"
        wait_until(lambda: not self.open(), "the end of all runs", timeout=120, every=0.1)

    @staticmethod
    def _is_over(case: Case, open_: set[str], fired: dict[str, set[str]]) -> bool:
        name = f"{case.name}+{case.runs[-1]}" if case.runs else case.name
        case.fired = case.arm in fired.get(name, ())
        return case.runs[-1] not in open_ if case.runs else case.fired

    def close(self) -> None:
        self.group.__exit__(None, None, None)
        print(self.group.output[-20000:])  # noqa: T201 - pytest shows it where a test failed
        self.node.close()
        self.bench.close()


@pytest.fixture(scope="module")
def played(
    chaos_server: ChaosServer, long: bool, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Stage, list[Case]]]:
    """All cases, played."""
    with FakeApiServer() as serving:
        stage = Stage(chaos_server, serving, tmp_path_factory.mktemp("stage"))
        try:
            stage.group.__enter__()
            # What stands on no run's path is met often enough by kills alone; the rest of it is in test_failpoints.py.
            cases = [case for case in stage.rehearse() if case.kind == "kill" or (long and case.backend)]
            began = time.monotonic()
            stage.play(cases, timeout=600)
            names = {case.name for case in cases}
            took = time.monotonic() - began
            counts = f"{len(names)} failpoints, {len(cases)} cases, {len(stage.ways)} runs"
            print(f"{counts}, {stage.group.deaths} workers died, {took:.0f} s: {sorted(names)}")  # noqa: T201
            yield stage, cases
        finally:
            stage.close()


@pytest.mark.row(3)
@pytest.mark.row(4)
@pytest.mark.row(22)
def test_every_failpoint_of_the_path_has_fired(played: tuple[Stage, list[Case]]) -> None:
    _, cases = played
    assert [f"{case.name} {case.arm}" for case in cases if not case.fired] == []
    assert {case.name for case in cases} == PATH


def test_a_workers_death_costs_no_attempt(played: tuple[Stage, list[Case]]) -> None:
    """Each run ends as its flow does, in its first attempt; the invariants hold."""
    stage, _ = played
    records = stage.bench.records.runs.get_many(list(stage.ways))
    ends = {
        record.id: (
            record.state,
            record.outcome.cause if record.state is State.CRASHED and record.outcome else None,
            record.attempt,
        )
        for record in records
        if record is not None
    }
    assert ends == {run_id: (*ENDS[way], 1) for run_id, way in stage.ways.items()}
    assert checker.check(stage.bench.records, stage.bench.keys, list(stage.ways), read_marks(stage.folder)) == {}


def test_nothing_was_made_twice_and_nothing_is_left(played: tuple[Stage, list[Case]]) -> None:
    stage, _ = played
    made = Counter(
        thing["metadata"]["name"]
        for _, event, kind, thing in stage.cluster.history
        if (event, kind) == ("ADDED", "jobs")
    )
    names = {object_name(run_id, 1) for run_id in stage.ways}
    assert {name: n for name, n in made.items() if n != 1 or name not in names} == {}
    assert {name: n for name, n in Counter(stage.node.started).items() if n != 1} == {}
    wait_until(lambda: not [key for key in stage.cluster.objects if key[2].startswith("flow-")], "an empty cluster")
