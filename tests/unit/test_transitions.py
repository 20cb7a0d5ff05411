"""Functions from one record to the next."""

from __future__ import annotations

from typing import Any

import pytest

from dispatcher.errors import Refused
from dispatcher.runs import infrastructure
from dispatcher.runs import transitions as t
from dispatcher.runs.change import CALL_ON_EXIT, Change
from dispatcher.runs.events import Event, EventKind
from dispatcher.runs.outcome import ExitCall, Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.retry import Retry
from dispatcher.runs.spec import Spec
from dispatcher.runs.states import TERMINAL, Cause, State
from dispatcher.runs.value import Value
from dispatcher.runs.wait import Wait
from tests.unit.making import make_spec, queued

FAILED = Outcome(cause=Cause.USER_ERROR, reason="ValueError", message="no")
KILLED = Outcome(cause=Cause.KILLED, exit_code=-9)
DONE = Outcome(result=Value(codec="json", inline="1"))


def after(change: Change | None) -> Record:
    assert change is not None
    return change.after


def running(now: float = 1.0, **changes: Any) -> Record:
    return after(t.start_here(queued(**changes), now, owner="w", holder="h"))


def contained(**changes: Any) -> Record:
    record = after(t.claim(queued(**changes), 1, owner="w"))
    return after(t.intend(record, 1, epoch=1, request={"name": "n", "shard": "fake/3"}))


def kinds(change: Change | None) -> list[EventKind]:
    assert change is not None
    return [event.kind for event in change.events]


def test_in_process_walks_every_state_in_one_step() -> None:
    change = t.start_here(queued(), 5, owner="w", holder="h")
    assert kinds(change) == [EventKind.CLAIMED, EventKind.PROVISIONING, EventKind.PENDING, EventKind.STARTED]
    record = after(change)
    assert (record.state, record.epoch, record.owner, record.started_at) == (State.RUNNING, 1, "w", 5)


def test_containers_walk_the_same_states() -> None:
    record = contained()
    assert record.state is State.PROVISIONING
    record = after(t.created(record, 2, epoch=1, handle={"uid": "u"}, owner="fake/3"))
    assert (record.state, record.owner) == (State.PENDING, "fake/3")
    change = t.claim_attempt(record, 3, attempt=1, holder="pod")
    assert kinds(change) == [EventKind.STARTED]


def test_a_runner_may_claim_before_its_handle_is_stored() -> None:
    record = after(t.claim_attempt(contained(), 2, attempt=1, holder="pod"))
    assert record.state is State.RUNNING
    record = after(t.created(record, 3, epoch=1, handle={"uid": "u"}))
    assert record.state is State.RUNNING
    assert record.handle == {"uid": "u"}


def test_one_runner_claims_an_attempt() -> None:
    record = after(t.claim_attempt(contained(), 2, attempt=1, holder="one"))
    assert t.claim_attempt(record, 3, attempt=1, holder="one") is None
    for attempt, holder in ((1, "two"), (2, "one")):
        with pytest.raises(Refused, match="closed"):
            t.claim_attempt(record, 3, attempt=attempt, holder=holder)


def test_a_second_doorbell_finds_nothing() -> None:
    record = running()
    assert t.start_here(record, 2, owner="w", holder="h") is None
    with pytest.raises(Refused, match="RUNNING, not waiting"):
        t.start_here(record, 2, owner="w", holder="other")
    with pytest.raises(Refused):
        t.claim(record, 2, owner="w")


def test_finish_ends_once() -> None:
    record = running()
    change = t.finish(record, 9, epoch=1, outcome=DONE)
    done = after(change)
    assert kinds(change) == [EventKind.EXITED]
    assert change is not None
    assert change.events[0].id == "run1:1:exited"
    assert change.events[0].final
    assert (done.state, done.ended_at, done.owner) == (State.SUCCEEDED, 9, "")
    assert t.finish(done, 10, epoch=1, outcome=FAILED) is None
    with pytest.raises(Refused):
        t.finish(done, 10, epoch=0, outcome=FAILED)


def test_a_passed_epoch_is_refused() -> None:
    record = after(t.adopt(running(), 2, owner="other"))
    for step in (t.settle, t.finish, t.abandon):
        with pytest.raises(Refused, match="epoch 1 of run run1 was passed: it is 2 now"):
            step(record, 3, epoch=1, outcome=DONE)


def test_a_settled_outcome_stands() -> None:
    record = after(t.settle(running(on_exit=True), 2, epoch=1, outcome=DONE))
    assert record.exit_call is ExitCall.BEGUN
    assert t.settle(record, 3, epoch=1, outcome=FAILED) is None
    died = after(t.abandon(record, 3, epoch=1, outcome=KILLED))
    assert died.state is State.SUCCEEDED
    assert died.exit_call is ExitCall.INTERRUPTED


def test_a_killed_flow_has_on_exit_called_by_a_fresh_process_once() -> None:
    change = t.abandon(running(on_exit=True), 2, epoch=1, outcome=KILLED)
    assert change is not None
    assert change.ring is not None
    assert (change.ring.task, change.ring.first) == (CALL_ON_EXIT, True)
    record = after(t.begin_exit(change.after, 3, owner="w2", holder="fresh"))
    assert t.begin_exit(record, 3, owner="w2", holder="fresh") is None
    with pytest.raises(Refused, match="isn't due"):
        t.begin_exit(record, 3, owner="w3", holder="another")
    ended = t.finish(record, 4, epoch=record.epoch, exit_call=ExitCall.CALLED)
    assert after(ended).state is State.CRASHED
    assert ended is not None
    assert ended.events[0].data["on_exit"] == "called"


def test_an_on_exit_that_nobody_takes_is_given_up() -> None:
    record = after(t.abandon(running(on_exit=True), 2, epoch=1, outcome=KILLED))
    assert t.tick(record, 3) is None
    rung = t.tick(record, 2 + t.EXIT_RING)
    assert rung is not None
    assert rung.ring is not None
    record = after(t.tick(rung.after, 2 + t.EXIT_WITHIN))
    assert (record.state, record.exit_call) == (State.CRASHED, ExitCall.NOT_CALLED)


def test_a_retry_is_another_attempt() -> None:
    change = t.finish(running(retries=Retry(1, delay=5)), 2, epoch=1, outcome=FAILED)
    record = after(change)
    assert change is not None
    assert not change.events[0].final
    assert change.events[0].attempt == 1
    assert (record.state, record.attempt, record.outcome, record.retries_used) == (State.AWAITING_RETRY, 2, None, 1)
    assert t.tick(record, 6.9) is None
    again = t.tick(record, 7)
    assert again is not None
    assert again.ring is not None
    record = after(t.start_here(again.after, 3, owner="w", holder="h2"))
    assert record.epoch == 3
    assert after(t.finish(record, 4, epoch=3, outcome=FAILED)).state is State.FAILED


def test_a_retry_due_at_once_waits_for_no_clock() -> None:
    change = t.finish(running(retries=1), 2, epoch=1, outcome=FAILED)
    record = after(change)
    assert kinds(change) == [EventKind.EXITED, EventKind.QUEUED]
    assert change is not None
    assert change.ring is not None
    assert [event.attempt for event in change.events] == [1, 2]
    assert (record.state, record.attempt, record.queued_at, record.rings) == (State.QUEUED, 2, 2, 1)


def test_preempted_uses_up_no_retry() -> None:
    record = after(t.finish(running(retries=1), 2, epoch=1, outcome=Outcome(cause=Cause.PREEMPTED)))
    assert (record.state, record.retries_used, record.free_retries) == (State.QUEUED, 0, 1)


def test_cancel_before_it_started_ends_at_once() -> None:
    waiting = after(t.finish(running(retries=Retry(1, delay=5)), 2, epoch=1, outcome=FAILED))
    for record in (queued(), waiting):
        change = t.request_cancel(record, 3)
        assert after(change).state is State.CANCELLED
        assert kinds(change) == [EventKind.EXITED]


def test_cancel_of_a_running_flow_waits_for_its_end() -> None:
    record = after(t.request_cancel(running(retries=5), 2))
    assert record.state is State.CANCELLING
    assert t.request_cancel(record, 3) is None
    assert after(t.finish(record, 3, epoch=1, outcome=FAILED)).state is State.CANCELLED
    assert after(t.finish(record, 3, epoch=1, outcome=DONE)).state is State.SUCCEEDED


def test_cancel_after_the_outcome_was_settled_changes_nothing() -> None:
    record = after(t.settle(running(on_exit=True), 2, epoch=1, outcome=FAILED))
    assert t.request_cancel(record, 3) is None
    assert after(t.finish(record, 4, epoch=1)).state is State.FAILED


def test_cancel_while_a_fresh_process_is_to_call_on_exit_changes_nothing() -> None:
    lost = after(t.lose(running(on_exit=True), 2, owner="w"))
    assert t.request_cancel(lost, 3) is None
    begun = after(t.begin_exit(lost, 3, owner="v", holder="x"))
    assert t.request_cancel(begun, 4) is None


def test_cancel_of_what_never_ran_counts_whatever_its_record_holds() -> None:
    claimed = after(t.claim(queued(), 1, owner="w"))
    record = after(t.request_cancel(after(t.settle(claimed, 2, epoch=1, outcome=DONE)), 3))
    assert record.state is State.CANCELLING


def test_a_cancel_after_the_outcome_was_settled_takes_the_next_attempt() -> None:
    """Found by a soak: its worker had died, a retry was to come, and the cancel came while ``on_exit`` was called."""
    lost = after(t.lose(running(on_exit=True, retries=Retry(1, on={Cause.WORKER_LOST})), 2, owner="w"))
    record = after(t.request_cancel(after(t.begin_exit(lost, 3, owner="v", holder="x")), 4))
    record = after(t.finish(record, 5, epoch=record.epoch, exit_call=ExitCall.CALLED))
    assert record.state is State.CANCELLED
    assert record.outcome is not None
    assert record.outcome.message == "cancelled before it was repeated after worker_lost: worker w is gone"


def test_a_lost_worker_gives_back_what_it_had_not_begun() -> None:
    claimed = after(t.claim(queued(), 1, owner="w"))
    change = t.lose(claimed, 2, owner="w")
    record = after(change)
    assert (record.state, record.attempt, record.epoch, record.owner) == (State.QUEUED, 1, 2, "")
    assert change is not None
    assert change.ring is not None
    assert t.lose(claimed, 2, owner="another") is None


def test_a_lost_worker_ends_what_it_ran() -> None:
    record = after(t.lose(running(), 2, owner="w"))
    assert record.state is State.CRASHED
    assert record.outcome is not None
    assert record.outcome.cause is Cause.WORKER_LOST


def test_infrastructure_outlives_its_worker() -> None:
    record = after(t.lose(contained(), 2, owner="w"))
    assert (record.state, record.owner, record.epoch) == (State.PROVISIONING, "fake/3", 2)


def test_infrastructure_stays_visible_until_it_is_gone() -> None:
    record = after(t.created(contained(), 2, epoch=1, handle={"uid": "u"}))
    record = after(t.finish(record, 3, epoch=1, outcome=Outcome(cause=Cause.IMAGE_PULL)))
    assert record.state in TERMINAL
    left = {"attempt": 1, "request": {"name": "n", "shard": "fake/3"}, "handle": {"uid": "u"}}
    assert record.leftovers == ({**left, "ended": 3, "claimed": False},)
    gone = after(infrastructure.torn_down(record, 4, attempt=1))
    assert gone.leftovers == ()
    assert gone.state is record.state
    assert infrastructure.torn_down(gone, 5, attempt=1) is None


def test_start_within_ends_with_the_cause_last_seen() -> None:
    assert t.tick(queued(start_within=10), 9) is None
    assert after(t.tick(queued(start_within=10), 10)).state is State.TIMED_OUT
    waiting = after(infrastructure.observe(contained(start_within=10), 2, visible=True, cause=Cause.UNSCHEDULABLE))
    record = after(t.tick(waiting, 10))
    assert record.state is State.CRASHED
    assert record.outcome is not None
    assert record.outcome.cause is Cause.UNSCHEDULABLE
    assert t.tick(running(start_within=10), 100) is None


def test_start_within_ends_with_what_the_run_waited_for_last() -> None:
    def message(record: Record) -> str:
        outcome = after(t.tick(record, 10)).outcome
        assert outcome is not None
        return outcome.message

    silent = Wait.of(None, "", "the Job controller says nothing about it")
    pending = contained(start_within=10)
    waiting = after(infrastructure.note(pending, 2, wait=silent, visible=True, message=silent.message))
    assert message(waiting) == "not started within 10 s: the Job controller says nothing about it"
    full = Wait.of(Cause.QUOTA, "", "exceeded quota")
    noted = after(infrastructure.note(pending, 2, wait=full, visible=True, cause=full.cause, message=full.message))
    assert message(noted) == "not started within 10 s: exceeded quota"
    both = after(infrastructure.note(noted, 3, wait=silent, visible=True, message=silent.message))
    assert message(both) == f"{message(noted)}; at last: the Job controller says nothing about it"


def test_unknown_is_a_flag() -> None:
    record = contained()
    change = infrastructure.observe(record, 2, visible=False)
    assert kinds(change) == [EventKind.UNKNOWN]
    lost = after(change)
    assert (lost.state, lost.unknown_since) == (State.PROVISIONING, 2)
    assert infrastructure.observe(lost, 3, visible=False) is None
    assert kinds(infrastructure.observe(lost, 4, visible=True)) == [EventKind.SEEN]


def test_ring_again_only_what_waits() -> None:
    change = t.ring_again(queued(), 7)
    record = after(change)
    assert (record.rung_at, record.rings) == (7, 2)
    assert change is not None
    assert change.ring is not None
    assert t.ring_again(running(), 7) is None


def test_round_trips() -> None:
    spec = make_spec(tags=["x"], retries=2, timeout=3)
    assert Spec.from_bytes(spec.to_bytes()) == spec
    record = after(t.finish(contained(retries=1), 2, epoch=1, outcome=KILLED)).but(last_cause=Cause.QUOTA)
    stored = {name: v.encode() if isinstance(v, str) else v for name, v in record.to_fields().items()}
    assert Record.from_fields(stored) == record
    for event in t.create(queued(), 3.25).events:
        assert Event.from_fields(event.to_fields()) == event
