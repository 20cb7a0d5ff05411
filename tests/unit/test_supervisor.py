"""The parts of the supervisor, and what it costs: records in this process, and a backend that says what it is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from functools import partial

import pytest

from backends.base import Found, Handle, Observation, Phase, Request, Watched
from dispatcher.errors import LeasePassed, Transient
from dispatcher.runner.container.report import ReportKind
from dispatcher.runs import transitions
from dispatcher.runs.events import Kind
from dispatcher.runs.record import Outcome, Record
from dispatcher.runs.states import Cause, State
from tests.unit.supervised import Scene
from tests.waiting import wait_until
from workers.supervisor import supervisor
from workers.supervisor.heartbeats import GAP, Pulse
from workers.supervisor.request_threads import Hands
from workers.supervisor.teardown import LOOK


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_an_idle_run_costs_a_look_and_nothing_of_the_records(scene: Scene) -> None:
    """Issue 5, Speed: thousands of live runs on one worker; here 1,000, counted."""
    for number in range(1000):
        scene.running(f"r{number}")
    counting = scene.counting
    counting.read = 0
    before = time.perf_counter()
    scene.round()
    took = time.perf_counter() - before
    assert counting.read == 1000, "adoption reads each once"
    assert scene.backend.looks == 1000
    counting.read = 0
    version = scene.record("r1").version
    before = time.perf_counter()
    scene.round()
    again = time.perf_counter() - before
    print(f"1,000 runs: adopted in {took * 1000:.0f} ms, then a round takes {again * 1000:.0f} ms")  # noqa: T201
    assert counting.read == 0
    assert scene.backend.looks == 2000
    scene.update("r7", partial(transitions.request_cancel))
    scene.round()
    assert counting.read == 1, "only what changed is read again"
    assert scene.record("r1").version == version
    looks = scene.backend.looks
    scene.supervisor.tick()
    assert scene.backend.looks - looks <= 1, "between rounds nothing is looked at that has not changed"


def test_a_change_is_looked_at_alone(scene: Scene) -> None:
    for number in range(10):
        scene.running(f"r{number}")
    scene.round()
    looks = scene.backend.looks
    name = str((scene.record("r3").handle or {})["name"])
    scene.backend.seen[name] = Observation(phase=Phase.ENDED, cause=Cause.OOM_KILLED, exit_code=137)
    scene.woken.clear()
    scene.backend.changed(name, "")
    assert scene.woken.is_set()
    scene.supervisor.tick()
    assert scene.record("r3").state is State.CRASHED
    assert scene.record("r4").state is State.RUNNING
    assert scene.backend.looks - looks <= 3
    assert isinstance(scene.backend, Watched)


def test_what_is_heard_in_a_long_round_does_not_wait_for_its_end(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 5, Speed: an event is acted upon within a second, whatever else runs."""
    monkeypatch.setattr(supervisor, "PORTION", 20)
    for number in range(60):
        scene.running(f"r{number}")
    looks: list[list[str]] = []
    real = scene.backend.poll

    def poll(handles: Sequence[Handle]) -> list[Observation]:
        looks.append([str(one["name"]) for one in handles])
        if len(looks) == 4:  # the first of the second round: the first tells in what order they come
            scene.backend.changed(looks[2][-1], "")
        return real(handles)

    scene.backend.poll = poll  # type: ignore[method-assign]
    scene.round()
    scene.round()
    assert [len(names) for names in looks] == [20, 20, 20, 20, 21, 20]
    assert looks[2][-1] in looks[4]


def test_containers_that_are_about_to_end_are_looked_at_now_and_then(scene: Scene) -> None:
    """Thousands that end together must not be looked at by each tick."""
    records = [scene.running(f"r{number}") for number in range(100)]
    scene.round()
    for record in records:
        scene.report(record, ReportKind.EXITED, Outcome())
    scene.round()
    assert all(scene.record(record.id).state is State.SUCCEEDED for record in records)
    looks, before = scene.backend.looks, time.monotonic()
    for _ in range(20):
        scene.supervisor.tick()
    assert scene.backend.looks - looks <= len(records) * (1 + (time.monotonic() - before) / LOOK)
    name = str((records[7].handle or {})["name"])
    scene.backend.seen[name] = Observation(phase=Phase.ENDED, exit_code=0)
    scene.backend.changed(name, "")
    scene.supervisor.tick()
    scene.until(lambda: scene.backend.gone == {name}, "the teardown of what is heard to have ended")


def test_a_report_goes_before_what_is_seen(scene: Scene) -> None:
    """A runner reports before its container ends: whoever sees the end reads the reports first."""
    record = scene.running("r1")
    scene.round()
    name = str((record.handle or {})["name"])
    scene.backend.seen[name] = Observation(phase=Phase.ENDED, cause=Cause.KILLED, exit_code=137)
    scene.report(record, ReportKind.EXITED, Outcome(cause=Cause.USER_ERROR, reason="ValueError"))
    scene.round()
    outcome = scene.record("r1").outcome
    assert outcome is not None
    assert (scene.record("r1").state, outcome.reason) == (State.FAILED, "ValueError")


def test_a_request_is_sent_again_after_its_pause_and_never_in_the_way(scene: Scene) -> None:
    scene.backend.trouble = [Transient("busy", retry_in=0.2, cause=Cause.QUOTA), Transient("busy", retry_in=0.0)]
    assert scene.provisioned("r1").owner.startswith("told/")
    scene.backend.hold = threading.Event()
    scene.round()
    scene.round()  # a request that hangs holds nobody up
    scene.backend.hold.set()
    scene.until(lambda: scene.record("r1").last_cause is Cause.QUOTA, "the cause that it waits for")
    before = len(scene.backend.submits)
    assert before == 2
    scene.until(lambda: scene.record("r1").state is State.PENDING, "the third answer")
    assert len(scene.backend.submits) == 3
    assert len(set(scene.backend.submits)) == 1


def test_a_request_that_was_cancelled_is_not_sent_again(scene: Scene) -> None:
    scene.backend.trouble = [Transient("busy", retry_in=0.0)]
    name = str((scene.provisioned("r1").request or {})["body"]["name"])
    scene.update("r1", partial(transitions.request_cancel))
    scene.round()
    assert scene.record("r1").state is State.CANCELLED
    assert len(scene.backend.submits) == 1
    scene.until(lambda: not scene.record("r1").leftovers, "its teardown")
    assert scene.backend.gone == {name}


def test_a_cancel_that_is_heard_of_is_seen_at_once(scene: Scene) -> None:
    """It is a reason to read the record, which alone decides: whoever may publish can say so of any run."""
    one, other = scene.running("r1"), scene.running("r2")
    scene.round()
    scene.update("r1", partial(transitions.request_cancel))
    scene.supervisor.tick()
    assert scene.backend.gone == set(), "nobody has told it yet, and no round is due"
    scene.woken.clear()
    for run_id in ("r1", "r2", "nobody's"):
        scene.supervisor.cancelled(run_id)
    assert scene.woken.is_set()
    scene.supervisor.tick()
    name = str((one.handle or {})["name"])
    wait_until(lambda: scene.backend.gone == {name}, "the end of its container")
    assert scene.record("r2") == other


def test_a_cancel_that_comes_while_a_round_reads_is_not_lost(scene: Scene) -> None:
    record = scene.running("r1")

    def cancel() -> None:
        scene.counting.after_reading = lambda: None
        scene.update("r1", transitions.request_cancel)
        scene.supervisor.cancelled("r1")

    scene.counting.after_reading = cancel
    scene.round()
    assert scene.backend.gone == set(), "it was read before"
    scene.supervisor.tick()
    name = str((record.handle or {})["name"])
    wait_until(lambda: scene.backend.gone == {name}, "the end of its container")


def test_a_claim_after_the_attempt_was_closed_is_refused(scene: Scene) -> None:
    """kubernetes.md §3: before the infrastructure goes, the attempt is closed to claims."""
    order: list[str] = []
    record = scene.provisioned("r1", start_within=0.01)
    cancel = scene.backend.cancel

    def noting(handle: Handle | None, request: Request | None) -> bool:
        order.append(scene.record("r1").state)
        return cancel(handle, request)

    scene.backend.cancel = noting  # type: ignore[method-assign]
    wait_until(lambda: scene.update("r1", transitions.tick).terminal, "start_within")
    scene.until(lambda: not scene.record("r1").leftovers, "its teardown")
    assert order == [State.TIMED_OUT]
    with pytest.raises(Exception, match="closed"):
        scene.update("r1", partial(transitions.claim_attempt, attempt=1, holder="late"))
    assert record.state is State.PENDING


def test_a_supervisor_whose_shard_was_taken_writes_nothing(scene: Scene) -> None:
    """DESIGN §5: adoption raises the shard's epoch; here between its look and its write."""
    record = scene.running("r1")
    scene.round()
    shard = record.owner or scene.record("r1").owner
    lease = scene.records.leases.held("told/")[shard]
    name = str((record.handle or {})["name"])
    real = scene.backend.poll

    def poll(handles: Sequence[Handle]) -> list[Observation]:
        if scene.records.leases.held("told/")[shard] == lease:
            scene.records.leases.acquire(shard, "w2", seen=lease)
        return real(handles)

    scene.backend.poll = poll  # type: ignore[method-assign]
    scene.backend.seen[name] = Observation(phase=Phase.ENDED, exit_code=1)
    scene.report(record, ReportKind.EXITED, Outcome())
    before = scene.record("r1")
    scene.backend.changed(name, "")
    scene.supervisor.tick()
    assert scene.record("r1") == before
    assert len(scene.records.inbox.read(shard)) == 1, "its new holder acts on the report"
    assert shard not in scene.supervisor.held
    with pytest.raises(LeasePassed):
        scene.records.runs.update("r1", partial(transitions.request_cancel), lease=lease)


def test_a_container_that_was_reported_to_have_ended_gets_a_moment(scene: Scene) -> None:
    """kubernetes.md §3: the Job is deleted once its exit code was seen, or after 5 s."""
    record = scene.running("r1")
    scene.round()
    scene.report(record, ReportKind.EXITED, Outcome())
    scene.round()
    assert scene.record("r1").state is State.SUCCEEDED
    scene.round()
    assert not scene.backend.gone
    name = str((record.handle or {})["name"])
    times = {"created": 1.0, "started": 2.0, "finished": 3.0}
    scene.backend.seen[name] = Observation(phase=Phase.ENDED, exit_code=0, times=times)
    scene.until(lambda: not scene.record("r1").leftovers, "its teardown")
    assert scene.backend.gone == {name}
    found = (scene.record("r1").times or {})["1"]
    assert {**found, "torn down": 0.0} == {**times, "torn down": 0.0}


def test_orphans_are_ended_when_seen_twice(scene: Scene) -> None:
    scene = Scene(orphan_tick=0.01)
    wanted = scene.provisioned("r1")
    ended = scene.running("r2")

    def found(record: Record, name: str, age: float) -> Found:
        return Found(run_id=record.id, attempt=record.attempt, age=age, handle={"name": name})

    scene.backend.listed = [
        found(wanted, "wanted", 1000.0),
        found(ended, "left", 1000.0),
        found(scene.submit("r3"), "young", 0.0),
        Found(run_id="r4", attempt=1, age=1000.0, handle={"name": "unknown"}),
    ]
    epoch = scene.record("r2").epoch
    scene.update("r2", partial(transitions.finish, epoch=epoch, outcome=Outcome()))
    scene.backend.seen[str((ended.handle or {})["name"])] = Observation(phase=Phase.ENDED)
    scene.until(lambda: "unknown" in scene.backend.gone, "the end of the orphan")
    assert not {"wanted", "young"} & scene.backend.gone


def test_a_sweep_for_orphans_reads_no_record_of_a_run_that_is_known() -> None:
    """With thousands of runs it held up the supervisor for seconds, each half a minute."""
    scene = Scene(orphan_tick=0.01)
    records = [scene.provisioned(f"r{number}") for number in range(100)]
    late = scene.submit("late")
    scene.round()
    scene.backend.listed = [
        Found(run_id=one.id, attempt=1, age=1000.0, handle={"name": one.id}) for one in [*records, late]
    ]
    scene.counting.largest = 0
    scene.until(lambda: "late" in scene.backend.gone, "the end of the orphan")
    assert scene.counting.largest == 1
    assert scene.backend.gone == {"late"}


def test_hands_do_one_call_of_a_key_at_a_time() -> None:
    woken = threading.Semaphore(0)
    hands = Hands(2, woken.release)
    hold = threading.Event()
    assert hands.give(("a", "1"), lambda: hold.wait(30))
    assert not hands.give(("a", "1"), lambda: None)
    assert hands.give(("b", "1"), lambda: 1 / 0)
    assert woken.acquire(timeout=30)
    ((key, error),) = hands.done()
    assert (key, type(error)) == (("b", "1"), ZeroDivisionError)
    assert hands.busy(("a", "1"))
    hold.set()
    assert woken.acquire(timeout=30)
    assert hands.done() == [(("a", "1"), True)]
    assert not hands.busy(("a", "1"))
    hands.stop()


def test_silence_counts_only_while_we_would_have_heard() -> None:
    """DESIGN §5: unknown is not dead. An outage, or a process that stood still, starts the count again."""
    now = 1000.0
    pulse = Pulse(lambda: now)
    now = 1005.0
    pulse.heard("r1")
    now = 1010.0
    pulse.looked()
    assert pulse.silence("r1") == 5.0
    assert pulse.silence("never heard") == 10.0
    now = 1100.0
    pulse.looked()
    assert pulse.silence("r1") == 0.0, "the look before came long ago"
    for _ in range(30):
        now += GAP - 1
        pulse.looked()
    assert pulse.silence("r1") == 30 * (GAP - 1)
    pulse.deaf()
    assert pulse.silence("r1") == 0.0
    pulse.heard("r1")
    pulse.keep({"r1"})
    assert pulse.silence("r1") == 0.0


def test_events_of_a_container_say_what_became_of_on_exit(scene: Scene) -> None:
    record = scene.running("r1", on_exit=True, environment={"type": "X", "on_exit": {"ref": "some.module:function"}})
    scene.round()
    scene.backend.seen[str((record.handle or {})["name"])] = Observation(phase=Phase.ENDED, exit_code=137)
    scene.round()
    (exited,) = [event for event in scene.records.events.of("r1")[0] if event.kind is Kind.EXITED]
    assert exited.data["on_exit"] == "not called"
