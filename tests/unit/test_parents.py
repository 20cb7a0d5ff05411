"""Deadlocks of a full pool: when runs that hold all processes wait for runs they have submitted, and who is told."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import pytest

from dispatcher.errors import Malformed
from dispatcher.inspection import deadlocks
from dispatcher.inspection.deadlocks import Lookout, find_deadlock, stuck
from dispatcher.inspection.explain import explain
from dispatcher.records.base import Records
from dispatcher.records.memory import open_memory
from dispatcher.records.workers import WorkerInfo
from dispatcher.runs.context import entered
from dispatcher.runs.routing import Offer, Route
from dispatcher.runs.spec import Spec
from dispatcher.runs.transitions import start_here
from tests.unit.making import make_record, make_spec

LOCAL = Route("local")


class Clock:
    """Monotonic seconds, as a test sets them."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Pool:
    """One worker, whose processes are held by runs."""

    concurrency: int
    records: Records = field(default_factory=open_memory)

    @property
    def worker(self) -> WorkerInfo:
        offer = Offer(backends=frozenset({"local"}), labels=frozenset())
        return WorkerInfo(id="w1", host="mars", pid=7, offer=offer, concurrency=self.concurrency, started_at=0.0)

    def holds(self, run_id: str, parent: str = "") -> None:
        self.waits(run_id, parent)
        self.records.runs.update(run_id, lambda record, now: start_here(record, now, owner="w1", holder="h"))

    def waits(self, run_id: str, parent: str = "", route: Route = LOCAL) -> None:
        self.records.runs.create([make_record(run_id, parent=parent, flow=f"flow of {run_id}", route=route)])

    def deadlocked(self) -> set[str]:
        deadlock = find_deadlock(self.records, LOCAL, [self.worker])
        return set() if deadlock is None else {record.id for record in deadlock.holders}


def test_each_process_is_held_by_a_parent() -> None:
    pool = Pool(2)
    pool.holds("p1")
    pool.holds("p2")
    pool.waits("c1", "p1")
    assert pool.deadlocked() == set(), "p2 has submitted nothing"
    pool.waits("c2", "p2")
    assert pool.deadlocked() == {"p1", "p2"}


def test_grandparents_wait_too() -> None:
    pool = Pool(2)
    pool.holds("p")
    pool.holds("c", "p")
    assert pool.deadlocked() == set()
    pool.waits("g", "c")
    assert pool.deadlocked() == {"p", "c"}


def test_a_free_process_or_another_queue_is_none_of_it() -> None:
    pool = Pool(2)
    pool.holds("p")
    pool.waits("c", "p")
    assert pool.deadlocked() == set(), "a process is free"
    pool = Pool(1)
    pool.holds("p")
    pool.waits("c", "p", Route("local", ("gpu",)))
    assert pool.deadlocked() == set()
    assert find_deadlock(pool.records, LOCAL, []) is None


def test_explain_names_them_and_the_remedy() -> None:
    pool = Pool(2)
    pool.holds("p1")
    pool.holds("p2")
    pool.waits("c1", "p1")
    pool.waits("c2", "p2")
    record, now = pool.records.runs.get("c2")
    lines = explain(record, now=now, workers=[pool.worker], deadlock=find_deadlock(pool.records, LOCAL, [pool.worker]))
    assert "all 2 that serve its queue are held" in lines[0]
    assert "run p2 (flow 'flow of p2', which submitted it), run p1 (flow 'flow of p1')" in lines[0]
    for remedy in ("--concurrency", "label", "later run"):
        assert remedy in lines[1]
    assert "It has been queued for" in lines[2]


def test_a_flow_is_told_once_and_not_at_once(caplog: pytest.LogCaptureFixture) -> None:
    pool = Pool(1)
    pool.records.workers.announce(pool.worker)
    pool.holds("p")
    pool.waits("c", "p")
    clock = Clock()
    assert Lookout.here(pool.records) is None, "outside of flows"
    with caplog.at_level(logging.WARNING), entered(run_id="p", attempt=1, flow="f"):
        lookouts = [Lookout(pool.records, clock) for _ in range(2)]
        for clock.now in (1.0, deadlocks.FIRST_CHECK - 0.1):
            lookouts[0].look(["c"])
        assert not caplog.messages
        for clock.now in (deadlocks.FIRST_CHECK, 100.0, 1000.0):
            for lookout in lookouts:
                lookout.look(["c"])
        assert len(caplog.messages) == 1
        assert "run c is awaited and can't start" in caplog.messages[0]
        assert "run p (flow 'flow of p', which submitted it)" in caplog.messages[0]
        assert Lookout.here(pool.records) is None, "it was told"
    with entered(run_id="p", attempt=2, flow="f"):
        assert Lookout.here(pool.records) is not None


def test_a_flow_is_told_later_if_it_comes_to_that_later(caplog: pytest.LogCaptureFixture) -> None:
    pool = Pool(1)
    pool.records.workers.announce(pool.worker)
    clock = Clock()
    with caplog.at_level(logging.WARNING), entered(run_id="later", attempt=1, flow="f"):
        lookout = Lookout(pool.records, clock)
        pool.waits("c", "later")
        clock.now = 10.0
        lookout.look(["c"])
        assert not caplog.messages
        pool.holds("later")
        clock.now = 1000.0
        lookout.look(["c"])
        assert len(caplog.messages) == 1


def test_words_of_others_are_escaped() -> None:
    pool = Pool(1)
    pool.records.workers.announce(pool.worker)
    pool.records.runs.create([make_record("p", flow="\x1b[31mred")])
    pool.records.runs.update("p", lambda record, now: start_here(record, now, owner="w1", holder="h"))
    pool.waits("c", "p")
    assert "\x1b" not in stuck(pool.records, ["c"])


def test_a_parent_is_a_run_id() -> None:
    spec = make_spec("c", parent="p")
    assert Spec.from_bytes(spec.to_bytes()) == spec
    assert Spec.from_bytes(spec.to_bytes().replace(b',"parent":"p"', b"")).parent == "", "of an earlier release"
    with pytest.raises(Malformed):
        Spec.from_bytes(make_spec("c", parent="a b").to_bytes())
