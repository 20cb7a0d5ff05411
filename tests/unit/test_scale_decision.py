"""Decisions on workers to create and to delete: the rules, and at random a service that lags and fails."""

from __future__ import annotations

import random
from typing import Any

import pytest

from backends.base import Observation, Phase, WorkerState
from dispatcher.runs.cluster import WorkerReport
from dispatcher.runs.cluster_state import ClusterState
from dispatcher.runs.states import Cause
from workers.supervisor.cluster_workers import ClusterWorkers
from workers.supervisor.scale_decision import ClusterView, ScaleDecision, decide


def decided(most: int = 3, **facts: Any) -> tuple[str, str]:
    """The names to create and those to delete, as text; ``phases`` are given as text: "w1:running"."""
    phases = {name: Phase(phase) for name, _, phase in (item.partition(":") for item in facts.pop("exist", "").split())}
    wanted = facts.pop("wanted", None)
    sets: dict[str, Any] = {
        name: frozenset(value.split()) if isinstance(value, str) else value for name, value in facts.items()
    }
    decision = decide(ClusterView(wanted=None if wanted is None else wanted.split(), most=most, phases=phases, **sets))
    return " ".join(decision.create), " ".join(decision.delete)


def test_missing_workers_are_created_and_unwanted_ones_deleted() -> None:
    assert decided(wanted="w1 w3", exist="w1:running w2:waiting") == ("w3", "w2")


def test_where_nobody_has_said_what_is_wanted_nothing_changes() -> None:
    assert decided(exist="w1:running w2:waiting") == ("", "")


def test_a_connected_worker_is_never_deleted() -> None:
    assert decided(wanted="w1", exist="w1:running w2:running", connected="w1 w2") == ("", "")


def test_unwanted_workers_take_room_until_they_are_gone() -> None:
    assert decided(most=2, wanted="w2 w3", exist="w1:running w2:running") == ("", "w1")
    assert decided(most=2, wanted="w2 w3", exist="w1:ended w2:running") == ("w3", "w1")


def test_a_worker_that_vanished_with_its_node_takes_no_room() -> None:
    assert decided(most=2, wanted="w2 w3", exist="w1:unknown w2:running") == ("w3", "w1")
    assert decided(most=2, wanted="w1 w2 w3", exist="w1:unknown w2:running") == ("", ""), "it may come back"


def test_the_same_name_is_created_again_only_once_its_worker_is_gone() -> None:
    assert decided(wanted="w1", exist="w1:ended") == ("", "w1")
    assert decided(wanted="w1") == ("w1", "")
    assert decided(wanted="w1", creating="w1") == ("", "")
    assert decided(wanted="w1", spent="w1") == ("", ""), "it had joined"


def test_what_is_still_read_is_spared() -> None:
    assert decided(wanted="", exist="w1:ended w2:running", spared="w1 w2") == ("", "")


def test_a_creation_that_may_have_failed_is_repeated_in_its_own_room() -> None:
    assert decided(most=2, wanted="w1 w2", doubtful="w1 w2") == ("w1 w2", "")
    assert decided(most=2, wanted="w2 w3", doubtful="w1 w2") == ("w2", ""), "w1 may exist"


def test_of_too_many_those_that_are_connected_stay() -> None:
    assert decided(most=2, wanted="w1 w2 w3", exist="w1:waiting w2:running w3:running", connected="w2 w3") == ("", "w1")


def test_a_run_that_is_over_only_shrinks() -> None:
    assert decided(wanted="w1", exist="w2:running", growing=False) == ("", "w2")


class Service:
    """Workers that a service creates late, loses and ends at random, and a view that lags behind it."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.most = self.random.randint(1, 5)
        self.alive: dict[str, Observation] = {}
        self.seen: list[WorkerState] = []
        self.last = self.random.randint(0, self.most)
        self.wanted = [f"w{number}" for number in range(1, self.last + 1)]
        self.joined: set[str] = set()
        self.connected: set[str] = set()
        self.lost: list[str] = []
        state = ClusterState(least=self.last, ready=not self.last)
        self.workers = ClusterWorkers(1, first=self.wanted, most=self.most, state=state)
        self.creations = 0

    def report(self) -> WorkerReport:
        return WorkerReport(
            wanted=tuple(self.wanted),
            connected=tuple(sorted(self.connected)),
            ready=bool(self.joined),
            lost=tuple(self.lost[-20:]),
        )

    def living(self) -> set[str]:
        return {name for name, observation in self.alive.items() if observation.phase is not Phase.ENDED}

    def disturb(self) -> None:
        """Let something happen to a worker, or to what the runner wants."""
        name = self.random.choice([*self.alive, "w1"])
        running = name in self.living()
        match self.random.randrange(6):
            case 0 if running:
                self.alive[name] = Observation(phase=Phase.ENDED, cause=Cause.OOM_KILLED, exit_code=137)
                self._leave(name)
            case 1 if name in self.alive:
                del self.alive[name]
                self._leave(name)
            case 2 if running and name in self.wanted:
                self.joined.add(name)
                self.connected.add(name)
            case 3 if len(self.wanted) < self.most + 1:
                self.last += 1
                self.wanted.append(f"w{self.last}")
            case 4 if self.wanted:
                self._retire(self.random.choice(self.wanted))
            case _:
                pass

    def _leave(self, name: str) -> None:
        if name in self.connected:
            self.connected.discard(name)
            self.lost.append(name)
            if name in self.wanted:
                self.wanted.remove(name)

    def _retire(self, name: str) -> None:
        self.wanted.remove(name)
        if name in self.connected:
            self.connected.discard(name)
            self.alive[name] = Observation(phase=Phase.ENDED, exit_code=0)

    def step(self, at: float, *, calm: bool) -> ScaleDecision:
        """Act on a decision as the supervisor does; unless it is calm, requests fail and the view lags."""
        if calm or self.random.random() < 0.7:
            self.seen = [WorkerState(name=name, observation=observation) for name, observation in self.alive.items()]
        for end in self.workers.update(self.report() if calm or self.random.random() < 0.9 else None, self.seen, at):
            self.workers.account(end)
        decision = decide(self.workers.view(ready=bool(self.joined), growing=True))
        if decision.create:
            self._create(decision, at, calm=calm)
        if decision.delete:
            self.workers.deleted(decision.delete)
            for name in decision.delete:
                if calm or self.random.random() < 0.8:
                    assert name not in self.connected, "a connected worker is never deleted"
                    self.alive.pop(name, None)
        return decision

    def _create(self, decision: ScaleDecision, at: float, *, calm: bool) -> None:
        done = decision.create if calm else decision.create[: self.random.randint(0, len(decision.create))]
        for name in done:
            if name not in self.alive:
                assert name not in self.joined, f"{name} had joined: its name is never used again"
                self.creations += 1
                self.alive[name] = Observation(phase=Phase.RUNNING)
        assert len(self.living()) <= self.most, "never more than allowed"
        self.workers.requested(decision.create, at, failed=len(done) < len(decision.create))


@pytest.mark.parametrize("seed", range(200))
def test_whatever_happens_the_workers_come_to_be_those_wanted(seed: int) -> None:
    service = Service(seed)
    at = 0.0
    for _ in range(60):
        service.disturb()
        at += service.random.choice([0.1, 1.0, 7.0])
        service.step(at, calm=False)
    for _ in range(40):
        at += 10.0
        service.step(at, calm=True)
    allowed = service.workers.view(ready=True, growing=True).allowed
    assert set(allowed) <= service.living() <= set(allowed) | service.connected
    assert service.step(at, calm=True) == ScaleDecision(), "and stay so"
