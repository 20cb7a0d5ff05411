"""The supervisor and its cost, with records in this process and a backend whose observations are set."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from functools import partial

import pytest

from backends.base import Found, Handle, Observation, Phase, Request, Watched
from dispatcher.errors import LeasePassed, Refused, Transient
from dispatcher.runner.container.report import ReportKind
from dispatcher.runs import transitions
from dispatcher.runs.events import EventKind
from dispatcher.runs.outcome import ExitCall, Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.states import Cause, State
from tests.unit.supervisor_scene import Scene, ScriptedBackend
from tests.waiting import wait_until
from workers.supervisor import supervisor
from workers.supervisor.heartbeats import MAX_READ_GAP, Heartbeats
from workers.supervisor.teardown import LINGER_POLL_INTERVAL


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_an_idle_run_costs_an_observation_and_no_reading_of_its_record(scene: Scene) -> None:
    """One worker has thousands of live runs; here 1,000, counted."""
    for number in range(1000):
        scene.running(f"r{number}")
    counting = scene.counting
    counting.read = 0
    before = time.perf_counter()
    scene.round()
    took = time.perf_counter() - before
    assert counting.read == 1000, "adoption reads each once"
    assert scene.backend.polled == 1000
    counting.read = 0
    version = scene.record("r1").version
    before = time.perf_counter()
    scene.round()
    again = time.perf_counter() - before
    print(f"1,000 runs: adopted in {took * 1000:.0f} ms, then a round takes {again * 1000:.0f} ms")  # noqa: T201
    assert counting.read == 0
    assert scene.backend.polled == 2000
    scene.update("r7", partial(transitions.request_cancel))
    scene.round()
    assert counting.read == 1, "only a record that changed is read again"
    assert scene.record("r1").version == version
    polled = scene.backend.polled
    scene.supervisor.tick()
    assert scene.backend.polled - polled <= 1, "between rounds, only changed runs are observed"


def test_a_changed_run_is_observed_alone(scene: Scene) -> None:
    for number in range(10):
        scene.running(f"r{number}")
    scene.round()
    polled = scene.backend.polled
    name = str((scene.record("r3").handle or {})["name"])
    scene.backend.observations[name] = Observation(phase=Phase.ENDED, cause=Cause.OOM_KILLED, exit_code=137)
    scene.woken.clear()
    scene.backend.changed(name, "")
    assert scene.woken.is_set()
    scene.supervisor.tick()
    assert scene.record("r3").state is State.CRASHED
    assert scene.record("r4").state is State.RUNNING
    assert scene.backend.polled - polled <= 3
    assert isinstance(scene.backend, Watched)


def test_a_change_reported_in_a_long_round_does_not_wait_for_its_end(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change is acted on within a second, whatever else runs."""
    monkeypatch.setattr(supervisor, "PORTION", 20)
    for number in range(60):
        scene.running(f"r{number}")
    polls: list[list[str]] = []
    poll_backend = scene.backend.poll

    def poll(handles: Sequence[Handle]) -> list[Observation]:
        polls.append([str(handle["name"]) for handle in handles])
        if len(polls) == 4:  # the first of the second round: the first round shows the order
            scene.backend.changed(polls[2][-1], "")
        return poll_backend(handles)

    scene.backend.poll = poll  # type: ignore[method-assign]
    scene.round()
    scene.round()
    assert [len(names) for names in polls] == [20, 20, 20, 20, 21, 20]
    assert polls[2][-1] in polls[4]


def test_containers_that_are_about_to_end_are_observed_now_and_then(scene: Scene) -> None:
    """Not every tick may observe thousands that end together."""
    records = [scene.running(f"r{number}") for number in range(100)]
    scene.round()
    for record in records:
        scene.report(record, ReportKind.EXITED, Outcome())
    scene.round()
    assert all(scene.record(record.id).state is State.SUCCEEDED for record in records)
    polled, before = scene.backend.polled, time.monotonic()
    for _ in range(20):
        scene.supervisor.tick()
    assert scene.backend.polled - polled <= len(records) * (1 + (time.monotonic() - before) / LINGER_POLL_INTERVAL)
    name = str((records[7].handle or {})["name"])
    scene.backend.observations[name] = Observation(phase=Phase.ENDED, exit_code=0)
    scene.backend.changed(name, "")
    scene.supervisor.tick()
    scene.until(lambda: scene.backend.cancelled == {name}, "the teardown of the container that has ended")


def test_a_claimed_container_that_seems_to_wait_is_about_to_end(scene: Scene) -> None:
    """The service shows it late: its exit code and its last lines are still to be read."""
    record = scene.running("r1")
    name = str((record.handle or {})["name"])
    scene.backend.observations[name] = Observation(phase=Phase.WAITING, reason="PodInitializing")
    scene.round()
    scene.report(record, ReportKind.EXITED, Outcome())
    for _ in range(3):
        scene.round()
    assert scene.record("r1").state is State.SUCCEEDED
    assert not scene.backend.cancelled
    scene.backend.observations[name] = Observation(phase=Phase.ENDED, exit_code=0)
    scene.backend.changed(name, "")
    scene.until(lambda: scene.backend.cancelled == {name}, "the teardown of the container that has ended")


def test_a_report_has_precedence_over_an_observation(scene: Scene) -> None:
    """A runner reports before its container ends, so the reports are read before the end is acted on."""
    record = scene.running("r1")
    scene.round()
    name = str((record.handle or {})["name"])
    scene.backend.observations[name] = Observation(phase=Phase.ENDED, cause=Cause.KILLED, exit_code=137)
    scene.report(record, ReportKind.EXITED, Outcome(cause=Cause.USER_ERROR, reason="ValueError"))
    scene.round()
    outcome = scene.record("r1").outcome
    assert outcome is not None
    assert (scene.record("r1").state, outcome.reason) == (State.FAILED, "ValueError")


def test_a_request_is_sent_again_after_its_pause_and_delays_nothing(scene: Scene) -> None:
    scene.backend.errors = [Transient("busy", retry_in=0.2, cause=Cause.QUOTA), Transient("busy", retry_in=0.0)]
    assert scene.provisioned("r1").owner.startswith("scripted/")
    scene.backend.block = threading.Event()
    scene.round()
    scene.round()  # a request that hangs delays no round
    scene.backend.block.set()
    scene.until(lambda: scene.record("r1").last_cause is Cause.QUOTA, "the cause for which it waits")
    before = len(scene.backend.submits)
    assert before == 2
    scene.until(lambda: scene.record("r1").state is State.PENDING, "the third answer")
    assert len(scene.backend.submits) == 3
    assert len(set(scene.backend.submits)) == 1


def test_a_request_that_was_cancelled_is_not_sent_again(scene: Scene) -> None:
    scene.backend.errors = [Transient("busy", retry_in=0.0)]
    name = str((scene.provisioned("r1").request or {})["body"]["name"])
    scene.update("r1", partial(transitions.request_cancel))
    scene.round()
    assert scene.record("r1").state is State.CANCELLED
    assert len(scene.backend.submits) == 1
    scene.until(lambda: not scene.record("r1").leftovers, "its teardown")
    assert scene.backend.cancelled == {name}


def test_a_notice_of_a_cancel_is_acted_on_at_once(scene: Scene) -> None:
    """It is only a reason to read the record, which decides: anybody who may publish can name any run."""
    cancelled, other = scene.running("r1"), scene.running("r2")
    scene.round()
    scene.update("r1", partial(transitions.request_cancel))
    scene.supervisor.tick()
    assert scene.backend.cancelled == set(), "there was no notice yet, and no round is due"
    scene.woken.clear()
    for run_id in ("r1", "r2", "nobody's"):
        scene.supervisor.cancel_requested(run_id)
    assert scene.woken.is_set()
    scene.supervisor.tick()
    name = str((cancelled.handle or {})["name"])
    wait_until(lambda: scene.backend.cancelled == {name}, "the end of its container")
    assert scene.record("r2") == other


def test_a_notice_of_a_cancel_during_a_round_is_not_lost(scene: Scene) -> None:
    record = scene.running("r1")

    def cancel() -> None:
        scene.counting.after_reading = lambda: None
        scene.update("r1", transitions.request_cancel)
        scene.supervisor.cancel_requested("r1")

    scene.counting.after_reading = cancel
    scene.round()
    assert scene.backend.cancelled == set(), "the record was read before"
    scene.supervisor.tick()
    name = str((record.handle or {})["name"])
    wait_until(lambda: scene.backend.cancelled == {name}, "the end of its container")


def test_a_claim_after_the_attempt_was_closed_is_refused(scene: Scene) -> None:
    """The attempt is closed to claims before the infrastructure is deleted."""
    order: list[str] = []
    record = scene.provisioned("r1", start_within=0.01)
    cancel = scene.backend.cancel

    def recording_cancel(handle: Handle | None, request: Request | None) -> bool:
        order.append(scene.record("r1").state)
        return cancel(handle, request)

    scene.backend.cancel = recording_cancel  # type: ignore[method-assign]
    wait_until(lambda: scene.update("r1", transitions.tick).terminal, "start_within")
    scene.until(lambda: not scene.record("r1").leftovers, "its teardown")
    assert order == [State.TIMED_OUT]
    with pytest.raises(Exception, match="closed"):
        scene.update("r1", partial(transitions.claim_attempt, attempt=1, holder="late"))
    assert record.state is State.PENDING


def test_a_supervisor_whose_shard_was_taken_writes_nothing(scene: Scene) -> None:
    """The new holder raises the shard's epoch; here between observation and write."""
    record = scene.running("r1")
    scene.round()
    shard = record.owner or scene.record("r1").owner
    lease = scene.records.leases.held("scripted/")[shard]
    name = str((record.handle or {})["name"])
    poll_backend = scene.backend.poll

    def poll(handles: Sequence[Handle]) -> list[Observation]:
        if scene.records.leases.held("scripted/")[shard] == lease:
            scene.records.leases.acquire(shard, "w2", expected=lease)
        return poll_backend(handles)

    scene.backend.poll = poll  # type: ignore[method-assign]
    scene.backend.observations[name] = Observation(phase=Phase.ENDED, exit_code=1)
    scene.report(record, ReportKind.EXITED, Outcome())
    before = scene.record("r1")
    scene.backend.changed(name, "")
    scene.supervisor.tick()
    assert scene.record("r1") == before
    assert len(scene.records.inbox.read(shard)) == 1, "its new holder acts on the report"
    assert shard not in scene.supervisor.held
    with pytest.raises(LeasePassed):
        scene.records.runs.update("r1", partial(transitions.request_cancel), lease=lease)


def test_a_container_whose_end_was_reported_is_not_deleted_at_once(scene: Scene) -> None:
    """It is deleted once its exit code was observed, or after 5 s."""
    record = scene.running("r1")
    scene.round()
    scene.report(record, ReportKind.EXITED, Outcome())
    scene.round()
    assert scene.record("r1").state is State.SUCCEEDED
    scene.round()
    assert not scene.backend.cancelled
    name = str((record.handle or {})["name"])
    times = {"created": 1.0, "started": 2.0, "finished": 3.0}
    scene.backend.observations[name] = Observation(phase=Phase.ENDED, exit_code=0, times=times)
    scene.until(lambda: not scene.record("r1").leftovers, "its teardown")
    assert scene.backend.cancelled == {name}
    stored = (scene.record("r1").times or {})["1"]
    assert {**stored, "torn down": 0.0} == {**times, "torn down": 0.0}


def test_a_missing_part_is_created_again_until_the_flow_has_started(scene: Scene) -> None:
    name = str((scene.provisioned("r1").handle or {})["name"])
    scene.round()
    incomplete = Observation(phase=Phase.WAITING, cause=Cause.START_FAILED, reason="FailedMount", incomplete=True)
    scene.backend.observations[name] = incomplete
    secrets = sorted(f"DISPATCHER__{name}" for name in ("URL", "RUN__SPEC", "RUN__SEAL", "RUN__TOKEN"))
    scene.until(lambda: scene.backend.restored == [(name, secrets)], "the restoration")
    scene.round()
    assert len(scene.backend.restored) == 1, "it has its pause"
    scene.update("r1", partial(transitions.claim_attempt, attempt=1, holder="pod"))
    with pytest.raises(Refused):
        scene.provisioner.restore("r1", 1)
    assert len(scene.backend.restored) == len(scene.backend.submits) == 1


class KeptBackend(ScriptedBackend):
    """Backend whose infrastructure is kept, for a reason that a test sets."""

    answer: bool | Transient = False

    def discard(self, handle: Handle | None, request: Request | None, *, claimed: bool) -> bool:
        if isinstance(self.answer, Transient):
            raise self.answer
        return self.answer


def test_the_reason_of_a_pending_teardown_is_noted_no_longer_than_it_holds() -> None:
    backend = KeptBackend()
    scene = Scene(backend)
    record = scene.running("r1")
    scene.round()
    scene.update("r1", partial(transitions.finish, epoch=record.epoch, outcome=Outcome(cause=Cause.KILLED)))
    backend.observations[str((record.handle or {})["name"])] = Observation(phase=Phase.ENDED)
    backend.answer = Transient("teardown pending: node toy", retry_in=0.01)
    scene.until(lambda: scene.record("r1").leftovers[0].get("pending"), "the reason")
    backend.answer = False
    scene.until(lambda: not scene.record("r1").leftovers[0].get("pending"), "the reason's end")
    backend.answer = True
    scene.until(lambda: not scene.record("r1").leftovers, "the teardown")


def test_orphans_are_deleted_when_found_twice(scene: Scene) -> None:
    scene = Scene(orphan_tick=0.01)
    wanted = scene.provisioned("r1")
    ended = scene.running("r2")

    def listed(record: Record, name: str, age: float) -> Found:
        return Found(run_id=record.id, attempt=record.attempt, age=age, handle={"name": name})

    scene.backend.listed = [
        listed(wanted, "wanted", 1000.0),
        listed(ended, "left", 1000.0),
        listed(scene.submit("r3"), "young", 0.0),
        Found(run_id="r4", attempt=1, age=1000.0, handle={"name": "unknown"}),
    ]
    epoch = scene.record("r2").epoch
    scene.update("r2", partial(transitions.finish, epoch=epoch, outcome=Outcome()))
    scene.backend.observations[str((ended.handle or {})["name"])] = Observation(phase=Phase.ENDED)
    scene.until(lambda: "unknown" in scene.backend.cancelled, "the deletion of the orphan")
    assert not {"wanted", "young"} & scene.backend.cancelled


def test_a_sweep_for_orphans_reads_no_record_of_a_cached_run() -> None:
    """With thousands of runs, that would delay the supervisor for seconds every half minute."""
    scene = Scene(orphan_tick=0.01)
    records = [scene.provisioned(f"r{number}") for number in range(100)]
    late = scene.submit("late")
    scene.round()
    scene.backend.listed = [
        Found(run_id=record.id, attempt=1, age=1000.0, handle={"name": record.id}) for record in [*records, late]
    ]
    scene.counting.largest = 0
    scene.until(lambda: "late" in scene.backend.cancelled, "the deletion of the orphan")
    assert scene.counting.largest == 1
    assert scene.backend.cancelled == {"late"}


def test_silence_counts_only_while_a_report_would_have_been_received() -> None:
    """An outage, or a process that was suspended, starts the count again."""
    now = 1000.0
    heartbeats = Heartbeats(lambda: now)
    now = 1005.0
    heartbeats.received("r1")
    now = 1010.0
    heartbeats.all_read()
    assert heartbeats.silence("r1") == 5.0
    assert heartbeats.silence("no report") == 10.0
    now = 1100.0
    heartbeats.all_read()
    assert heartbeats.silence("r1") == 0.0, "the last reading was long ago"
    for _ in range(30):
        now += MAX_READ_GAP - 1
        heartbeats.all_read()
    assert heartbeats.silence("r1") == 30 * (MAX_READ_GAP - 1)
    heartbeats.restart()
    assert heartbeats.silence("r1") == 0.0
    heartbeats.received("r1")
    heartbeats.retain({"r1"})
    assert heartbeats.silence("r1") == 0.0


def test_the_exited_event_of_a_container_says_whether_on_exit_was_called(scene: Scene) -> None:
    record = scene.running("r1", on_exit=True, environment={"type": "X", "on_exit": {"ref": "some.module:function"}})
    scene.round()
    scene.backend.observations[str((record.handle or {})["name"])] = Observation(phase=Phase.ENDED, exit_code=137)
    scene.round()
    (exited,) = [event for event in scene.records.events.of("r1")[0] if event.kind is EventKind.EXITED]
    assert exited.data["on_exit"] == "not called"


@pytest.mark.parametrize("exit_call", [ExitCall.CALLED, ExitCall.RAISED, ExitCall.INTERRUPTED, ExitCall.NOT_CALLED])
def test_an_on_exit_that_the_container_called_for_its_dead_process_is_told(scene: Scene, exit_call: ExitCall) -> None:
    record = scene.running("r1", on_exit=True, environment={"type": "X", "on_exit": {"ref": "some.module:function"}})
    killed = Outcome(cause=Cause.KILLED, reason="SIGKILL", message="killed")
    scene.report(record, ReportKind.SETTLED, killed)
    scene.round()
    assert scene.record("r1").exit_call is ExitCall.BEGUN
    scene.report(record, ReportKind.DIED, killed, exit_call)
    scene.round()
    ended = scene.record("r1")
    assert (ended.state, ended.exit_call) == (State.CRASHED, exit_call)
    (exited,) = [event for event in scene.records.events.of("r1")[0] if event.kind is EventKind.EXITED]
    assert (exited.data["on_exit"], exited.data["cause"]) == (str(exit_call), "killed")


def test_an_on_exit_that_the_container_had_no_time_for_is_told_as_before(scene: Scene) -> None:
    record = scene.running("r1", on_exit=True, environment={"type": "X", "on_exit": {"ref": "some.module:function"}})
    scene.report(record, ReportKind.DIED, Outcome(cause=Cause.KILLED, message="killed"))
    scene.round()
    assert scene.record("r1").exit_call is ExitCall.NOT_CALLED
