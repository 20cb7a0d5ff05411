"""Steps that store the use of a signed spec, and steps that take it back."""

from __future__ import annotations

from typing import Any

import pytest

from dispatcher.runs import transitions as t
from dispatcher.runs import use
from dispatcher.runs.change import Change
from dispatcher.runs.outcome import ExitCall, Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.retry import Retry
from dispatcher.runs.routing import Route
from dispatcher.runs.states import Cause, State
from tests.unit.making import queued


def done(change: Change | None) -> Change:
    assert change is not None
    return change


def running(**changes: Any) -> Record:
    return done(t.start_here(queued(**changes), 1, owner="w", holder="h")).after


def end(record: Record, **arguments: Any) -> use.Use | None:
    return done(t.finish(record, 9, epoch=record.epoch, **arguments)).use


@pytest.mark.parametrize(
    "spec",
    [{"on_exit": True}, {"retries": Retry(1)}, {"route": Route("kubernetes")}],
    ids=lambda spec: next(iter(spec)),
)
def test_an_end_is_stored_if_something_could_follow(spec: dict[str, Any]) -> None:
    """Decided by the signed spec alone: a forger may remove the request for infrastructure from the record."""
    last = end(running(**spec), outcome=Outcome())
    assert last is not None
    assert (last.accepts, last.word) == (None, use.OVER)


def test_a_plain_end_costs_no_further_step() -> None:
    assert end(running(), outcome=Outcome()) is None


def test_an_end_by_the_clock_is_stored_before_anything_started() -> None:
    late = done(t.tick(queued(start_within=5), 6))
    assert (late.after.state, late.use and late.use.word) == (State.TIMED_OUT, use.OVER)


def test_a_released_claim_takes_no_use_back() -> None:
    """None was stored for it: a forger may put an ended run back to CLAIMED."""
    claimed = t.claim(queued(), 1, owner="w1")
    assert claimed.use is None
    lost = done(t.lose(claimed.after, 2, owner="w1"))
    assert (lost.after.state, lost.use) == (State.QUEUED, None)
    again = t.claim(lost.after, 3, owner="w2")
    intended = done(t.intend(again.after, 3, epoch=again.after.epoch, request={"shard": "fake/3"}))
    assert intended.use is not None
    assert (intended.use.accepts, intended.use.word) == (("",), "1")


def test_a_fresh_process_takes_an_on_exit_once_and_the_next_attempt_may_follow() -> None:
    policy = Retry(1, on={Cause.KILLED})
    due = done(t.abandon(running(on_exit=True, retries=policy), 2, epoch=1, outcome=Outcome(cause=Cause.KILLED))).after
    begun = done(t.begin_exit(due, 3, owner="w2", holder="fresh"))
    assert begun.use is not None
    assert (begun.use.accepts, begun.use.word) == (("1",), "1e")
    last = end(begun.after, exit_call=ExitCall.CALLED)
    assert last is not None
    assert last.accepts is not None
    assert "1e" in last.accepts
    assert last.word == "1+"
