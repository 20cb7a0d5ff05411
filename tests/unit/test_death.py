"""The end of an attempt whose pool process died."""

from __future__ import annotations

from functools import partial

import pytest

from dispatcher.errors import Refused
from dispatcher.records.base import Records
from dispatcher.records.logs import Line
from dispatcher.records.memory import open_memory
from dispatcher.runs import transitions
from dispatcher.runs.outcome import ExitCall, Outcome
from dispatcher.runs.states import Cause, State
from dispatcher.settings import LimitSettings
from tests.unit.making import make_record, trusting
from workers.pool.celery_request import exit_status
from workers.pool.death import Death, attempt_died
from workers.pool.termination import TerminationReason

died = partial(attempt_died, limits=LimitSettings())


@pytest.fixture
def records() -> Records:
    """Process 7 of worker w runs run1."""
    records = trusting(open_memory())
    records.runs.create([make_record(timeout=5)])
    records.runs.update("run1", partial(transitions.start_here, owner="w", holder="host:7:n"))
    return records


def death(reason: TerminationReason | None = None, status: int | None = -9, pid: int = 7) -> Death:
    return Death(run_id="run1", pid=pid, reason=reason, status=status)


@pytest.mark.parametrize(
    ("reason", "status", "cause", "exit_code", "message"),
    [
        (None, -9, Cause.KILLED, 137, "killed by SIGKILL"),
        (None, -64, Cause.KILLED, 192, "killed by"),
        (None, 3, Cause.KILLED, 3, "exited with status 3"),
        (None, None, Cause.WORKER_LOST, None, "lost sight"),
        (TerminationReason.TIMEOUT, -9, Cause.DEADLINE, None, "timeout of 5 s"),
        (TerminationReason.CANCEL, -9, Cause.CANCELLED, None, "cancelled"),
        (TerminationReason.PREEMPT, -9, Cause.PREEMPTED, None, "shut down"),
    ],
)
def test_the_cause_names_what_ended_the_attempt(
    records: Records,
    reason: TerminationReason | None,
    status: int | None,
    cause: Cause,
    exit_code: int | None,
    message: str,
) -> None:
    record = died(records, "w", death(reason, status))
    assert record is not None
    assert record.outcome is not None
    assert (record.outcome.cause, record.outcome.exit_code) == (cause, exit_code)
    assert message in record.outcome.message


def test_a_cancel_counts_also_where_the_process_died_first(records: Records) -> None:
    records.runs.update("run1", transitions.request_cancel)
    record = died(records, "w", death())
    assert record is not None
    assert record.state is State.CANCELLED


def test_only_the_death_of_the_process_that_ran_it_counts_and_once(records: Records) -> None:
    assert died(records, "w", death(pid=8)) is None
    assert died(records, "other", death()) is None
    assert died(records, "w", death()) is not None
    assert died(records, "w", death(TerminationReason.TIMEOUT)) is None
    record, _ = records.runs.get("run1")
    assert record.state is State.CRASHED
    assert died(records, "w", Death(run_id="unknown", pid=7, reason=None, status=0)) is None


def test_the_last_lines_of_the_attempt_are_kept(records: Records) -> None:
    def line(attempt: int, number: int) -> Line:
        return Line(attempt=attempt, number=number, time=0.0, stream="stdout", text=f"{attempt}/{number}")

    records.logs.append("run1", [line(1, number) for number in range(1, 2001)])
    record = died(records, "w", death())
    assert record is not None
    assert record.outcome is not None
    assert record.outcome.log_tail == tuple(f"1/{number}" for number in range(1951, 2001))


def test_an_on_exit_that_was_under_way_keeps_the_outcome() -> None:
    records = trusting(open_memory())
    records.runs.create([make_record(on_exit=True)])
    record = records.runs.update("run1", partial(transitions.start_here, owner="w", holder="host:7:n"))
    records.runs.update("run1", partial(transitions.settle, epoch=record.epoch, outcome=Outcome()))
    after = died(records, "w", death(TerminationReason.ON_EXIT))
    assert after is not None
    assert (after.state, after.exit_call) == (State.SUCCEEDED, ExitCall.INTERRUPTED)


def test_an_on_exit_that_had_not_begun_is_left_to_a_fresh_process() -> None:
    records = trusting(open_memory())
    records.runs.create([make_record(on_exit=True)])
    records.runs.update("run1", partial(transitions.start_here, owner="w", holder="host:7:n"))
    after = died(records, "w", death())
    assert after is not None
    assert (after.state, after.exit_call, after.owner) == (State.RUNNING, ExitCall.DUE, "")


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("Worker exited prematurely: signal 9 (SIGKILL) Job: 3.", -9),
        ("Worker exited prematurely: exitcode 70 Job: 0.", 70),
        ("something else", None),
    ],
)
def test_the_exit_status_in_billiards_message(message: str, status: int | None) -> None:
    assert exit_status(message) == status


class TestElsewhere:
    """Runs whose infrastructure the pool process was requesting when it died."""

    @pytest.fixture
    def records(self) -> Records:
        records = trusting(open_memory())
        records.runs.create([make_record()])
        records.runs.update("run1", partial(transitions.claim, owner="w"))
        return records

    def test_a_claim_is_given_back(self, records: Records) -> None:
        record = died(records, "w", death())
        assert record is not None
        assert (record.state, record.attempt, record.owner) == (State.QUEUED, 1, "")

    def test_a_request_goes_to_its_shard(self, records: Records) -> None:
        request = {"shard": "fake/1", "epoch": 1, "body": {}}
        records.runs.update("run1", partial(transitions.intend, epoch=1, request=request))
        record = died(records, "w", death())
        assert record is not None
        assert (record.state, record.owner, record.epoch) == (State.PROVISIONING, "fake/1", 2)

    def test_a_runner_may_have_begun_before_the_handle_was_stored(self, records: Records) -> None:
        request = {"shard": "fake/1", "epoch": 1, "body": {}}
        records.runs.update("run1", partial(transitions.intend, epoch=1, request=request))
        records.runs.update("run1", partial(transitions.claim_attempt, attempt=1, holder="host:9:n"))
        record = died(records, "w", death())
        assert record is not None
        assert (record.state, record.owner) == (State.RUNNING, "fake/1")

    def test_a_cancelled_claim_ends(self, records: Records) -> None:
        records.runs.update("run1", transitions.request_cancel)
        with pytest.raises(Refused):
            records.runs.update("run1", partial(transitions.intend, epoch=1, request={}))
        record = died(records, "w", death())
        assert record is not None
        assert record.state is State.CANCELLED
