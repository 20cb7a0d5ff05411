"""One invocation of a loaded flow: order, outcomes, ``on_exit``."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from dispatcher.environments.callbacks import Callback
from dispatcher.errors import (
    InvalidInput,
    MissingExtra,
    Permanent,
    Refused,
    TimeoutInterrupt,
)
from dispatcher.runner.invoke import call_exit, invoke
from dispatcher.runs.context import context
from dispatcher.runs.outcome import ExitCall, Outcome
from dispatcher.runs.states import Cause, State
from dispatcher.serialization.seals import Returned
from tests.unit.invocations import Odd, invocation, keep, opened, play, settled


def test_everything_in_its_order() -> None:
    calls: list[Any] = []

    def body(x: int) -> int:
        calls.append(("body", context.run_id, context.attempt, context.labels, context.tags, dict(context.parameters)))
        return x + 1

    def note(word: str) -> Callable[[], None]:
        return lambda: calls.append((word, context.state, context.exception))

    outcome, exit_call = invoke(
        invocation(
            body, parameters={"x": 1}, labels=("gpu",), tags=("t",), on_start=note("start"), on_exit=note("exit")
        ),
        settle=lambda outcome: calls.append(("settle", outcome.state)),
    )
    assert calls == [
        ("start", None, None),
        ("body", "run", 2, ("gpu",), ("t",), {"x": 1}),
        ("settle", State.SUCCEEDED),
        ("exit", State.SUCCEEDED, None),
    ]
    assert (outcome.state, opened(outcome.result), exit_call) == (State.SUCCEEDED, 2, ExitCall.CALLED)
    assert context.run_id is None


@pytest.mark.parametrize("raises", [False, True])
def test_the_flows_end_is_told_before_its_outcome_is_made(raises: bool) -> None:
    calls: list[str] = []

    class Late(Exception):
        def __str__(self) -> str:
            calls.append("text")
            return ""

    def body() -> None:
        calls.append("body")
        if raises:
            raise Late

    invoke(invocation(body, flow_ended=lambda: calls.append("ended")), settle=lambda _: None)
    assert calls[:2] == ["body", "ended"]
    assert ("text" in calls) is raises


def test_without_on_exit_nothing_is_settled() -> None:
    def never(_outcome: Outcome) -> None:
        raise AssertionError("there is nothing to settle for")

    assert invoke(invocation(lambda: 1), settle=never)[1] is ExitCall.NONE


def test_a_missing_extra_is_no_fault_of_the_flow() -> None:
    def body() -> None:
        raise MissingExtra("DaskExecutor needs Dask: pip install …")

    outcome = invoke(invocation(body), settle=settled)[0]
    assert (outcome.state, outcome.cause) == (State.CRASHED, Cause.CONFIG_ERROR)


def test_a_raising_flow_fails_with_its_exception_and_on_exit_is_told() -> None:
    exit_calls: list[Any] = []

    def body() -> None:
        raise Odd("bad luck", 7)

    outcome, exit_call = invoke(
        invocation(
            body,
            on_exit=lambda: exit_calls.append((context.state, type(context.exception))),
            log_tail=lambda: ("a", "b"),
        ),
        settle=settled,
    )
    assert (outcome.cause, outcome.state, outcome.reason) == (Cause.USER_ERROR, State.FAILED, "Odd")
    assert "bad luck" in outcome.message
    error = opened(outcome.exception, Returned.EXCEPTION)
    assert isinstance(error, Odd)
    assert error.args == ("bad luck", 7)
    assert outcome.log_tail == ("a", "b")
    assert exit_calls == [(State.FAILED, Odd)]
    assert exit_call is ExitCall.CALLED


def test_a_traceback_shows_the_users_frames_alone() -> None:
    def deeper() -> None:
        raise Odd("deep")

    def body() -> None:
        try:
            deeper()
        except Odd as error:
            raise KeyError("outer") from error

    text = play(body).traceback
    assert "in deeper" in text
    assert "in body" in text
    assert "dispatcher/" not in text
    assert "direct cause" in text
    assert text.rstrip().endswith("KeyError: 'outer'")


def test_tracebacks_and_messages_are_bounded() -> None:
    def body() -> None:
        raise Odd("x" * 10**6)

    outcome = play(body)
    assert len(outcome.traceback) < 70_000
    assert len(outcome.message) < 2100


class Hostile(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")

    __repr__ = __str__


class Stuck(Exception):
    def __init__(self, lock: Any) -> None:
        super().__init__("stuck")
        self.lock = lock


def test_exceptions_that_can_not_travel_leave_their_text() -> None:
    def body() -> None:
        raise Stuck(threading.Lock())

    outcome = play(body)
    assert outcome.exception is None
    assert (outcome.cause, outcome.reason, outcome.message) == (Cause.USER_ERROR, "Stuck", "stuck")
    assert "Stuck: stuck" in outcome.traceback


def test_an_exception_that_breaks_its_own_text_is_a_failure_like_others() -> None:
    def body() -> None:
        raise Hostile

    outcome = play(body)
    assert (outcome.cause, outcome.reason) == (Cause.USER_ERROR, "Hostile")


@pytest.mark.parametrize("error", [SystemExit(0), SystemExit("bye"), KeyboardInterrupt(), GeneratorExit()])
def test_a_flow_that_wants_to_end_its_process_only_fails(error: BaseException) -> None:
    def body() -> None:
        raise error

    outcome = play(body)
    assert (outcome.cause, outcome.reason) == (Cause.USER_ERROR, type(error).__name__)


def test_a_raising_on_start_fails_the_run_and_on_exit_still_comes() -> None:
    calls: list[str] = []

    def start() -> None:
        raise Odd("no start")

    outcome, exit_call = invoke(
        invocation(lambda: calls.append("body"), on_start=start, on_exit=lambda: calls.append(f"exit {context.state}")),
        settle=settled,
    )
    assert (outcome.cause, outcome.reason) == (Cause.USER_ERROR, "Odd")
    assert calls == ["exit FAILED"]
    assert exit_call is ExitCall.CALLED


def test_a_callback_that_can_not_be_opened_keeps_its_cause() -> None:
    outcome = play(lambda: 1, on_start=Callback(sealed=b"no pickle"))
    assert (outcome.cause, outcome.reason) == (Cause.CONFIG_ERROR, "Header")
    assert outcome.message.startswith("on_start can't be opened: ")


def test_an_on_exit_that_can_not_be_opened_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        _, exit_call = invoke(invocation(lambda: 1, on_exit=Callback(sealed=b"no pickle")), settle=settled)
    assert exit_call is ExitCall.RAISED
    assert "on_exit can't be opened: " in caplog.text


def test_a_callback_that_raises_an_error_of_ours_has_raised() -> None:
    def start() -> None:
        raise Permanent("needs package 'x'", cause=Cause.CONFIG_ERROR, reason="MissingPackage")

    for callback in (start, Callback.of(start, subject="on_start")):
        outcome = play(lambda: 1, on_start=callback)
        assert (outcome.cause, outcome.reason) == (Cause.USER_ERROR, "Permanent")
        assert "in start" in outcome.traceback


@pytest.mark.parametrize("error", [Odd("late"), SystemExit(3), KeyboardInterrupt(), TimeoutInterrupt()])
def test_a_raising_on_exit_is_recorded_and_changes_nothing_else(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def leave() -> None:
        raise error

    with caplog.at_level(logging.INFO):
        outcome, exit_call = invoke(invocation(lambda: 1, on_exit=leave), settle=settled)
    assert (outcome.state, opened(outcome.result), exit_call) == (State.SUCCEEDED, 1, ExitCall.RAISED)
    assert "on_exit raised" in caplog.text
    assert "in leave" in caplog.text


def test_a_refused_settle_means_somebody_else_calls_on_exit() -> None:
    calls: list[str] = []

    def settle(_outcome: Outcome) -> None:
        raise Refused("taken over")

    with pytest.raises(Refused):
        invoke(invocation(lambda: 1, on_exit=lambda: calls.append("exit")), settle=settle)
    assert calls == []


def test_a_result_too_large_fails_the_run_and_names_the_limit() -> None:
    exit_calls: list[Any] = []

    outcome, _ = invoke(
        invocation(
            lambda: "x" * 1000,
            to_value=lambda obj, kind: keep(obj, kind, limit=100),
            on_exit=lambda: exit_calls.append((context.state, type(context.exception))),
        ),
        settle=settled,
    )
    assert outcome.cause is Cause.USER_ERROR
    assert "result of flow 'f'" in outcome.message
    assert "100 bytes" in outcome.message
    assert "LIMIT" in outcome.message
    assert exit_calls == [(State.FAILED, InvalidInput)]


def test_a_result_that_can_not_travel_fails_the_run_and_is_named() -> None:
    outcome = play(lambda: {"lock": threading.Lock()})
    assert outcome.cause is Cause.USER_ERROR
    assert "['lock'] (a _thread.lock)" in outcome.message


def test_a_flow_that_could_not_be_opened_still_gets_its_on_exit() -> None:
    calls: list[str] = []
    failed = Outcome(cause=Cause.CONFIG_ERROR, message="no such module")
    outcome, exit_call = invoke(
        invocation(
            lambda: calls.append("body"),
            failed=failed,
            on_start=lambda: calls.append("start"),
            on_exit=lambda: calls.append(f"exit {context.state}"),
        ),
        settle=settled,
    )
    assert outcome is failed
    assert (calls, exit_call) == (["exit CRASHED"], ExitCall.CALLED)


def test_on_exit_in_a_fresh_process() -> None:
    calls: list[Any] = []
    error = Odd()
    call = invocation(lambda: calls.append("body"), on_exit=lambda: calls.append((context.state, context.exception)))
    assert call_exit(call, State.CRASHED, error) is ExitCall.CALLED
    assert calls == [(State.CRASHED, error)]
