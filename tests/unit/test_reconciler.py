"""The sweeps, on records in memory and a clock that the tests set."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import pytest

from dispatcher.errors import SealBroken, ServerUnavailable
from dispatcher.records.base import Records
from dispatcher.records.memory import open_memory
from dispatcher.records.workers import WorkerInfo
from dispatcher.runs import transitions
from dispatcher.runs.change import Ring
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.retry import Retry
from dispatcher.runs.routing import Offer
from dispatcher.runs.states import Cause, State
from dispatcher.settings import TimingSettings
from tests.unit.making import make_record, trusting
from tests.waiting import wait_until
from workers.reconciler.dead_workers import DeadWorkers
from workers.reconciler.due_times import DueTimes
from workers.reconciler.loop import PeriodicSweep, Reconciler
from workers.reconciler.lost_doorbells import LostDoorbells
from workers.reconciler.retention import sweep_retention

TIMING = TimingSettings()


class Clock:
    """Both clocks: the server's, and the observer's monotonic one."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Broker:
    """Bell whose messages stay in lists until they are taken or lost."""

    def __init__(self) -> None:
        self.lists: dict[str, list[str]] = {}
        self.unavailable = False

    def message(self, ring: Ring) -> None:
        return None

    def publish(self, rings: Sequence[Ring]) -> None:
        for ring in rings:
            self.lists.setdefault(ring.route.queue, []).append(ring.run_id)

    def depth(self, queue: str) -> int:
        if self.unavailable:
            raise ServerUnavailable("unavailable")
        return len(self.lists.get(queue, []))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def records(clock: Clock, broker: Broker) -> Records:
    return trusting(open_memory(clock=clock, bell=broker))


@pytest.fixture
def doorbells(records: Records, clock: Clock, broker: Broker) -> LostDoorbells:
    return LostDoorbells(records, TIMING, serves=lambda route: True, depth=broker.depth, clock=clock)


def every(clock: Clock, step: float, seconds: float, sweep: Callable[[], object]) -> None:
    """Sweep every ``step`` seconds, for ``seconds``."""
    end = clock.now + seconds
    while clock.now < end:
        clock.now += step
        sweep()


def state_of(records: Records, run_id: str) -> State:
    return records.runs.get(run_id)[0].state


def test_a_lost_doorbell_is_rung_again(
    records: Records, clock: Clock, broker: Broker, doorbells: LostDoorbells
) -> None:
    records.runs.create([make_record()])
    broker.lists.clear()
    every(clock, 2, 4, doorbells.sweep)
    assert broker.depth("local") == 0
    every(clock, 2, 4, doorbells.sweep)
    assert broker.lists["local"] == ["run1"]
    assert records.runs.get("run1")[0].rings == 2


def test_a_doorbell_in_the_queue_is_not_rung_again(records: Records, clock: Clock, doorbells: LostDoorbells) -> None:
    records.runs.create([make_record()])
    every(clock, 2, 600, doorbells.sweep)
    assert records.runs.get("run1")[0].rings == 1


def test_each_further_ring_waits_twice_as_long(
    records: Records, clock: Clock, broker: Broker, doorbells: LostDoorbells
) -> None:
    records.runs.create([make_record()])
    rung: list[float] = []

    def sweep_and_lose() -> None:
        doorbells.sweep()
        if broker.lists.pop("local", []):
            rung.append(clock.now)

    broker.lists.clear()
    every(clock, 1, 2000, sweep_and_lose)
    pauses = [later - sooner for sooner, later in itertools.pairwise(rung)]
    assert pauses[:5] == [10, 20, 40, 80, 160]
    assert max(pauses) == TIMING.bell_most


def test_a_run_that_was_overtaken_is_rung_again(
    records: Records, clock: Clock, broker: Broker, doorbells: LostDoorbells
) -> None:
    records.runs.create([make_record("lost")])
    broker.lists.clear()
    clock.now += 1
    records.runs.create([make_record("later"), make_record("last")])
    clock.now += 1
    records.runs.update("later", partial(transitions.start_here, owner="w", holder="h"))
    broker.lists["local"] = ["last"]  # the list is never empty
    every(clock, 2, 10, doorbells.sweep)
    assert "lost" in broker.lists["local"]
    assert records.runs.get("last")[0].rings == 1


def test_time_without_ticks_or_without_the_broker_is_no_evidence(
    records: Records, clock: Clock, broker: Broker, doorbells: LostDoorbells
) -> None:
    records.runs.create([make_record()])
    broker.lists.clear()
    every(clock, 2, 4, doorbells.sweep)
    broker.unavailable = True
    clock.now += 2
    with pytest.raises(ServerUnavailable):
        doorbells.sweep()
    broker.unavailable = False
    every(clock, 2, 4, doorbells.sweep)
    assert not broker.lists
    clock.now += 3600  # suspended
    every(clock, 2, 4, doorbells.sweep)
    assert not broker.lists


def test_only_queues_that_are_served_are_swept(records: Records, clock: Clock, broker: Broker) -> None:
    doorbells = LostDoorbells(records, TIMING, serves=lambda route: False, depth=broker.depth, clock=clock)
    records.runs.create([make_record()])
    broker.lists.clear()
    every(clock, 2, 60, doorbells.sweep)
    assert not broker.lists


def test_idle_queues_cost_nothing_until_they_are_used_again(records: Records, clock: Clock, broker: Broker) -> None:
    examined: list[str] = []

    def depth(queue: str) -> int:
        examined.append(queue)
        return broker.depth(queue)

    doorbells = LostDoorbells(records, TIMING, serves=lambda route: True, depth=depth, clock=clock)
    records.runs.create([make_record("first")])
    records.runs.update("first", transitions.request_cancel)
    every(clock, 2, 20, doorbells.sweep)
    assert not examined
    records.runs.create([make_record("second")])
    broker.lists.clear()
    every(clock, 2, 10, doorbells.sweep)
    assert broker.lists["local"] == ["second"]


def test_due_times(records: Records, clock: Clock) -> None:
    records.runs.create([make_record("late", start_within=5), make_record("again", retries=Retry(1, delay=5))])
    records.runs.update("again", partial(transitions.start_here, owner="w", holder="h"))
    records.runs.update("again", partial(transitions.lose, owner="w"))
    assert state_of(records, "again") is State.AWAITING_RETRY
    clock.now += 6
    due = DueTimes(records)
    assert due.sweep() == 2
    record = records.runs.get("late")[0]
    assert record.state is State.TIMED_OUT
    assert state_of(records, "again") is State.QUEUED
    assert due.sweep() == 0


def beating(records: Records, worker: str) -> None:
    records.workers.announce(
        WorkerInfo(
            id=worker, host="h", pid=1, offer=Offer(backends=frozenset({"local"})), concurrency=1, started_at=0.0
        )
    )
    records.workers.beat(worker)


@pytest.fixture
def dead_workers(records: Records, clock: Clock) -> DeadWorkers:
    beating(records, "dead")
    beating(records, "alive")
    records.runs.create([make_record("taken"), make_record("kept")])
    for run_id, owner in (("taken", "dead"), ("kept", "alive")):
        records.runs.update(run_id, partial(transitions.start_here, owner=owner, holder="h:1:n"))
    return DeadWorkers(records, TIMING, worker="observer", clock=clock)


def test_runs_of_a_dead_worker_are_taken_over(records: Records, clock: Clock, dead_workers: DeadWorkers) -> None:
    def sweep() -> None:
        records.workers.beat("alive")
        dead_workers.sweep()

    every(clock, 5, 30, sweep)
    assert state_of(records, "taken") is State.RUNNING
    every(clock, 5, 10, sweep)
    record = records.runs.get("taken")[0]
    assert record.outcome is not None
    assert (record.state, record.outcome.cause) == (State.CRASHED, Cause.WORKER_LOST)
    assert state_of(records, "kept") is State.RUNNING
    assert records.workers.beats().keys() == {"alive"}


def test_an_outage_or_a_pause_starts_the_count_again(records: Records, clock: Clock, dead_workers: DeadWorkers) -> None:
    every(clock, 5, 25, dead_workers.sweep)
    clock.now += 3600
    dead_workers.sweep()
    every(clock, 5, 25, dead_workers.sweep)
    assert state_of(records, "taken") is State.RUNNING
    every(clock, 5, 10, dead_workers.sweep)
    assert state_of(records, "taken") is State.CRASHED


def test_an_observer_never_takes_over_its_own_runs(records: Records, clock: Clock) -> None:
    beating(records, "me")
    records.runs.create([make_record("mine")])
    records.runs.update("mine", partial(transitions.start_here, owner="me", holder="h:1:n"))
    dead_workers = DeadWorkers(records, TIMING, worker="me", clock=clock)
    every(clock, 5, 300, dead_workers.sweep)
    records.workers.remove("me")
    every(clock, 5, 300, dead_workers.sweep)
    assert state_of(records, "mine") is State.RUNNING


def test_a_run_claimed_by_a_worker_that_was_removed_is_taken_over(
    records: Records, clock: Clock, dead_workers: DeadWorkers
) -> None:
    """The claim registers the worker again, so that even observers that never knew it watch it."""
    records.runs.create([make_record("late")])
    every(clock, 5, 40, dead_workers.sweep)
    assert "dead" not in records.workers.beats()
    every(clock, 5, 3600, DeadWorkers(records, TIMING, worker="new", clock=clock).sweep)
    records.runs.update("late", partial(transitions.start_here, owner="dead", holder="h:1:n"))
    every(clock, 5, 60, dead_workers.sweep)
    assert state_of(records, "late") is State.CRASHED
    assert "dead" not in records.workers.beats()


def test_a_worker_that_owns_runs_stays_watched(records: Records, dead_workers: DeadWorkers) -> None:
    assert not records.workers.remove("dead")  # it owns the run "taken"
    assert "dead" in records.workers.beats()


def test_a_holder_removed_before_the_observer_started_is_considered_dead(
    records: Records, clock: Clock, dead_workers: DeadWorkers
) -> None:
    def sweep() -> None:
        records.workers.beat("alive")
        dead_workers.sweep()
        dead_workers.note_holders(["long removed", "alive", "observer"])

    every(clock, 5, 30, sweep)
    assert "long removed" not in dead_workers.dead  # it may be about to register
    every(clock, 5, 10, sweep)
    assert dead_workers.dead == {"long removed", "dead"}


def test_retention(records: Records, clock: Clock) -> None:
    records.runs.create([make_record(result_ttl=60)])
    records.runs.update("run1", transitions.request_cancel)
    clock.now += 30
    sweep_retention(records, TIMING)
    assert records.runs.get_many(["run1"]) != [None]
    clock.now += 31
    sweep_retention(records, TIMING)
    assert records.runs.get_many(["run1"]) == [None]
    assert list(records.queues.known()) == ["local"]
    clock.now += TIMING.queue_unused
    sweep_retention(records, TIMING)
    assert not records.queues.known()


def test_a_sweep_that_fails_stops_no_other() -> None:
    swept: list[str] = []

    def fail() -> None:
        raise RuntimeError("no")

    def away() -> None:
        raise ServerUnavailable("unavailable")

    table = (
        PeriodicSweep("first", 0.001, fail),
        PeriodicSweep("second", 0.001, away),
        PeriodicSweep("third", 0.001, lambda: swept.append("third")),
    )
    reconciler = Reconciler(lambda: (table, lambda: swept.append("closed")))

    def ticked() -> bool:
        with suppress(ServerUnavailable):
            reconciler.tick()
        return swept.count("third") > 1

    wait_until(ticked, "the third sweep, twice")
    reconciler.close()
    assert swept[-1] == "closed"


def test_a_server_is_unavailable_until_it_has_answered() -> None:
    broker = {"away": True}
    swept: list[str] = []

    def ask() -> None:
        if broker["away"]:
            raise ServerUnavailable("the broker is away")
        swept.append("asked")

    table = (PeriodicSweep("often", 0.0, lambda: swept.append("often")), PeriodicSweep("doorbells", 0.05, ask))
    reconciler = Reconciler(lambda: (table, lambda: None))

    def away() -> bool:
        try:
            reconciler.tick()
        except ServerUnavailable:
            return True
        return False

    wait_until(away, "the first try")
    before = swept.count("often")
    assert all(away() for _ in range(3)), "sweeps that succeed don't mean that the server is back"
    assert swept.count("often") == before + 3
    broker["away"] = False
    wait_until(lambda: not away(), "its return")
    assert "asked" in swept


def test_a_worker_without_a_key_leaves_its_runs_to_others(records: Records, clock: Clock) -> None:
    """Workers of one backend needn't have the keys of another: their sweeps don't touch its runs."""
    records.runs.create([make_record("late", start_within=5), make_record("again", retries=Retry(1, delay=5))])
    started = records.runs.update("again", partial(transitions.start_here, owner="w1", holder="h"))
    failed = Outcome(cause=Cause.USER_ERROR)
    records.runs.update("again", partial(transitions.finish, epoch=started.epoch, outcome=failed))
    clock.now += 100
    records.runs.knows = lambda record: False
    DueTimes(records).sweep()
    assert state_of(records, "late") is State.QUEUED
    assert state_of(records, "again") is State.AWAITING_RETRY
    records.runs.knows = lambda record: True
    DueTimes(records).sweep()
    assert state_of(records, "late") is State.TIMED_OUT
    assert state_of(records, "again") is State.QUEUED


def test_a_run_whose_signature_is_not_valid_is_not_repeated(records: Records, clock: Clock) -> None:
    """It ends, whatever its retry policy says."""

    def broken(record: Record, now: float) -> None:
        raise SealBroken("it isn't signed")

    records.runs.create([make_record("late", start_within=5, retries=Retry(1000, on={"deadline"}))])
    records.runs.create([make_record("failed", retries=Retry(1000, delay=5))])
    started = records.runs.update("failed", partial(transitions.start_here, owner="w1", holder="h"))
    failed = Outcome(cause=Cause.USER_ERROR)
    records.runs.update("failed", partial(transitions.finish, epoch=started.epoch, outcome=failed))
    clock.now += 100
    records.runs.check = broken
    DueTimes(records).sweep()
    for run_id in ("late", "failed"):
        record = records.runs.get(run_id)[0]
        assert (record.state, record.outcome and record.outcome.message) == (State.CRASHED, "it isn't signed")
